"""The table of settings in its four formats: cells, bold rows, p-values, and the lines below."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coldtune.metrics.protocol import Protocol
from coldtune.reports.latex import tex
from coldtune.reports.paper.tables import FilledTable, tables
from coldtune.reports.paper.text import latex
from coldtune.reports.settings import as_csv, as_parquet, settings_frame, settings_latex
from coldtune.reports.tables import COLUMNS, MISSING, TrialRow, build_grid, markdown_table
from latex_checks import check_structure, compile_document

PROTOCOL = Protocol(
    extractor="digits", extractor_sha256="ab" * 32, extractor_input="8 bit", dim=64, dataset="digits",
    dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="validation", num_images=359,
    reference_images=359, seed=0,
)  # fmt: skip
FAMILY = "family: each setting against the base (a_0 & 50 %), by FID."
ODD = ["a_0 & 50 %", "σ = {2}^3 \\alpha", "$x$ #1 ~ <b> | c", "é — ø 中 \x07 --set a=-1", "ώ ½ ﬁ Δ ≤ µ"]  # noqa: RUF001


def row(number: int, name: str, p_value: float | None = None, count: int = 5) -> TrialRow:
    metrics: dict[str, float | None] = {"fid": 1.0 + number, "fid_sampled": 1.0 + number, "ssim": 0.9, "nfe": 20.0}
    spreads = {"fid": (0.25, count), "fid_sampled": (0.25, count), "ssim": (0.01, count), "nfe": (0.0, count)}
    params = {"variant": name, "lr_x%": -1e-3 * number}
    note = f"{number}.1 failed: ValueError: 5 % of {name}\n\n_second_ & last" if number else ""
    return TrialRow(number, "finished", params, metrics, 60.0, note, PROTOCOL, 50.0, 1.0, spreads, p_value)


ROWS = [
    row(0, ODD[0]),
    *(row(i, name, p) for i, (name, p) in enumerate(zip(ODD[1:], (0.2, 4e-5, 1.0, 0.05), strict=True), 1)),
]


def test_settings_latex_any_text_has_a_balanced_structure() -> None:
    text = settings_latex(ROWS, [0], bold=[0, 1], notes=[FAMILY])
    head, *body = check_structure(text)
    assert len(body) == len(ROWS)
    assert [cell.strip() for cell in head][:4] == ["setting", "state", "variant", "lrx"], "without escaped characters"
    assert [line[0].strip().startswith(r"\textbf{") for line in body] == [True, True, False, False, False]


def test_note_of_several_lines_is_one_line_below_a_table() -> None:
    grid = build_grid(ROWS[1:2], [1], COLUMNS, "trial")
    assert [line for line in grid.foot if "failed" in line] == [
        f"trial 1 finished: 1.1 failed: ValueError: 5 % of {ODD[1]} _second_ & last"
    ]


def test_paper_tables_in_latex_have_a_balanced_structure() -> None:
    for number, table in tables().items():
        check_structure(
            latex(FilledTable(number, "digits", ["not_measured & 5 %"] * len(table.columns), [(ODD[1], ODD[3])]))
        )


def test_latex_tables_compile(tmp_path: Path) -> None:
    papers = [
        latex(FilledTable(number, "digits", ["not run"] * len(table.columns), [(ODD[3], ODD[4])]))
        for number, table in tables().items()
    ]
    compile_document(
        [settings_latex(ROWS, [0], bold=[0, 1], notes=[FAMILY, *ODD]), settings_latex([], []), *papers], tmp_path
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("50 % of a_b & #1", r"50 \% of a\_b \& \#1"),
        ("--trials -1 [-2, 3-4]", r"-{}-trials $-$1 [$-$2, 3-4]"),
        ("1.0 ± 0.2 ★ –", r"1.0 $\pm$ 0.2 $\star$ --"),  # noqa: RUF001
        ("Müller, σ ≤ Δ", r"M\"{u}ller, $\sigma$ $\le$ $\Delta$"),  # noqa: RUF001
        ("中\x00", "(U+4E2D)(U+0000)"),
        ("a\n\nb", "a b"),
    ],
)
def test_tex_special_characters_are_escaped(text: str, written: str) -> None:
    assert tex(text) == written


def test_settings_markdown_has_p_values_and_lines_below_the_protocol() -> None:
    text = markdown_table(ROWS, [0], what="setting", bold=[0, 1], notes=[FAMILY])
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    place = lines[0].index("p Holm")
    assert [line[place].strip("* ") for line in lines[2:]] == [MISSING, "0.200", "<0.001", "1.000", "0.050"]
    assert ["1.00 ± 0.25 (5)" in cell for cell in lines[2]].count(True) == 1
    below = text.split("\n\n", 1)[1]
    assert below.index(PROTOCOL.describe()) < below.index(FAMILY)
    assert "bold: cannot be told apart from the best setting" in below


def test_settings_without_p_values_have_no_column_for_them() -> None:
    text = markdown_table([row(0, "a"), row(1, "b")], [0], what="setting")
    assert "Holm" not in text
    assert "p_holm" not in settings_frame([row(0, "a"), row(1, "b")], [0]).column_names


def test_settings_csv_and_parquet_have_the_same_values(tmp_path: Path) -> None:
    frame = settings_frame(ROWS, [0], [0, 1], "fid", FAMILY)
    (tmp_path / "table.parquet").write_bytes(as_parquet(frame))
    parquet = pq.read_table(tmp_path / "table.parquet")
    lines = list(csv.DictReader(io.StringIO(as_csv(frame).decode())))
    assert list(lines[0]) == parquet.column_names
    assert [name for name in parquet.column_names if name.startswith("fid")] == ["fid", "fid_sd", "fid_n"]
    assert parquet["p_holm"].to_pylist() == [None, 0.2, 4e-5, 1.0, 0.05]
    assert [line["p_holm"] for line in lines] == ["", "0.2", "0.00004", "1", "0.05"]
    assert parquet["as_good_as_best"].to_pylist() == [True, True, False, False, False]
    for name, value in {
        "objective": "fid", "secondary_unadjusted": "ssim", "protocol": PROTOCOL.key, "family": FAMILY
    }.items():  # fmt: skip
        assert {line[name] for line in lines} == {value}
        assert parquet.schema.metadata[name.encode()].decode() == value
    assert [line["variant"] for line in lines] == ODD


def test_settings_frame_without_a_verdict_leaves_open_what_is_as_good() -> None:
    assert settings_frame(ROWS, [0])["as_good_as_best"].to_pylist() == [None] * len(ROWS)
