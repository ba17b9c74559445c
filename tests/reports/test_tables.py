"""The table of a study's trials, cell by cell."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from rich.console import Console

from coldtune.metrics.protocol import Protocol
from coldtune.reports.tables import MISSING, TrialRow, markdown_table, trial_table

PROTOCOL = Protocol(
    extractor="digits", extractor_sha256="ab" * 32, extractor_input="8 bit", dim=64, dataset="digits",
    dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="validation", num_images=359,
    reference_images=359, seed=0,
)  # fmt: skip


def rows() -> list[TrialRow]:
    metrics: dict[str, float | None] = {
        "fid_degraded": 944.1, "fid_direct": 1.35, "fid_sampled": 0.83, "fid_naive": 7.1, "ssim": 0.912,
        "rmse": 0.0512, "nfe": 20,
    }  # fmt: skip
    done = [
        TrialRow(
            2, "finished", {"schedule": "linear", "rate": 0.05, "T": 20, "kernel": 7}, metrics, 61.2, "", PROTOCOL
        ),
        TrialRow(0, "finished", {"schedule": "constant", "T": 30, "kernel": 7}, metrics, 75.0, "", PROTOCOL),
    ]
    return [*done, TrialRow(1, "failed", {"schedule": "a|b", "rate": 0.2, "T": 10, "kernel": 7}, note="loss is NaN")]


def text(width: int, **options: object) -> str:
    console = Console(width=width, file=None, record=True, quiet=False, color_system=None)
    with console.capture() as capture:
        console.print(trial_table(rows(), **options))  # type: ignore[arg-type]
    return capture.get()


def cells(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")] for line in lines]


def test_markdown_table_has_a_row_per_trial_and_a_column_per_difference() -> None:
    head, rule, *body = cells(markdown_table(rows(), best=[2]))
    assert head == [
        "trial", "state", "schedule", "rate", "T",
        "FID degraded", "FID direct", "FID sampled", "FID alg. 1", "SSIM", "RMSE", "NFE", "seconds",
    ]  # fmt: skip
    assert {len(line) for line in (rule, *body)} == {len(head)}
    assert [line[0] for line in body] == ["0", "1", "★2"]
    assert body[0][2:5] == ["constant", MISSING, "30"]
    assert body[2][5:] == ["944.10", "1.35", "0.83", "7.10", "0.912", "0.051", "20", "61"]
    assert body[1][2] == "a¦b"
    assert set(body[1][5:]) == {MISSING}


def test_markdown_table_foot_lists_equal_parameters_protocol_and_failures() -> None:
    below = markdown_table(rows(), best=[2]).split("\n\n")[1]
    assert "best: trial 2" in below
    assert "the same in all: kernel 7" in below
    assert PROTOCOL.describe() in below
    assert "trial 1 failed: loss is NaN" in below


def test_markdown_table_found_training_adds_columns_train_and_saved() -> None:
    made, found, failed = (replace(row) for row in rows())
    made, found = replace(made, train=13.4, saved=0.0), replace(found, train="found", saved=14.6)
    head, _, *body = cells(text := markdown_table([made, found, failed]))
    assert head[-3:] == ["train", "saved", "seconds"]
    assert [line[-3:] for line in body] == [["found", "15", "75"], [MISSING] * 3, ["13", "0", "61"]]
    assert "train: seconds of its training, or found in the store" in text


def test_markdown_table_equal_baseline_is_printed_below() -> None:
    done = [row for row in rows() if row.metrics]
    changed = {**done[1].metrics, "fid_direct": 2.0}
    head, *_ = cells(text := markdown_table([done[0], replace(done[1], metrics=changed)]))
    assert "FID direct" in head, "it differs"
    assert not {"FID degraded", "FID alg. 1"} & set(head)
    assert "the same in all: kernel 7, FID degraded 944.10, FID alg. 1 7.10" in text
    assert {"FID sampled", "SSIM", "RMSE", "NFE"} < set(head), "values of a trial's own sampler always have a column"


def test_markdown_table_null_parameter_differs_from_missing_parameter() -> None:
    done, *others = rows()
    body = cells(markdown_table([replace(done, params={**done.params, "clip": None}), *others]))
    column = body[0].index("clip")
    assert [line[column] for line in body[2:]] == [MISSING, MISSING, "null"]


def test_markdown_table_negligible_saving_has_no_column() -> None:
    made, *others = rows()
    text = markdown_table([replace(made, train=13.4, saved=0.1), *others])
    assert "saved" not in text
    assert cells(text)[0][-1] == "seconds"


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_trial_table_any_terminal_width_cuts_no_number(width: int) -> None:
    shown = text(width, best=[2], title="blur")
    assert all(len(line) <= width for line in shown.splitlines())
    assert "…" not in shown
    for value in ("944.10", "0.83", "7.10", "0.912", "0.051", "0.05", "constant", "★2", "loss is NaN", "blur"):
        assert value in shown


def test_trial_table_narrow_terminal_has_two_tables() -> None:
    assert text(80).count("trial  ") == 2 * text(160).count("trial  ") == 2


def test_tables_different_or_missing_protocol_is_refused() -> None:
    other = PROTOCOL.model_copy(update={"num_images": 100})
    mixed = [*rows(), TrialRow(3, "finished", {}, {"fid_sampled": 0.5}, 1.0, "", other)]
    for table in (trial_table, markdown_table):
        with pytest.raises(ValueError, match=r"num_images \(359 and 100\)"):
            table(mixed)
        with pytest.raises(ValueError, match="trial 4: has metrics but no protocol"):
            table([TrialRow(4, "finished", {}, {"fid_sampled": 0.5})])


def test_markdown_table_small_number_keeps_two_digits_and_nan_is_shown() -> None:
    tiny = TrialRow(0, "finished", {"a": 1}, {"fid_sampled": 0.00123, "ssim": math.nan}, None, "", PROTOCOL)
    large = TrialRow(1, "finished", {"a": 1}, {"fid_sampled": 12.0, "ssim": 0.5}, None, "", PROTOCOL)
    _, _, first, second = cells(markdown_table([tiny, large]))
    assert first[2:] == ["0.0012", "nan", MISSING]
    assert second[2:] == ["12.0000", "0.500", MISSING]


def test_tables_no_trials_make_an_empty_table() -> None:
    assert cells(markdown_table([])) == [["trial", "state", "seconds"], ["--:", ":--", "--:"]]
    Console(width=100, quiet=True).print(trial_table([]))


def test_trial_table_markup_in_a_value_is_shown_literally() -> None:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(trial_table([TrialRow(0, "failed", {"name": "[red]x[/]"}, note="KeyError: [/bold]")]))
    assert "[red]x[/]" in capture.get()
    assert "KeyError: [/bold]" in capture.get()


def test_markdown_table_several_best_trials_are_marked() -> None:
    markdown = markdown_table(rows(), best=[2, 0])
    assert [line[0] for line in cells(markdown)[2:]] == ["★0", "1", "★2"]
    assert "★ not beaten in all objectives by another: trials 0, 2" in markdown


def test_trial_table_of_a_part_claims_equality_for_its_rows_only() -> None:
    console = Console(width=300, color_system=None)
    with console.capture() as captured:
        console.print(trial_table(rows(), best=[2], partial=True))
    assert "the same in all of these: kernel 7" in captured.get()
