"""The study's sampler: it asks only feasible points, an interruption changes nothing, and TPE learns."""

from __future__ import annotations

import math
import random
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from coldtune import presets
from coldtune.config import parse
from coldtune.studies.search.config import SearchConfig, trial_seed
from coldtune.studies.search.sampler import FeasibleSampler
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(scope="module")
def space(root: Path) -> Space:
    tree = presets.read_yaml(root / "search_spaces/blur.yaml")
    config = parse(SpaceConfig, {key: tree[key] for key in ("base", "vary", "derive")})
    return Space(config, presets.load("digits-quick"), (1, 16, 16))


def study(space: Space, storage=None, search: SearchConfig | None = None, seed: int = 0) -> optuna.Study:
    return optuna.create_study(
        study_name="s",
        storage=storage,
        sampler=FeasibleSampler(space, search or SearchConfig(startup=4), seed),
        load_if_exists=True,
    )


def loss(point: dict) -> float:
    """A loss that prefers a long path and a small rate, so that TPE has something to find."""
    return abs(point["T"] - 35) / 10 + 10 * point.get("rate", 0.2)


def ask(study: optuna.Study, space: Space) -> tuple[Trial, dict]:
    trial = study.ask()
    return trial, space.walk(trial._suggest)


def run(study: optuna.Study, space: Space, count: int) -> list[dict]:
    points = []
    for _ in range(count):
        trial, point = ask(study, space)
        study.tell(trial, loss(point))
        points.append(point)
    return points


def test_sampler_asks_only_feasible_points(space: Space) -> None:
    made = study(space, search=SearchConfig(algorithm="random"))
    points = run(made, space, 60)
    assert all(space.feasible(point) for point in points)
    assert len(made.trials) == 60
    rng = random.Random(1)
    assert not all(space.feasible(space.sample(rng)) for _ in range(60)), "the space must also have infeasible points"


@pytest.mark.parametrize("algorithm", ["tpe", "random", "qmc", "nsga2", "nsga3", "gp"])
def test_sampler_resumed_study_asks_the_same_points(space: Space, tmp_path: Path, algorithm: str) -> None:
    search = SearchConfig(algorithm=algorithm, startup=3, population=4)
    unbroken = run(study(space, search=search), space, 9)
    points = []
    for _ in range(3):  # as a new process would: only the storage remains
        storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
        points += run(study(space, storage, search), space, 3)
    assert points == unbroken
    first = points if not algorithm.startswith("nsga") else points[:4]  # later a child may equal a parent
    assert len({str(point) for point in first}) == len(first), "no point is suggested twice"


def test_sampler_interrupted_trial_keeps_its_values(space: Space, tmp_path: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    _, point = ask(study(space, storage), space)
    again = study(space, JournalStorage(JournalFileBackend(str(tmp_path / "journal.log"))))
    frozen = again.get_trials(states=(TrialState.RUNNING,))[0]
    assert space.walk(Trial(again, frozen._trial_id)._suggest) == point


def test_sampler_trial_killed_while_asked_becomes_feasible(space: Space, tmp_path: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    trial = study(space, storage).ask()
    # The driver dies here, when only two of the values are stored.
    known = {"schedule": "linear", "rate": 0.19}
    for name, value in known.items():
        internal = space.distributions[name].to_internal_repr(value)
        storage.set_trial_param(trial._trial_id, name, internal, space.distributions[name])
    again = study(space, JournalStorage(JournalFileBackend(str(tmp_path / "journal.log"))), seed=5)
    point = space.walk(Trial(again, trial._trial_id)._suggest)
    assert {name: point[name] for name in known} == pytest.approx(known) or point["schedule"] == "linear"
    assert point["rate"] == pytest.approx(0.19)
    assert space.feasible(point)


def test_tpe_finds_better_points_than_random_search(space: Space) -> None:
    def mean_of_last(algorithm: str, seed: int) -> float:
        points = run(study(space, search=SearchConfig(algorithm=algorithm, startup=8), seed=seed), space, 40)
        return sum(loss(point) for point in points[20:]) / 20

    tpe = sum(mean_of_last("tpe", seed) for seed in range(3))
    assert tpe < 0.8 * sum(mean_of_last("random", seed) for seed in range(3))


def test_sampler_points_depend_on_the_seed_alone(space: Space) -> None:
    assert run(study(space, seed=1), space, 3) == run(study(space, seed=1), space, 3)
    assert run(study(space, seed=1), space, 3) != run(study(space, seed=2), space, 3)
    assert len({trial_seed(seed, number) for seed in range(20) for number in range(20)}) == 400


def test_qmc_covers_an_axis_more_evenly_than_random(root: Path) -> None:
    """64 points of a scrambled Sobol sequence fall into 64 different cells of equal size on every axis."""
    config = parse(SpaceConfig, {"base": "x", "vary": {"training.lr": {"low": 1e-4, "high": 1e-2, "log": True}}})
    line = Space(config, presets.load("digits-quick"), (1, 16, 16))

    def cells(algorithm: str) -> int:
        made = study(line, search=SearchConfig(algorithm=algorithm))
        values = []
        for _ in range(64):
            trial, point = ask(made, line)
            made.tell(trial, 1.0)
            values.append(math.log(point["lr"] / 1e-4) / math.log(100))
        return len({int(64 * value) for value in values})

    assert cells("qmc") == 64
    assert cells("random") < 56  # the expectation is 41


def test_sampler_concurrent_trials_get_different_points(space: Space) -> None:
    """Ask eight trials before any has a result. Only their seeds can make them different."""
    for algorithm in ("tpe", "gp", "nsga2", "random", "qmc"):
        made = study(space, search=SearchConfig(algorithm=algorithm))
        points = [ask(made, space)[1] for _ in range(8)]
        assert len({str(point) for point in points}) == 8, algorithm


def test_grid_asks_every_feasible_combination_once() -> None:
    tree = {
        "base": "x",
        "vary": {
            "degradation.steps": {"low": 10, "high": 30, "step": 10},
            "sampler.algorithm": {"choices": ["naive", "tacos"]},
            "sampler.eta": {"low": 0.0, "high": 1.0, "step": 0.5, "when": {"sampler.algorithm": "tacos"}},
        },
    }
    base = presets.load("digits-quick")
    base["sampler"]["draw"] = "estimated"
    base["degradation"] = {"kind": "noise", "steps": 20}
    space = Space(parse(SpaceConfig, tree), base, (1, 16, 16))
    expected = {(T, "naive", None) for T in (10, 20, 30)} | {
        (T, "tacos", eta) for T in (10, 20, 30) for eta in (0.0, 0.5, 1.0)
    }
    orders = []
    for seed in (0, 0, 1):
        made = study(space, search=SearchConfig(algorithm="grid"), seed=seed)
        points = []
        for _ in range(len(expected)):
            trial, point = ask(made, space)
            made.tell(trial, 1.0)
            points.append((point["T"], point["sampler"], point.get("eta")))
        assert points[0] == (20, "tacos", 0.0), "the base comes first"
        assert set(points) == expected
        orders.append(points)
    assert orders[0] == orders[1] != orders[2]


def test_grid_of_range_without_step_is_refused(space: Space) -> None:
    with pytest.raises(ValueError, match=r"vary\.degradation\.sigma\.rate: search\.algorithm = 'grid' needs choices"):
        study(space, search=SearchConfig(algorithm="grid"))


@pytest.mark.parametrize("written", [{"choices": [0.05]}, {"low": 0.05, "high": 0.05}], ids=["choice", "range"])
@pytest.mark.parametrize("algorithm", ["tpe", "random", "qmc", "nsga2", "nsga3", "gp"])
def test_sampler_single_value_under_when_is_set(algorithm: str, written: dict) -> None:
    """TPE models the range after its random points, and would then draw NaN."""
    schedule, rate = "degradation.sigma.schedule", "degradation.sigma.rate"
    tree = {
        schedule: {"choices": ["exponential", "constant"]},
        rate: {**written, "when": {schedule: "exponential"}},
        "degradation.steps": {"low": 10, "high": 40},
    }
    space = Space(parse(SpaceConfig, {"base": "x", "vary": tree}), presets.load("digits-quick"), (1, 16, 16))
    points = run(study(space, search=SearchConfig(algorithm=algorithm, startup=3, population=4)), space, 8)
    assert {point["schedule"]: point.get("rate") for point in points} == {"exponential": 0.05, "constant": None}


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2", "random", "qmc"])
def test_sampler_repeats_points_only_after_all_were_asked(algorithm: str) -> None:
    """The space has six points. The first six trials are all of them, and later trials repeat them."""
    tree = {"degradation.kernel_size": {"choices": [5, 7, 9]}, "sampler.algorithm": {"choices": ["direct", "tacos"]}}
    space = Space(parse(SpaceConfig, {"base": "x", "vary": tree}), presets.load("digits-quick"), (1, 16, 16))
    made = study(space, search=SearchConfig(algorithm=algorithm, startup=2, population=4))
    points = []
    for _ in range(8):
        trial, point = ask(made, space)
        made.tell(trial, float(point["kernel"]))
        points.append(repr(sorted(point.items())))
    assert len(set(points[:6])) == 6
    assert set(points[6:]) <= set(points[:6])
