"""The table of settings: means, states of unfinished and pruned settings, verdicts and bold rows."""

from __future__ import annotations

import csv
import re
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from coldtune.config import plain
from coldtune.metrics import Judgement
from coldtune.studies.progress.results import print_results
from coldtune.studies.progress.table import build_table, setting_rows
from coldtune.studies.progress.verdicts import judge_settings, judge_two
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import Rung
from coldtune.studies.storage.record import TestResult, write_study
from coldtune.studies.trials.ledger import Ledger, TrialRequest, open_ledger
from coldtune.verdicts import Outcome
from judged_trials import PROTOCOL, outcome, run
from latex_checks import check_structure

VARIANTS = "base: digits-quick\nvariants: {a: {}, b: {training.lr: 2.0e-3}, c: {training.lr: 3.0e-3}}\n"


@pytest.fixture
def open_study(tmp_path: Path) -> Callable[..., Ledger]:
    def opened(replicates: int, text: str = VARIANTS, settings: tuple[str, ...] = ()) -> Ledger:
        (tmp_path / "space.yaml").write_text(text)
        spec = build_spec("job", tmp_path / "space.yaml", settings=settings)
        space = Space(spec.space, spec.base, (1, 16, 16))
        made = open_ledger("study", spec, space, open_storage(tmp_path), replicates=replicates)
        write_study(made.study, replicates=[replicates])
        return made

    return opened


FIDS = {"a": [1.0, 1.2, 1.1, 1.3], "b": [1.1, 1.05, 1.25, 1.2], "c": [5.0, 5.2, 5.1, 4.9]}


def fid_of(asked: TrialRequest) -> float:
    return FIDS[asked.point["variant"]][asked.replicate]


def test_settings_table_has_mean_and_sd_over_trainings(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(4)
    run(made, tmp_path / "judged", fid_of)
    text = build_table(made).files["table.md"]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0].startswith("| setting | state | variant | FID sampled |")
    # By hand: the mean of a is 1.15, its deviations ±0.05 and ±0.15, so its sd is sqrt(0.05 / 3) = 0.129.
    assert "**1.15 ± 0.13 (4)**" in lines[3 - 1]
    assert "5.05 ± 0.13 (4)" in lines[4]
    assert "**" not in lines[4], "c is worse than the best"
    assert "**" in lines[3], "b cannot be told apart from the best"
    assert " 20 " in lines[2].replace("*", " "), "no training changes the network evaluations"
    assert "mean ± standard deviation between trainings" in text
    assert "c is worse than a" in text
    assert "a has the best mean. It cannot be told apart from b." in text


@pytest.mark.parametrize(("most", "shown"), [(None, "abc"), (3, "abc"), (2, "ab"), (1, "ab")])
def test_long_table_shows_the_best_rows_and_the_base(
    open_study: Callable[..., Ledger], tmp_path: Path, most: int | None, shown: str
) -> None:
    """b is the best, then the base a, then c."""
    made = open_study(3)
    run(made, tmp_path / "judged", lambda asked: {"a": 1.5, "b": 1.0, "c": 5.0}[asked.point["variant"]])
    table, console = build_table(made, most=most), Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(table.terminal)
    text = captured.get()
    assert [line.split()[2] for line in text.splitlines() if " finished " in line] == list(shown)
    assert ("1 of 3 settings are not shown (1 finished)" in text) == (shown == "ab")
    assert "| 2 | finished | c |" in str(table.files["table.md"]), "files have all rows"


def test_settings_files_have_the_means(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(4)
    run(made, tmp_path / "judged", fid_of)
    folder = tmp_path / "files"
    folder.mkdir()
    names = [path.name for path in build_table(made).write(folder)]
    assert sorted(names) == ["table.csv", "table.md", "table.parquet", "table.tex"]
    frame = pq.read_table(folder / "table.parquet").to_pydict()
    assert frame["family"][0].startswith("families: each setting against the base (a), and all against the best")
    assert set(frame["secondary_unadjusted"]) == {"ssim"}
    assert frame["p_holm"][0] is None, "the base is compared with nothing"
    assert frame["p_holm"][1] == 1.0, "b has the mean of a"
    assert frame["p_holm"][2] < 1e-4
    assert frame["variant"] == ["a", "b", "c"]
    assert frame["fid"] == pytest.approx([1.15, 1.15, 5.05])
    assert frame["fid_sd"] == pytest.approx([statistics.stdev(FIDS[name]) for name in "abc"])
    assert frame["fid_n"] == [4, 4, 4]
    assert frame["best"] == [True, False, False]
    assert frame["as_good_as_best"] == [True, True, False]
    with (folder / "table.csv").open(newline="") as file:
        assert [row["fid_n"] for row in csv.DictReader(file)] == ["4", "4", "4"]
    text = (folder / "table.tex").read_text(encoding="utf-8")
    assert text.isascii(), "any LaTeX engine reads it"
    lines = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len({line.count(" & ") for line in lines}) == 1
    assert [line.count(r"\textbf") > 0 for line in lines] == [False, True, True, False]
    assert "secondary, unadjusted: SSIM" in text
    check_structure(text)
    for pair in ("{}", "[]"):
        assert text.count(pair[0]) == text.count(pair[1])


def test_settings_table_before_the_end_gives_no_verdict(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(4)
    run(made, tmp_path / "judged", fid_of, most=7)
    rows = setting_rows(made)
    assert [row.state for row in rows] == ["3 of 4 trainings", "2 of 4 trainings", "2 of 4 trainings"]
    sentences = judge_settings(made).sentences
    assert sentences[0] == "The base is a. 2 of 4 trainings of each setting, no verdict yet."
    assert not any("better" in sentence or "worse" in sentence for sentence in sentences)


def test_two_trainings_give_no_verdict_on_settings(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(2)
    run(made, tmp_path / "judged", fid_of)
    sentences = judge_settings(made).sentences
    assert any("too few trainings for a verdict" in sentence for sentence in sentences)
    assert not any("is better than" in sentence or "is worse than" in sentence for sentence in sentences)


def test_declared_draws_are_a_source_of_the_split(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    """By hand: each FID differs by 0.2 between the two protocol seeds, so its variance is 0.02 and its sd 0.14."""
    made = open_study(3)
    while made.wanted(3) > 0:
        asked = made.ask(3)
        told = outcome(fid_of(asked), tmp_path / asked.label, asked.number)
        made.complete(asked.number, replace(told, draws={1: {"fid": fid_of(asked) + 0.2, "ssim": 0.9}}))
    said = [sentence for sentence in judge_settings(made).sentences if "varies (sd)" in sentence]
    assert len(said) == 1
    assert said[0].endswith("over images, by 0.14 over draws (9 trainings, 2 protocol seeds).")


def test_advice_names_the_images_of_the_split_that_were_not_judged(
    open_study: Callable[..., Ledger], tmp_path: Path
) -> None:
    made = open_study(4)
    larger = plain(PROTOCOL.model_copy(update={"reference_images": 5000}))
    while made.wanted(3) > 0:
        asked = made.ask(3)
        told = outcome(fid_of(asked), tmp_path / asked.label, asked.number)
        made.complete(asked.number, replace(told, protocol=larger))
    said = [sentence for sentence in judge_settings(made).sentences if "more trainings of each" in sentence]
    assert len(said) == 1
    assert "Judging all 5,000 images of the split instead of 50 would narrow it by about" in said[0]


def test_variance_of_every_metric_is_split(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    """KID is here 2 FID for every set of images. So each part of its standard deviation is twice that of FID."""
    made = open_study(3)
    while made.wanted(3) > 0:
        asked = made.ask(3)
        told = outcome(fid_of(asked), tmp_path / asked.label, asked.number)
        judged = Judgement.load(tmp_path / asked.label)
        values = {**judged.values, "kid": replace(judged.values["fid"], metric="kid", value=2 * fid_of(asked))}
        influences = {"fid": judged.influences["fid"], "kid": 2 * judged.influences["fid"]}
        shutil.rmtree(tmp_path / asked.label)
        (tmp_path / asked.label).mkdir()
        replace(judged, values=values, influences=influences).save(tmp_path / asked.label)
        made.complete(asked.number, told)
    fid, others = judge_settings(made).sentences[-2:]
    training, images = map(float, re.search(r"by (\S+) between trainings, by (\S+) over images", fid).groups())
    doubled = re.fullmatch(
        r"The other metrics vary \(sd\) by training, and by images with their draws: KID (\S+), (\S+)\.", others
    )
    assert list(map(float, doubled.groups())) == pytest.approx([2 * training, 2 * images], rel=0.1)


def test_judge_two_planned_and_other_comparisons(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(4, settings=("comparisons.family=[base]",))
    run(made, tmp_path / "judged", fid_of)
    planned, other = judge_two(made, 0, 2), judge_two(made, 1, 2)
    assert not isinstance(planned, str)
    assert not isinstance(other, str)
    assert (planned.a, planned.b, planned.comparisons, planned.secondary) == ("c", "a", 2, False)
    assert (other.a, other.b, other.comparisons, other.secondary) == ("b", "c", 1, True)
    assert other.outcome is Outcome.BETTER
    assert "secondary, unadjusted" in other.sentence()
    assert "adjusted for" not in other.sentence()


def test_judge_two_with_the_best_has_the_verdict_of_its_family(
    open_study: Callable[..., Ledger], tmp_path: Path
) -> None:
    made = open_study(4, settings=("comparisons.family=[best]",))
    run(made, tmp_path / "judged", fid_of)
    verdict = judge_two(made, 0, 2)
    assert not isinstance(verdict, str)
    assert (verdict.a, verdict.b, verdict.comparisons) == ("c", "a", 3), "all pairs share the error"
    assert verdict.sentence().startswith("c is worse than the best setting (a)")


def test_judge_two_before_the_end_and_of_single_trainings_gives_no_verdict(
    open_study: Callable[..., Ledger], tmp_path: Path
) -> None:
    made = open_study(4)
    run(made, tmp_path / "judged", fid_of, most=7)
    verdict = judge_two(made, 1, 2)
    assert not isinstance(verdict, str)
    assert verdict.sentence() == "b and c: 2 of 4 trainings, no verdict yet."
    shutil.rmtree(tmp_path / "judged" / "0")
    assert isinstance(judge_two(made, 0, 1), str)


def test_measurement_on_test_says_how_many_networks_it_is_about(
    open_study: Callable[..., Ledger], tmp_path: Path
) -> None:
    made = open_study(3)
    run(made, tmp_path / "judged", fid_of)
    said = []
    for each in ({}, {"0": {"fid": 1.0}, "3": {"fid": 1.4}, "6": {"fid": 1.2}}):
        write_study(made.study, test=TestResult(0, {"fid": 1.2}, plain(PROTOCOL), each))
        console = Console(width=1000, color_system=None)
        with console.capture() as captured:
            print_results(console, made, build_table(made))
        said.append(next(line for line in captured.get().splitlines() if "measured once on test" in line))
    assert "This is one trained network, and says little about its setting." in said[0]
    assert said[1].startswith("Setting 0, each of its trainings measured once on test: FID 1.20 ± 0.20 (3 trainings)")


def test_equal_within_makes_settings_practically_equal(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(4)
    run(made, tmp_path / "judged", fid_of)
    assert any("practically equal (within 1)" in sentence for sentence in judge_settings(made, 1.0).sentences)


def test_family_of_the_space_decides_what_is_compared(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(4, settings=("comparisons.family=[best]",))
    run(made, tmp_path / "judged", fid_of)
    sentences = judge_settings(made).sentences
    assert sentences[0].startswith("a has the best mean")
    assert made.spec.name != build_spec("job", tmp_path / "space.yaml").name, "the family is a part of the study"


def test_failed_and_pruned_settings_say_how_many_trainings(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(3)
    while made.wanted(3) > 0:
        asked = made.ask(3)
        if asked.label == "0":
            made.fail(asked.number, "RuntimeError: boom")
        elif asked.label == "1.1":
            at = Rung(10, 20, "kid", {"kid": 1.0})
            made.prunes(asked.number, at)
            made.prune(asked.number, at)
        else:
            made.complete(asked.number, outcome(fid_of(asked), tmp_path / asked.label, asked.number))
    rows = {row.number: row for row in setting_rows(made)}
    assert [rows[number].state for number in range(3)] == ["failed (1 of 3)", "pruned (1 of 3)", "finished"]
    assert rows[0].note == "0 failed: RuntimeError: boom"
    assert rows[1].note == "1.1 pruned: at step 10 of 20: KID 1"
    assert "fid" not in rows[1].metrics, "a setting with a pruned training has no mean"


@pytest.mark.parametrize("settings", ["comparisons.family=[worst]", "comparisons.equal_within=0", "comparisons.pair=x"])
def test_comparisons_wrong_value_is_named(settings: str, open_study: Callable[..., Ledger]) -> None:
    with pytest.raises(ValueError, match=settings.partition("=")[0].replace(".", r"\.")):
        open_study(2, settings=(settings,))
