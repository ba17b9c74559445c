"""Pruning at rungs: the decisions, their repetition after a crash, and configurations that are refused."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import TrialState

from coldtune.config import parse
from coldtune.studies.search.objective import Objective
from coldtune.studies.search.pruning_config import RULES, PruningConfig
from coldtune.studies.search.pruning_rules.halving import SuccessiveHalving
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.pruning_checks import check_pruning
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.optuna_private import ask_pruner
from coldtune.studies.storage.outcome import Effort, Rung, StoredStage, TrialOutcome
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.trials.promotion import promote, queued_promotions

STEPS = ["training.steps=400", "rungs.steps=[100, 200]"]


@pytest.fixture
def space_file(root: Path) -> Path:
    return root / "search_spaces" / "training.yaml"


def spec_of(space_file: Path, *settings: str, **changes: Any) -> StudySpec:
    return build_spec("s", space_file, settings=[*STEPS, *settings]).model_copy(update=changes)


@functools.cache
def space_of(space: str, base: str) -> Space:
    return Space(SpaceConfig.model_validate_json(space), json.loads(base), (1, 16, 16))


def ledger_of(spec: StudySpec, folder: Path, url: str | None = None) -> Ledger:
    space = space_of(spec.space.model_dump_json(), json.dumps(spec.base))
    return open_ledger("study", spec, space, open_storage(folder, url))


def rung(step: int, **values: float) -> Rung:
    stages = (StoredStage(f"train_{step}", f"{'0' * 64}/{step}", False, 2.0),)
    return Rung(step, 400, "kid", values, stages, Effort(seconds=3.0), 2.0)


def race(ledger: Ledger, kids: Sequence[float], steps: Sequence[int] = (100, 200)) -> list[int | None]:
    """Run trials one after another, each with the same value everywhere. Return the step at which each ended."""
    return [climb(ledger, ledger.ask().number, kid, steps) for kid in kids]


def climb(ledger: Ledger, number: int, kid: float, steps: Sequence[int] = (100, 200)) -> int | None:
    for step in steps:
        at = rung(step, kid=kid)
        if ledger.prunes(number, at):
            ledger.prune(number, at)
            return step
    ledger.complete(number, TrialOutcome({"fid": kid, "ssim": 1 - kid}, rungs={step: {"kid": kid} for step in steps}))
    return None


def test_successive_halving_keeps_the_best_half(space_file: Path, tmp_path: Path) -> None:
    """By hand: trial 0 is alone, trial 1 is worse, trial 2 leads. Of four and of five trials, two go on."""
    spec = spec_of(space_file, "pruning.kind=successive_halving", "pruning.startup=0")
    ledger = ledger_of(spec, tmp_path)
    assert race(ledger, [0.5, 0.6, 0.4, 0.45, 0.48]) == [None, 100, None, 200, 100]
    trials = ledger.trials()
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED", "PRUNED"]
    assert trials[1].intermediate_values == {100: 0.6}
    assert trials[1].value == 0.6, "Optuna's samplers read the value of the rung as the value of the trial"
    assert trials[1].user_attrs["rungs"] == {"100": {"kid": 0.6}}
    assert trials[1].user_attrs["reason"] == "at step 100 of 400: KID 0.6"
    assert trials[1].user_attrs["seconds"] == 3.0
    assert trials[1].user_attrs["training"] == {"step": 100, "steps": 400, "seconds": 2.0}
    assert ledger.finished() == 5
    assert ledger.best().number == 2


@pytest.mark.parametrize("kind", ["successive_halving", "hyperband", "median"])
def test_pruning_decisions_are_equal_in_postgresql(
    space_file: Path, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    kids = [0.5, 0.6, 0.4, math.nan, 0.45, 0.48]
    spec = spec_of(space_file, f"pruning.kind={kind}", "pruning.startup=1", "search.algorithm=random")
    url = request.getfixturevalue("postgres").database()
    there, here = ledger_of(spec, tmp_path, url), ledger_of(spec, tmp_path)
    assert race(there, kids) == race(here, kids)
    again = ledger_of(spec, tmp_path, url).trials()
    assert [t.state for t in again] == [t.state for t in here.trials()]
    assert [t.params for t in again] == [t.params for t in here.trials()], "the points must be equal, too"


def test_pruning_starts_after_startup_trials_at_the_rung(space_file: Path, tmp_path: Path) -> None:
    spec = spec_of(space_file, "pruning.kind=successive_halving", "pruning.startup=3")
    assert race(ledger_of(spec, tmp_path), [0.4, 0.5, 0.6, 0.7, 0.45]) == [None, None, None, 100, None]


def test_median_rule_ends_trials_worse_than_finished_median(space_file: Path, tmp_path: Path) -> None:
    spec = spec_of(space_file, "pruning.kind=median", "pruning.startup=3")
    assert race(ledger_of(spec, tmp_path), [0.1, 0.2, 0.3, 0.25, 0.2, 0.9]) == [None, None, None, 100, None, 100]


def test_percentile_rule_ends_trials_worse_than_finished_percentile(space_file: Path, tmp_path: Path) -> None:
    """The 75th percentile of 0.1, 0.2, 0.3, 0.4 and 0.5 is 0.4."""
    spec = spec_of(space_file, "pruning.kind=percentile", "pruning.startup=5")
    assert race(ledger_of(spec, tmp_path), [0.1, 0.2, 0.3, 0.4, 0.5, 0.39, 0.41])[5:] == [None, 100]


def test_rung_values_are_recorded_without_pruning(space_file: Path, tmp_path: Path) -> None:
    ledger = ledger_of(spec_of(space_file, "pruning.kind=none"), tmp_path)
    assert race(ledger, [0.1, 0.9]) == [None, None]
    assert ledger.trials()[1].intermediate_values == {100: 0.9, 200: 0.9}


def test_maximised_objective_is_pruned_by_rung_metric(space_file: Path, tmp_path: Path) -> None:
    """The objective is SSIM (more is better), the rung metric KID (less is better)."""
    objective = Objective(metric="ssim", direction="maximize")
    spec = spec_of(space_file, "pruning.kind=successive_halving", "pruning.startup=0", objective=objective)
    ledger = ledger_of(spec, tmp_path)
    assert race(ledger, [0.5, 0.6, 0.4]) == [None, 100, None]
    assert ledger.trials()[1].intermediate_values == {100: -0.6}, "Optuna expects that more is better"
    assert ledger.best().number == 2
    assert race(ledger_of(spec.model_copy(update={"pruning": parse(PruningConfig, {"kind": "median", "startup": 2})}),
                            tmp_path), [0.7]) == [100]  # fmt: skip


@pytest.mark.parametrize(
    ("died", "kind"),
    [
        ("before the decision", "successive_halving"),
        ("after the decision", "successive_halving"),
        ("before it was told", "successive_halving"),
        ("after the decision", "hyperband"),
        ("before the decision", "median"),
    ],
)
def test_pruning_decision_is_repeated_after_driver_death(
    space_file: Path, tmp_path: Path, kind: str, died: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver dies at every rung. Each decision must equal the decision of an uninterrupted study."""
    kids = [0.5, 0.6, 0.4, 0.45, 0.48]
    spec = spec_of(space_file, f"pruning.kind={kind}", "pruning.startup=1")
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = race(ledger_of(spec, tmp_path / "whole"), kids)
    assert any(whole)
    ended = []
    for kid in kids:
        ledger = ledger_of(spec, tmp_path / "broken")
        number, pruned = ledger.ask().number, None
        for step in (100, 200):
            at = rung(step, kid=kid)
            with monkeypatch.context() as patch:
                if died == "before the decision":  # the value is recorded, and Optuna's pruner was asked
                    patch.setattr(type(ledger._judge), "_decide", _ask_and_die)
                elif died == "after the decision":  # the notes of Optuna's pruner are not stored yet
                    patch.setattr(ledger.study._storage, "set_trial_system_attr", _die)
                with contextlib.suppress(InterruptedError):
                    ledger.prunes(number, at)
            ledger = ledger_of(spec, tmp_path / "broken")
            again = ledger.ask()
            assert (again.number, again.again) == (number, True)
            if ledger.prunes(number, at):
                ledger.prune(number, at)
                pruned = step
                break
        if pruned is None:
            ledger.complete(number, TrialOutcome({"fid": kid}, rungs={step: {"kid": kid} for step in (100, 200)}))
        ended.append(pruned)
    assert ended == whole
    trials = ledger_of(spec, tmp_path / "broken").trials()
    assert [len(t.intermediate_values) for t in trials] == [1 if step == 100 else 2 for step in whole]
    reference = ledger_of(spec, tmp_path / "whole").trials()
    assert [t.system_attrs for t in trials] == [t.system_attrs for t in reference]


def _die(*_: object) -> None:
    raise InterruptedError


def _ask_and_die(self: Any, trial: Any, at: Rung) -> None:
    ask_pruner(self.study, trial)
    raise InterruptedError


def test_pruned_trials_stay_pruned_after_resume(space_file: Path, tmp_path: Path) -> None:
    spec = spec_of(space_file, "pruning.kind=successive_halving", "pruning.startup=0")
    race(ledger_of(spec, tmp_path), [0.5, 0.6])
    again = ledger_of(spec, tmp_path)
    assert again.interrupted() == []
    assert again.finished() == 2
    assert again.wanted(3) == 1


def test_hyperband_brackets_exist_before_the_first_decision(space_file: Path, tmp_path: Path) -> None:
    """Optuna forms brackets at the first decision. A resumed study would put its first trials into other brackets."""
    spec = spec_of(space_file, "pruning.kind=hyperband")
    first = ledger_of(spec, tmp_path)
    race(first, [0.5, 0.4])
    pruner = ledger_of(spec, tmp_path).study.pruner
    assert pruner._n_brackets == 3  # floor(log2(400 / 100)) + 1
    brackets = [pruner._get_bracket_id(first.study, trial) for trial in first.trials()]
    assert brackets == [first.study.pruner._get_bracket_id(first.study, trial) for trial in first.trials()]


def test_hyperband_repeats_no_point_of_another_bracket(root: Path, tmp_path: Path) -> None:
    """Optuna shows a sampler only the trials of its bracket. Points of other brackets are not asked again either."""
    settings = [*STEPS, "pruning.kind=hyperband", "search.algorithm=random"]
    spec = build_spec("s", root / "search_spaces" / "training.yaml", settings=settings)
    vary = {"training.batch_size": {"choices": [32, 64, 128]}, "training.loss": {"choices": ["l1", "l2"]}}
    spec = spec.model_copy(update={"space": parse(type(spec.space), {"base": "digits-quick", "vary": vary})})
    ledger = ledger_of(spec, tmp_path)
    race(ledger, [0.5, 0.6, 0.4, 0.45, 0.48, 0.47])
    assert len({tuple(t.params.items()) for t in ledger.trials()}) == 6, "all six points, each once"


def test_tpe_learns_from_pruned_trials(space_file: Path, tmp_path: Path) -> None:
    """Two studies differ only in which pruned trial is the best of the pruned trials. Their next points differ."""
    points = []
    settings = ["pruning.kind=successive_halving", "pruning.startup=0", "pruning.reduction_factor=16"]
    for good in (1, 5):
        spec = spec_of(space_file, *settings, "search.startup=12")
        (tmp_path / str(good)).mkdir()
        ledger = ledger_of(spec, tmp_path / str(good))
        ended = race(ledger, [0.4, *(0.5 if number == good else 0.9 for number in range(1, 12))])
        assert ended.count(100) == 11
        points.append([trial.params for trial in ledger.trials()] + [ledger.ask().point])
    assert points[0][:12] == points[1][:12]
    assert points[0][12] != points[1][12], "the best tenth is good for TPE, and it contains the best pruned trial"


@pytest.mark.parametrize(
    "algorithm", [pytest.param("gp", marks=pytest.mark.slow), "nsga2", "nsga3", "random", "qmc", "grid"]
)
def test_every_algorithm_asks_new_points_beside_pruned_trials(space_file: Path, tmp_path: Path, algorithm: str) -> None:
    settings = ["pruning.kind=successive_halving", "pruning.startup=0", f"search.algorithm={algorithm}"]
    settings += ["search.startup=2"] if algorithm == "gp" else []
    settings += ["search.population=4"] if algorithm.startswith("nsga") else []
    spec = spec_of(space_file, *settings)
    vary = {"training.batch_size": {"low": 16, "high": 128, "step": 16}, "training.loss": {"choices": ["l1", "l2"]}}
    spec = spec.model_copy(update={"space": parse(type(spec.space), {"base": "digits-quick", "vary": vary})})
    ledger = ledger_of(spec, tmp_path)
    ended = race(ledger, [0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2])
    assert ended == [None, 100, None, 100, None, 100, None]
    assert len({tuple(t.params.items()) for t in ledger.trials()}) == 7


@pytest.mark.parametrize("algorithm", ["tpe", "grid"])
def test_promoted_trial_repeats_the_pruned_point_and_is_not_pruned(
    space_file: Path, tmp_path: Path, algorithm: str
) -> None:
    settings = ["pruning.kind=successive_halving", "pruning.startup=0", f"search.algorithm={algorithm}"]
    spec = spec_of(space_file, *settings)
    vary = {"training.batch_size": {"low": 16, "high": 128, "step": 16}}
    spec = spec.model_copy(update={"space": parse(type(spec.space), {"base": "digits-quick", "vary": vary})})
    ledger = ledger_of(spec, tmp_path)
    race(ledger, [0.5, 0.6, 0.4])
    number = promote(ledger_of(spec, tmp_path), 1)
    assert number == 3
    ledger = ledger_of(spec, tmp_path)
    assert queued_promotions(ledger) == 1
    asked = ledger.ask()
    assert (asked.number, asked.promoted_from) == (3, 1)
    assert asked.point == ledger.trials()[1].params
    assert climb(ledger, 3, 0.6) is None
    assert [t.state.name for t in ledger.trials()] == ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"]
    # The promoted trial does not count twice at the rung: of 0.5, 0.6, 0.4 and 0.45, the best two go on.
    assert climb(ledger, ledger.ask().number, 0.45, [100]) is None
    points = [tuple(t.params.items()) for t in ledger.trials() if t.number != 3]
    assert len(set(points)) == 4, "the trial after the promotion must have a new point"


def test_promote_of_unfit_trial_is_refused(space_file: Path, tmp_path: Path) -> None:
    spec = spec_of(space_file, "pruning.kind=successive_halving", "pruning.startup=0")
    ledger = ledger_of(spec, tmp_path)
    race(ledger, [0.5, 0.6])
    with pytest.raises(ValueError, match=r"trial 0: is complete; only a pruned trial is promoted \(there are: 1\)"):
        promote(ledger, 0)
    with pytest.raises(ValueError, match=r"trial 7: is not there"):
        promote(ledger, 7)
    promote(ledger, 1)
    with pytest.raises(ValueError, match=r"trial 1: is promoted already, as trial 2"):
        promote(ledger, 1)


TWO = (Objective(metric="nfe"),)


def worth(ledger: Ledger, values: Mapping[str, float], steps: Sequence[int] = (100, 200)) -> int | None:
    number = ledger.ask().number
    for step in steps:
        if ledger.prunes(number, at := rung(step, **values)):
            ledger.prune(number, at)
            return step
    ledger.complete(number, TrialOutcome({"fid": values["kid"], **values}, rungs=dict.fromkeys(steps, values)))
    return None


def test_successive_halving_of_two_objectives_compares_fronts(space_file: Path, tmp_path: Path) -> None:
    """KID replaces FID at the rung, NFE is used as it is. By hand: trial 0 dominates trial 2, but not trial 3."""
    settings = ["pruning.kind=successive_halving", "pruning.startup=1"]
    ledger = ledger_of(spec_of(space_file, *settings, also=TWO), tmp_path)
    values = [(0.4, 20), (0.5, 10), (0.6, 30), (0.3, 30), (0.7, 40), (0.2, 5)]
    assert [worth(ledger, {"kid": kid, "nfe": nfe}) for kid, nfe in values] == [None, None, 100, None, 100, None]
    pruned = ledger.trials()[2]
    assert (pruned.state, pruned.values) == (TrialState.PRUNED, None)
    assert pruned.user_attrs["rungs"] == {"100": {"kid": 0.6, "nfe": 30}}
    assert [t.number for t in ledger.front()] == [5], "trial 5 is the best in both objectives"
    assert ledger.ask().number == 6, "TPE must cope with pruned trials without values"


def test_successive_halving_uses_scores_at_the_rung_directly(space_file: Path, tmp_path: Path) -> None:
    """More SSIM is better. Trial 1 is worse than trial 0 in both objectives, trial 2 only in KID."""
    also = (Objective(metric="ssim", direction="maximize"),)
    settings = ["pruning.kind=successive_halving", "pruning.startup=1"]
    ledger = ledger_of(spec_of(space_file, *settings, also=also), tmp_path)
    values = [(0.4, 0.8), (0.5, 0.7), (0.6, 0.9), (math.nan, 0.95)]
    assert [worth(ledger, {"kid": kid, "ssim": ssim}) for kid, ssim in values[:3]] == [None, 100, None]
    number = ledger.ask().number
    assert ledger.prunes(number, rung(100, kid=math.nan, ssim=0.95)), "a trial with a NaN is the worst"


REFUSED = [
    (["rungs.steps=[]"], r"pruning\.kind = 'median', rungs\.steps = \[\]: .*rungs\.steps=\[100, 200\]"),
    (["rungs.steps=[100, 400]"], r"rungs\.steps = \[100, 400\]: all must be below training\.steps = 400"),
    (["pruning.kind=successive_halving", "pruning.min_resource=201"], r"pruning\.min_resource = 201, rungs\.steps = "),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_check_pruning_wrong_rungs_are_refused(space_file: Path, settings: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_pruning(spec_of(space_file, "pruning.kind=median", *settings))


def test_check_pruning_incomparable_trials_are_refused(space_file: Path, root: Path) -> None:
    median = ["pruning.kind=median"]
    with pytest.raises(ValueError, match=r"objective = \['fid', 'nfe'\]: .* allow only none, successive_halving"):
        check_pruning(spec_of(space_file, *median, also=TWO))
    with pytest.raises(ValueError, match=r"objective\.metric = 'nfe': is known before the training"):
        check_pruning(spec_of(space_file, *median, objective=Objective(metric="nfe")))
    spec = spec_of(space_file, *median)
    vary = {"rungs.num_images": {"choices": [64, 128]}}
    varied = spec.model_copy(update={"space": parse(type(spec.space), {"base": "digits-quick", "vary": vary})})
    with pytest.raises(ValueError, match=r"rungs\.num_images: differs between trials"):
        check_pruning(varied)
    listed = parse(type(spec.space), {"base": "digits-quick", "variants": {"one": {"training.loss": "l2"}}})
    with pytest.raises(ValueError, match=r"variants are compared with each other"):
        check_pruning(spec.model_copy(update={"space": listed}))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"kind": "asha"}, r"pruning\.kind = 'asha': .*'successive_halving'"),
        (
            {"kind": "median", "reduction_factor": 3},
            r"reduction_factor: has no effect with kind = 'median', only with s",
        ),
        ({"kind": "successive_halving", "reduction_factor": 1}, r"pruning\.reduction_factor = 1"),
        ({"kind": "percentile", "percentile": 100}, r"pruning\.percentile = 100"),
    ],
)
def test_pruning_config_wrong_values_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(PruningConfig, config, "pruning")


def test_check_pruning_warns_about_idle_rungs(space_file: Path) -> None:
    spec = spec_of(space_file, "pruning.kind=successive_halving", "rungs.steps=[100, 150, 200, 350]")
    with pytest.warns(UserWarning, match=r"nothing is decided at 150, 350. .* only the rungs \[100, 200\] decide"):
        check_pruning(spec)


def test_check_pruning_none_warns_about_ignored_key(space_file: Path) -> None:
    check_pruning(spec_of(space_file, "pruning.kind=none"))
    with pytest.warns(UserWarning, match=r"pruning\.startup: has no effect with pruning\.kind = 'none'"):
        check_pruning(spec_of(space_file, "pruning.kind=none", "pruning.startup=2"))


def test_deciding_rungs_match_optuna() -> None:
    """A trial becomes worse at a single rung. Optuna prunes it there only if the rung decides."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rungs = (40, 50, 90, 100, 170, 400)
    for least, factor in [(None, 2), (45, 2), (None, 3), (100, 2)]:
        config = PruningConfig(kind="successive_halving", reduction_factor=factor, min_resource=least, startup=0)
        rule, pruner = config.rule(), config.build_pruner(rungs, 500)
        assert isinstance(rule, SuccessiveHalving)
        assert isinstance(pruner, SuccessiveHalvingPruner)
        deciding = [step for step in rungs if _decides(pruner, rungs, step)]
        assert rule.deciding_rungs(rungs) == deciding


def _decides(pruner: SuccessiveHalvingPruner, rungs: Sequence[int], step: int) -> bool:
    study = optuna.create_study(pruner=pruner)
    leading, trailing = study.ask(), study.ask()
    for trial, good_until in ((leading, 1000), (trailing, step)):
        for at in rungs[: rungs.index(step) + 1]:
            trial.report(0.0 if at < good_until else 1.0, at)
            decided = trial.should_prune()
    return decided


def test_pruning_is_part_of_the_spec_and_its_name(space_file: Path, tmp_path: Path) -> None:
    spec = spec_of(space_file, "pruning.kind=median")
    spec.save(tmp_path)
    assert StudySpec.load(tmp_path) == spec
    assert spec.pruning == PruningConfig(kind="median")
    assert spec.name != spec_of(space_file).name
    assert "pruning.kind" in spec.differences(spec_of(space_file))[0]


@pytest.mark.parametrize("kind", RULES)
def test_pruning_rule_reads_only_config_keys_and_describes_itself(kind: str) -> None:
    keys = {field.name for field in dataclasses.fields(RULES[kind])}
    assert keys <= set(PruningConfig.model_fields) - {"kind"}
    assert PruningConfig(kind=kind).rule().describe()
