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
from scipy import stats

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
from coldtune.studies.trials.judging import network_of
from coldtune.studies.trials.ledger import Ledger, TrialRequest, open_ledger
from coldtune.verdicts import Outcome, Plan
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


SEARCH = """
base: digits-quick
vary: {training.lr: {low: 1.0e-4, high: 5.0e-3, log: true}}
search: {algorithm: random}
"""


def test_search_counts_settings_to_come_in_the_adjustment(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    """What is said about two settings of a search does not depend on how many others it has asked."""
    made = open_study(3, SEARCH)
    write_study(made.study, trials=5)

    def fid(asked: TrialRequest) -> float:
        return 9.0 * (asked.label.partition(".")[0] == "1") + 0.1 * asked.replicate

    run(made, tmp_path / "first", fid, most=7, trials=5)
    early = judge_settings(made).sentences
    assert early[0].startswith("Setting 1 is worse than setting 0: FID 9.0")
    assert "adjusted for 4 comparisons" in early[0]
    assert "Setting 2 and setting 0: 1 of 3 trainings, no verdict yet." in early
    assert "2 settings to come are part of the adjustment." in early
    assert not any("best mean" in sentence for sentence in early), "the best of five is not known among three"
    run(made, tmp_path / "rest", fid, trials=5)
    late = judge_settings(made).sentences
    assert late[0] == early[0]
    assert any("has the best mean" in sentence for sentence in late)


def test_failed_training_says_why_there_is_no_verdict(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(4)
    while made.wanted(3) > 0:
        asked = made.ask(3)
        if asked.point["variant"] == "b" and asked.replicate == 1:
            made.fail(asked.number, "RuntimeError: boom")
        else:
            made.complete(asked.number, outcome(fid_of(asked), tmp_path / asked.label, asked.number))
    sentences = judge_settings(made).sentences
    assert "b and a: 3 of 4 trainings, no verdict yet." in sentences
    assert any(
        s.startswith("Trainings of b failed, so comparisons that need 4 trainings of each wait.") for s in sentences
    )
    assert any(s.startswith("c is worse than a") for s in sentences)


def test_setting_without_any_training_is_named_as_failed(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(3)
    while made.wanted(3) > 0:
        asked = made.ask(3)
        if asked.point["variant"] == "c":
            made.fail(asked.number, "RuntimeError: boom")
        else:
            made.complete(asked.number, outcome(fid_of(asked), tmp_path / asked.label, asked.number))
    assert "c and a cannot be compared: c failed (1 of 3)." in judge_settings(made).sentences


def test_several_objectives_have_no_row_that_cannot_be_told_apart(
    open_study: Callable[..., Ledger], tmp_path: Path
) -> None:
    """SSIM and NFE are here equal in all, so the front is decided by FID. Two settings have the same mean of it."""
    made = open_study(4, f"{VARIANTS}objective: [{{metric: fid}}, {{metric: ssim}}]\n")
    run(made, tmp_path / "judged", lambda asked: 1.0 + (asked.point["variant"] == "c"))
    text = build_table(made).files["table.md"]
    assert "not beaten in all objectives by another: settings 0, 1" in text
    assert "cannot be told apart" not in text


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("[{metric: fid}, {metric: ssim}]", "because the study has several objectives."),
        ("{metric: nfe}", "because metric = 'nfe': has no numbers for each image, only fid has."),
    ],
)
def test_objective_without_verdicts_says_why(
    objective: str, said: str, open_study: Callable[..., Ledger], tmp_path: Path
) -> None:
    made = open_study(3, f"{VARIANTS}objective: {objective}\n")
    run(made, tmp_path / "judged", fid_of)
    first, *more = judge_settings(made).sentences
    assert first == f"There are no verdicts on settings, {said}"
    assert [sentence.startswith("FID of a trained network varies") for sentence in more[:1]] == [True] * (
        "[" in objective
    )


def test_single_setting_has_the_variance_by_source(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    """A pilot of one setting. By hand: the sd of 1.0, 1.2, 1.1 and 1.3 is 0.129."""
    made = open_study(4, "base: digits-quick\nvariants: {a: {}}\n")
    run(made, tmp_path / "judged", fid_of, trials=1)
    (said,) = judge_settings(made).sentences
    assert said.startswith("FID of a trained network varies (sd) by 0.13 between trainings")


def test_advice_accounts_for_the_further_look(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    """The trainings that the advice names make a second look, whose interval is wider than one of a single look.

    By hand, without images: each half width is t sqrt(2 / k) sd, at the level of the look. Below a level of 0.03, t is
    the geometric mean of Welch's and of the smaller degrees of freedom.
    """
    made = open_study(4, "base: digits-quick\nvariants: {a: {}, b: {training.lr: 2.0e-3}}\n")
    run(
        made,
        tmp_path / "judged",
        lambda asked: {"a": 0.0, "b": 0.01}[asked.point["variant"]] + 0.1 * asked.replicate,
        trials=2,
    )
    levels = [Plan((4,)).alpha_at(4, 0.05), Plan((4, 7)).alpha_at(7, 0.05)]
    assert levels[0] >= 0.03 > levels[1]
    now = stats.t.isf(levels[0] / 2, 6) * (2 / 4) ** 0.5
    later = (stats.t.isf(levels[1] / 2, 12) * stats.t.isf(levels[1] / 2, 6)) ** 0.5 * (2 / 7) ** 0.5
    said = [sentence for sentence in judge_settings(made).sentences if "more trainings of each" in sentence]
    assert said == [
        f"Of b and a: 3 more trainings of each would narrow this interval by about {100 * (1 - later / now):.0f} %."
    ]


def test_network_of_a_moved_store_is_the_same_network(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(3)
    places = ("/old/home/store", "/new/home/store", "s3://bucket/prefix")
    for place in places:
        asked = made.ask(3)
        told = outcome(1.0, tmp_path / asked.label, asked.number)
        made.complete(asked.number, replace(told, checkpoint=f"{place}/train/{'ab' * 32}/00000300"))
    assert len({network_of(trial) for trial in made.trials() if trial.state.is_finished()}) == 1


def test_single_trainings_that_become_more_give_no_verdict_until_the_end(
    open_study: Callable[..., Ledger], tmp_path: Path
) -> None:
    made = open_study(4)
    write_study(made.study, replicates=[1, 4])
    run(made, tmp_path / "judged", fid_of, most=7)
    assert judge_settings(made).sentences[0] == "The base is a. 2 of 4 trainings of each setting, no verdict yet."
    verdict = judge_two(made, 1, 2)
    assert not isinstance(verdict, str)
    assert verdict.sentence() == "b and c: 2 of 4 trainings, no verdict yet."


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
        told = outcome(fid_of(asked), tmp_path / asked.label, asked.number, images=1.0)
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
        r"The other metrics vary \(sd\) by training, and by images with their draws: KID (\S+) and (\S+)\.", others
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
    sentences = judge_settings(made, 1.0).sentences
    assert any("practically equal (within 1)" in sentence for sentence in sentences)
    assert "a has the best mean. It is practically equal to b." in sentences


def test_family_of_the_space_decides_what_is_compared(open_study: Callable[..., Ledger], tmp_path: Path) -> None:
    made = open_study(4, settings=("comparisons.family=[best]",))
    run(made, tmp_path / "judged", fid_of)
    sentences = judge_settings(made).sentences
    assert sentences[0].startswith("a has the best mean")
    assert sentences[1].startswith("b and the best setting (a) cannot be told apart: FID 0")
    assert "adjusted for 3 comparisons, 4 trainings each" in sentences[1], "all pairs share the error"
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
