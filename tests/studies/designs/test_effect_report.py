"""The table of effects: its intervals, and what it says while trainings are missing."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from scipy import stats

from coldtune import presets
from coldtune.studies.designs.effect_report import EffectReport, EstimatedEffect, report_effects
from coldtune.studies.designs.effects import Effect
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.ablation import AblationRecord, Change, Step
from coldtune.studies.spec.build import build_spec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import StoredStage, TrialOutcome
from coldtune.studies.trials.ledger import Ledger, TrialRequest, open_ledger

LOSS = "base: digits-quick\ndesign: {kind: one_factor}\nfactors: {training.loss: [l1, l2]}\n"
SAMPLER = "base: digits-quick\ndesign: {kind: one_factor}\nfactors: {sampler.algorithm: [tacos, naive]}\n"


def study(folder: Path, space: str, replicates: int, ablation: AblationRecord | None = None) -> Ledger:
    (folder / "space.yaml").write_text(space)
    spec = build_spec("design", folder / "space.yaml").model_copy(update={"ablation": ablation})
    built = build_space(spec.space, spec.base, presets.image_shape(spec.base))
    return open_ledger("design", spec, built, open_storage(folder), replicates=replicates)


def run(made: Ledger, fid: Callable[[TrialRequest], float], trials: int = 100) -> EffectReport:
    """Tell some trials without running them. The network of a trial depends on its training alone."""
    while trials and made.wanted(2) > 0:
        asked = made.ask(2)
        assert asked is not None
        network = str(asked.config.training.trajectory())
        outcome = TrialOutcome({"fid": fid(asked)}, stages=(StoredStage("train", network, False, 1.0),))
        made.complete(asked.number, outcome)
        trials -= 1
    report = report_effects(made)
    assert report is not None
    return report


def text(report: EffectReport) -> str:
    console = Console(width=400, file=io.StringIO())
    console.print(report.table(), *report.notes)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_effect_of_independent_trainings_has_the_interval_of_welch(tmp_path):
    values = {"l1": [1.0, 1.25, 1.5, 1.0, 0.75], "l2": [2.0, 2.5, 3.5, 2.0, 3.0]}
    report = run(study(tmp_path, LOSS, 5), lambda asked: values[asked.config.training.loss][asked.config.training.seed])
    (row,) = report.rows
    assert row.difference is not None
    assert row.difference.value == pytest.approx(statistics.fmean(values["l2"]) - statistics.fmean(values["l1"]))
    welch = stats.ttest_ind(values["l2"], values["l1"], equal_var=False).confidence_interval(0.95)
    assert row.interval is not None
    # The first look spends 80 % of the error, so that trainings may be added later.
    assert row.interval.low < welch.low
    assert row.interval.high > welch.high
    assert row.interval.high - row.interval.low < 1.2 * (welch.high - welch.low)


def test_effect_of_arms_with_one_network_is_paired(tmp_path):
    """The luck of a training is common to both samplers, so it cancels."""
    luck = [0.0, 10.0, -10.0, 20.0, 5.0]

    def fid(asked: TrialRequest) -> float:
        naive = asked.config.sampler.algorithm == "naive"
        return luck[asked.config.training.seed] + (1.0 + 0.01 * asked.config.training.seed) * naive

    (row,) = run(study(tmp_path, SAMPLER, 5), fid).rows
    assert row.difference is not None
    assert row.difference.paired
    assert row.interval is not None
    assert 0.9 < row.interval.low < 1.02 < row.interval.high < 1.1


def test_effect_of_trainings_paired_by_seed_is_paired_only_if_the_space_says_so(tmp_path):
    luck = [0.0, 10.0, -10.0, 20.0, 5.0]

    def fid(asked: TrialRequest) -> float:
        worse = asked.config.training.loss == "l2"
        return luck[asked.config.training.seed] + (1.0 + 0.01 * asked.config.training.seed) * worse

    for number, (more, paired) in enumerate((("", False), ("comparisons: {pair: seed}\n", True))):
        (folder := tmp_path / str(number)).mkdir()
        (row,) = run(study(folder, LOSS + more, 5), fid).rows
        assert row.difference is not None
        assert row.difference.paired == paired
        assert row.interval is not None
        assert (row.interval.low > 0) == paired


def test_effects_have_no_interval_while_trainings_are_missing(tmp_path):
    made = study(tmp_path, LOSS, 3)
    report = run(made, lambda asked: float(asked.number), trials=5)
    assert [row.interval for row in report.rows] == [None]
    assert "5 of 6 trainings, no intervals yet" in text(report)
    report = run(made, lambda asked: float(asked.number))
    assert all(row.interval is not None for row in report.rows)
    assert "Intervals are over trainings, with 3 trainings of each arm, adjusted for 1 effect" in text(report)


def test_effects_of_one_training_are_said_to_be_those_of_networks(tmp_path):
    report = run(study(tmp_path, LOSS, 1), lambda asked: float(asked.number))
    assert report.rows[0].interval is None
    assert "differences are those of networks and not of settings" in text(report)


def test_effects_of_two_trainings_are_too_few_for_a_verdict(tmp_path):
    report = run(study(tmp_path, LOSS, 2), lambda asked: float(asked.number))
    assert "2 trainings of an arm are too few for a verdict about settings" in text(report)


def test_effects_in_markdown_are_a_table_with_notes(tmp_path):
    made = study(tmp_path, LOSS, 3)
    lines = run(made, lambda asked: float(asked.number)).markdown().splitlines()
    assert lines[0] == "| effect | FID | 95 % CI |"
    assert lines[3].startswith("| loss=l2 instead of l1 | ")
    assert lines[-1].startswith("- Intervals are over trainings")


def test_study_without_a_design_has_no_effects(tmp_path):
    made = study(tmp_path, "base: digits-quick\nvariants: {a: {}, b: {training.loss: l2}}\n", 1)
    assert report_effects(made) is None


def test_effects_with_equal_contrasts_count_once(tmp_path):
    """The only step of an ablation is also the change alone and the whole. Its interval is that of a single effect."""

    def fid(asked: TrialRequest) -> float:
        return 2.0 * (asked.config.training.loss == "l2") + [0.0, 0.4, 0.1, 0.5, 0.2][asked.config.training.seed]

    (tmp_path / "design").mkdir()
    (alone,) = run(study(tmp_path / "design", LOSS, 5), fid).rows
    change = Change(
        keys=("training.loss",), before={"training.loss": "l1"}, after={"training.loss": "l2"}, alone="best"
    )
    record = AblationRecord(
        study="s", trial=1, changes={"loss": change}, base="base", best="best",
        path=(Step(changes=("loss",), arm="base"),),
    )  # fmt: skip
    variants = "base: digits-quick\nvariants: {base: {}, best: {training.loss: l2}}\n"
    report = run(study(tmp_path, variants, 5, record), fid)
    known = [row for row in report.rows if row.difference is not None]
    assert [row.effect.group for row in known] == ["step", "alone", "whole"]
    assert {row.interval for row in known} == {alone.interval}
    assert "adjusted for 1 different effect" in text(report)


def test_ablation_with_missing_trainings_says_that_its_steps_do_not_sum(tmp_path):
    """The samplers share networks. One of them has failed on the last, so they are compared by the others."""
    names = ("loss", "sampler")
    changes = {name: Change(keys=(name,), before={name: 0}, after={name: 1}, alone="base") for name in names}
    path = (Step(changes=("loss",), arm="naive"), Step(changes=("sampler",), arm="base"))
    record = AblationRecord(study="s", trial=1, changes=changes, base="base", best="best", path=path)
    variants = (
        "base: digits-quick\nvariants: {base: {}, naive: {sampler.algorithm: naive}, "
        "best: {training.loss: l2, sampler.algorithm: naive}}\n"
    )
    for failed in (None, 4):
        (folder := tmp_path / str(failed)).mkdir()
        made = study(folder, variants, 5, record)
        while made.wanted(3) > 0:
            asked = made.ask(3)
            assert asked is not None
            config, seed = asked.config, asked.config.training.seed
            naive, l2 = config.sampler.algorithm == "naive", config.training.loss == "l2"
            if naive and not l2 and seed == failed:
                made.fail(asked.number, "RuntimeError: boom")
                continue
            stage = StoredStage("train", str(config.training.trajectory()), False, 1.0)
            made.complete(asked.number, TrialOutcome({"fid": seed**2 + 3.0 * naive + 7.0 * l2}, stages=(stage,)))
        report = report_effects(made)
        assert report is not None
        values = {group: [row.difference for row in rows] for group, rows in report.groups().items()}
        steps, (whole,) = sum(each.value for each in values["step"] if each), values["whole"]
        assert whole is not None
        assert (steps == pytest.approx(whole.value)) == (failed is None)
        assert ("the steps do not sum exactly to the whole" in text(report)) == (failed is not None)
        trainings = "5 trainings" if failed is None else "4 to 5 trainings"
        assert f"with {trainings} of each arm" in text(report)


def test_effects_in_markdown_show_names_as_they_are():
    effect = Effect("a|b *c* <d>\n$e$ instead of __f__", "effect", {})
    row = EstimatedEffect(effect, problem="x|y")
    assert EffectReport("fid", (row,), ("a *note*",)).markdown().splitlines()[3:] == [
        "| a\\|b \\*c\\* &lt;d> \\$e\\$ instead of \\_\\_f\\_\\_ |  | x\\|y |", "", "- a \\*note\\*"
    ]  # fmt: skip
