"""Replicates: their order, seeds and names, extended and resumed studies, means for the search, failures, pruning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from coldtune.data import Dataset, prepared
from coldtune.stages.keys import sample_key, train_key
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.storage.settings import Setting, Spread
from coldtune.studies.trials.ledger import Ledger, TrialRequest, open_ledger
from coldtune.studies.trials.promotion import promote
from coldtune.studies.trials.retrying import retry_failed

VARIANTS = "base: digits-quick\nvariants: {a: {}, b: {training.lr: 2.0e-3}, c: {training.lr: 3.0e-3}}\n"
SEARCH = "base: digits-quick\nvary: {degradation.steps: {low: 10, high: 40}}\nsearch: {algorithm: ALGORITHM}\n"


@pytest.fixture
def spec_of(tmp_path: Path) -> Callable[..., StudySpec]:
    def build(text: str, *settings: str) -> StudySpec:
        (tmp_path / "space.yaml").write_text(text)
        return build_spec("job", tmp_path / "space.yaml", settings=settings)

    return build


def ledger(spec: StudySpec, folder: Path, replicates: int = 1) -> Ledger:
    space = Space(spec.space, spec.base, (1, 16, 16))
    return open_ledger("study", spec, space, open_storage(folder), replicates=replicates)


def run(made: Ledger, trials: int, fid: Callable[[TrialRequest], float] = lambda _: 1.0) -> list[str]:
    """Run all trials that are wanted, one after another, and return their names."""
    names = []
    while made.wanted(trials) > 0:
        asked = made.ask(trials)
        assert asked is not None
        made.complete(asked.number, TrialOutcome({"fid": fid(asked)}))
        names.append(asked.label)
    return names


def test_replicates_of_a_list_are_asked_replicate_by_replicate(spec_of: Any, tmp_path: Path) -> None:
    made = ledger(spec_of(VARIANTS), tmp_path, 2)
    assert run(made, 3) == ["0", "1", "2", "0.1", "1.1", "2.1"]
    assert made.is_done(3)
    assert made.finished() == 3
    assert made.ended() == 6


def test_replicates_of_a_search_are_asked_setting_by_setting(spec_of: Any, tmp_path: Path) -> None:
    made = ledger(spec_of(SEARCH.replace("ALGORITHM", "random")), tmp_path, 3)
    assert run(made, 2) == ["0", "0.1", "0.2", "1", "1.1", "1.2"]
    assert run(made, 3) == ["2", "2.1", "2.2"]


@pytest.mark.parametrize(
    "algorithm", ["random", "tpe", "qmc", "grid", "nsga2", pytest.param("gp", marks=pytest.mark.slow)]
)
def test_replicates_change_no_setting_that_a_search_without_them_asks(
    spec_of: Any, tmp_path: Path, algorithm: str
) -> None:
    """The value depends on the setting alone, so that the search with replicates sees the same values."""
    spec = spec_of(SEARCH.replace("ALGORITHM", f"{algorithm}, startup: 3"))
    points: list[dict[int, Any]] = []
    for replicates in (1, 3):
        seen: dict[int, Any] = {}

        def fid(asked: TrialRequest, seen: dict[int, Any] = seen) -> float:
            assert seen.setdefault(asked.setting, asked.point) == asked.point
            return float(asked.point["T"])

        folder = tmp_path / str(replicates)
        folder.mkdir()
        run(ledger(spec, folder, replicates), 7, fid)
        points.append(seen)
    assert points[0] == points[1]


def test_replicate_has_the_next_training_seed_and_nothing_else_differs(spec_of: Any, tmp_path: Path) -> None:
    made = ledger(spec_of(VARIANTS, "training.seed=7"), tmp_path, 3)
    configs = {asked.label: asked.config for asked in (made.ask(3) for _ in range(9)) if asked}
    assert [configs[name].training.seed for name in ("1", "1.1", "1.2")] == [7, 8, 9]
    same = configs["1"].training.model_copy(update={"seed": 8})
    assert configs["1.1"] == configs["1"].model_copy(update={"training": same})


def test_finished_study_is_given_replicates_and_repeats_nothing(spec_of: Any, tmp_path: Path) -> None:
    spec = spec_of(SEARCH.replace("ALGORITHM", "random"))
    before = ledger(spec, tmp_path)
    assert run(before, 3) == ["0", "1", "2"]
    assert all("setting" not in trial.user_attrs for trial in before.trials()), "as an older version left them"
    more = ledger(spec, tmp_path, 3)
    assert more.finished() == 0
    assert more.wanted(3) == 6
    assert run(more, 3) == ["0.1", "1.1", "2.1", "0.2", "1.2", "2.2"]
    assert run(ledger(spec, tmp_path, 4), 4) == ["0.3", "1.3", "2.3", "3", "3.1", "3.2", "3.3"]
    last = ledger(spec, tmp_path, 4)
    assert last.is_done(4)
    assert sorted(last.label(trial.number) for trial in last.trials()) == sorted(
        f"{setting}.{replicate}" if replicate else str(setting) for setting in range(4) for replicate in range(4)
    )


def test_study_with_fewer_replicates_than_before_asks_none(spec_of: Any, tmp_path: Path) -> None:
    spec = spec_of(VARIANTS)
    run(ledger(spec, tmp_path, 3), 3)
    fewer = ledger(spec, tmp_path, 2)
    assert fewer.is_done(3)
    assert len(fewer.settings()[0].finished) == 3


def test_killed_study_asks_its_running_replicates_again(spec_of: Any, tmp_path: Path) -> None:
    spec = spec_of(SEARCH.replace("ALGORITHM", "random"))
    killed = ledger(spec, tmp_path, 3)
    asked = [killed.ask(2) for _ in range(2)]
    assert [each.label for each in asked if each] == ["0", "0.1"]
    killed.complete(0, TrialOutcome({"fid": 1.0}))
    resumed = ledger(spec, tmp_path, 3)
    again = resumed.ask(2)
    assert again is not None
    assert (again.label, again.again, again.config.training.seed) == ("0.1", True, 1)
    resumed.complete(again.number, TrialOutcome({"fid": 1.0}))
    assert run(resumed, 2) == ["0.2", "1", "1.1", "1.2"]


def test_two_drivers_ask_each_replicate_once(spec_of: Any, tmp_path: Path) -> None:
    spec = spec_of(VARIANTS)
    first, second = ledger(spec, tmp_path, 2), ledger(spec, tmp_path, 2)
    names = []
    for _ in range(3):
        for driver in (first, second):
            if (asked := driver.ask(3)) is not None:
                names.append(asked.label)
    assert sorted(names) == ["0", "0.1", "1", "1.1", "2", "2.1"]
    assert first.ask(3) is None


def test_best_setting_is_the_one_with_the_best_mean(spec_of: Any, tmp_path: Path) -> None:
    fids = {"0": 1.0, "0.1": 1.2, "1": 0.1, "1.1": 3.0, "2": 2.0, "2.1": 2.0}
    made = ledger(spec_of(VARIANTS), tmp_path, 2)
    run(made, 3, lambda asked: fids[asked.label])
    best = made.best_setting()
    assert best is not None
    assert best.number == 0
    assert best.spread("fid") == Spread.of([1.0, 1.2])
    assert made.label(made.best().number) == "0"
    assert made.best_setting(but=0).number == 1
    spread = best.spread("fid")
    assert spread is not None
    assert spread.sd == pytest.approx(0.2 / 2**0.5)
    assert spread.error == pytest.approx(0.1)


def test_best_setting_needs_half_as_many_trainings_as_others(spec_of: Any, tmp_path: Path) -> None:
    made = ledger(spec_of(SEARCH.replace("ALGORITHM", "random")), tmp_path, 5)
    for number in range(7):
        asked = made.ask(2)
        assert asked is not None
        made.complete(asked.number, TrialOutcome({"fid": 0.1 if asked.setting else 1.0}))
        assert made.best_setting().number == 0, f"after {number + 1} trainings"
    made.complete(made.ask(2).number, TrialOutcome({"fid": 0.1}))
    assert made.best_setting().number == 1


def test_failed_replicate_is_retried_under_its_name(spec_of: Any, tmp_path: Path) -> None:
    spec = spec_of(VARIANTS)
    made = ledger(spec, tmp_path, 2)
    while made.wanted(3) > 0:
        asked = made.ask(3)
        if asked.label in ("1", "2.1"):
            made.fail(asked.number, "RuntimeError: boom")
        else:
            made.complete(asked.number, TrialOutcome({"fid": 1.0}))
    # Setting 1 was given up with its first training, so its second was not begun.
    states = {setting.number: [trial.state.name for trial in setting.trials.values()] for setting in made.settings()}
    assert states == {0: ["COMPLETE"] * 2, 1: ["FAIL", "WAITING"], 2: ["COMPLETE", "FAIL"]}
    assert made.is_done(3)
    again = ledger(spec, tmp_path, 2)
    assert [again.label(trial.number) for trial in retry_failed(again, whatever_failed=True)] == ["1", "2.1"]
    assert run(again, 3) == ["3", "1.1", "2.1"], "a first training has a new number, as without replicates"
    settings = {setting.number: setting for setting in again.settings()}
    assert [sorted(setting.finished) for setting in settings.values()] == [[0, 1]] * 3
    assert again.find("2.1").state == TrialState.COMPLETE


def test_sampler_sees_the_mean_of_a_setting(spec_of: Any, tmp_path: Path) -> None:
    made = ledger(spec_of(SEARCH.replace("ALGORITHM", "random")), tmp_path, 2)
    for fid in (1.0, 2.0, 5.0):
        made.complete(made.ask(2).number, TrialOutcome({"fid": fid}))
    seen = [setting.as_trial() for setting in made.settings()]
    assert [(trial.state, trial.values) for trial in seen] == [
        (TrialState.COMPLETE, [1.5]),
        (TrialState.COMPLETE, [5.0]),
    ]
    assert seen[0].params == made.trials()[0].params


PRUNED = SEARCH.replace("ALGORITHM", "random") + "rungs: {steps: [100, 200]}\n"
RULES = ["pruning.kind=successive_halving", "pruning.kind=median", "pruning.kind=hyperband"]


def climb(made: Ledger, settings: int, kid: Callable[[TrialRequest], float]) -> list[tuple[str, int | None]]:
    """Run trials through their rungs, one after another. Return the step at which each was pruned."""
    ends: list[tuple[str, int | None]] = []
    while made.wanted(settings) > 0:
        asked = made.ask(settings)
        assert asked is not None
        value = kid(asked)
        end = None
        for step in (100, 200):
            at = Rung(step, 400, "kid", {"kid": value})
            if made.prunes(asked.number, at):
                made.prune(asked.number, at)
                end = step
                break
        else:
            rungs = {step: {"kid": value} for step in (100, 200)}
            made.complete(asked.number, TrialOutcome({"fid": value}, rungs=rungs))
        ends.append((asked.label, end))
    return ends


def pruned_study(spec_of: Any, folder: Path, rule: str, replicates: int = 2) -> Ledger:
    settings = ["training.steps=400", rule, "pruning.startup=1"]
    return ledger(spec_of(PRUNED, *settings), folder, replicates)


@pytest.mark.parametrize("rule", RULES)
def test_setting_out_by_more_than_the_training_sd_is_given_up(spec_of: Any, tmp_path: Path, rule: str) -> None:
    """The sd of trainings is about 0.07. Setting 2 is out by far, so its second training is not begun."""
    made = pruned_study(spec_of, tmp_path, rule)
    kids = {0: 1.0, 1: 1.01, 2: 5.0}
    ends = climb(made, 3, lambda asked: kids[asked.setting] + 0.1 * asked.replicate)
    assert ends[:4] == [("0", None), ("0.1", None), ("1", None), ("1.1", None)]
    assert ends[4][0] == "2"
    assert ends[4][1] is not None
    assert len(ends) == 5
    lost = made.settings()[2]
    assert lost.pruned
    assert lost.spread("fid") is None
    assert made.is_done(3)
    assert made.best_setting().number == 0


@pytest.mark.parametrize("rule", RULES)
def test_setting_within_the_training_sd_goes_on(spec_of: Any, tmp_path: Path, rule: str) -> None:
    """A single training of setting 2 is the worst, but by less than two trainings of one setting differ."""
    made = pruned_study(spec_of, tmp_path, rule)
    kids = {0: 1.0, 1: 1.05, 2: 1.2}
    ends = climb(made, 3, lambda asked: kids[asked.setting] + 0.5 * asked.replicate)
    assert [end for _, end in ends] == [None] * 6


def test_pruner_knows_no_luck_before_a_setting_has_two_trainings(spec_of: Any, tmp_path: Path) -> None:
    made = pruned_study(spec_of, tmp_path, "pruning.kind=median", replicates=1)
    assert climb(made, 3, lambda asked: 1.0 + asked.setting) == [("0", None), ("1", 100), ("2", 100)]
    made = ledger(made.spec, tmp_path, 2)
    assert climb(made, 3, lambda asked: 1.0)[0] == ("0.1", None)
    assert [setting.pruned for setting in made.settings()] == [False, True, True]


def test_running_replicates_of_a_pruned_setting_end_at_their_next_rung(spec_of: Any, tmp_path: Path) -> None:
    made = pruned_study(spec_of, tmp_path, "pruning.kind=median", replicates=3)
    climb(made, 2, lambda asked: 1.0 + 0.1 * asked.replicate)
    asked = [made.ask(3) for _ in range(3)]
    assert [each.label for each in asked if each] == ["2", "2.1", "2.2"]
    bad, good = Rung(100, 400, "kid", {"kid": 9.0}), Rung(100, 400, "kid", {"kid": 0.9})
    assert not made.prunes(asked[2].number, good)
    assert made.prunes(asked[0].number, bad)
    made.prune(asked[0].number, bad)
    assert made.prunes(asked[1].number, good), "its setting was given up"


def test_promoted_setting_has_all_its_replicates_and_is_not_pruned(spec_of: Any, tmp_path: Path) -> None:
    made = pruned_study(spec_of, tmp_path, "pruning.kind=median")

    def kid(asked: TrialRequest) -> float:
        return (9.0 if asked.setting > 1 else 1.0) + 0.1 * asked.replicate

    climb(made, 3, kid)
    assert promote(made, 2) == 3
    with pytest.raises(ValueError, match="promoted already, as setting 3"):
        promote(made, 2)
    with pytest.raises(ValueError, match="setting 1: was not pruned; only a pruned setting"):
        promote(made, 1)
    assert climb(made, 4, kid) == [("3", None), ("3.1", None)]
    assert made.settings()[3].point == made.settings()[2].point


def test_replicates_of_samplers_share_as_many_restorers(root: Path, tmp_path: Path, digits_home: Path) -> None:
    spec = build_spec("sweep_samplers", root / "search_spaces" / "samplers.yaml")
    made, dataset = ledger(spec, tmp_path, 3), Dataset.open(prepared(digits_home, "digits")[0])
    assert made.points is None or made.points >= 8
    requests = [made.ask(8) for _ in range(24)]
    assert len({asked.label for asked in requests if asked}) == 24
    assert len({train_key(asked.config, dataset, None) for asked in requests if asked}) == 3
    samplings = {sample_key(asked.config, dataset, asked.config.sampler, None) for asked in requests if asked}
    assert len(samplings) == 24


def test_spread_of_one_training_has_no_sd() -> None:
    assert Spread.of([2.0]) == Spread(2.0, None, 1)
    assert Spread.of([2.0]).error is None


def test_search_of_replicates_accepts_several_objectives(spec_of: Any, tmp_path: Path) -> None:
    spec = spec_of(
        SEARCH.replace("ALGORITHM", "random") + "objective: [{metric: fid}, {metric: ssim, direction: maximize}]\n"
    )
    made = ledger(spec, tmp_path, 2)
    values = {
        "0": (1.0, 0.5),
        "0.1": (2.0, 0.5),
        "1": (1.2, 0.9),
        "1.1": (1.2, 0.9),
        "2": (1.4, 0.1),
        "2.1": (1.4, 0.1),
    }
    while made.wanted(3) > 0:
        asked = made.ask(3)
        fid, ssim = values[asked.label]
        made.complete(asked.number, TrialOutcome({"fid": fid, "ssim": ssim}))
    assert [setting.number for setting in made.front()] == [1], "its means are the best in both"
    assert isinstance(made.front()[0], Setting)


def test_driver_creates_no_trial_while_another_driver_enqueues(spec_of: Any, tmp_path: Path) -> None:
    """A driver may die after it has created the first training of a setting, and before it enqueues the others."""
    made = ledger(spec_of(VARIANTS), tmp_path, 2)
    run(made, 2)
    made.ask(3)
    before = len(made.trials())
    other = ledger(made.spec, tmp_path, 2)
    other.ownership.interrupted.clear()  # as if the first driver were alive
    asked = [other.ask(3) for _ in range(4)]
    assert [one.label for one in asked if one] == ["2.1"]
    assert len(other.trials()) == before
