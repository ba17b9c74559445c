"""A space that varies training, sampler and prior together trains once for each distinct training."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from coldtune import presets
from coldtune.config import parse, plain
from coldtune.data import Dataset, prepared
from coldtune.dotted import leaves, set_key
from coldtune.stages.chain import Chain
from coldtune.stages.keys import train_key
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.store.store import Store
from coldtune.studies.search.config import SearchConfig
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import open_ledger
from coldtune.training.config import TrainingConfig
from coldtune.training.loop import train

SHAPE = (1, 16, 16)
TRAINING_SECTIONS = ("data", "degradation", "restorer", "training")
"""The only sections that can influence a training."""

BASE = presets.load("digits-quick")
BASE["training"] |= {"steps": 4, "batch_size": 8, "validate_every": 0, "report_every": 4, "checkpoint_every": 4}
BASE["degradation"]["steps"] = 4
BASE["protocol"]["num_images"] = 260
MIXED = {
    "base": "x",
    "vary": {
        "training.lr": {"choices": [0.001, 0.002]},
        "training.steps": {"choices": [4, 6]},  # the longer training continues the shorter training
        "degradation.kernel_size": {"choices": [5, 7]},
        "sampler.algorithm": {"choices": ["tacos", "naive"]},
        "sampler.num_steps": {"choices": [None, 2]},
        "prior.noise_scale": {"choices": [0.0, 0.1]},
    },
}
GENERATION = presets.load("quick/digits-blur-generation")

# Another valid value for each key for which `changed` would produce an invalid value.
OTHERS: dict[str, Any] = {
    "degradation.padding": "reflect", "degradation.kernel_size": 9, "degradation.sigma.schedule": "linear",
    "restorer.size": "tiny", "restorer.index": "t-1", "training.loss": "l2", "training.clip_norm": 2.0,
    "training.ema_decay": 0.9, "training.dtype": "bfloat16",
    "training.ema_stds": [0.05, 0.1], "training.snapshot_every": 100, "training.compile": "auto",
    "sampler.algorithm": "naive", "sampler.num_steps": 2, "sampler.schedule": [4, 2],
    "sampler.returns": "estimate", "prior.kind": "normal", "protocol.extractor": "mnist", "protocol.split": "test",
    "protocol.num_images": 100, "protocol.reference": "train", "rungs.steps": [2], "rungs.metric": "mind",
}  # fmt: skip
# Keys that the tests do not change: the name of the dataset (its pixels are part of the key), the kind of degradation,
# keys that allow only one value here, and keys that need another key too.
UNCHANGED = {
    "data.name", "data.image_size", "data.resize", "data.path", "degradation.kind", "sampler.draw", "sampler.eta",
    "sampler.rho", "sampler.at_step", "sampler.ema_std", "sampler.guidance", "sampler.guidance_step",
    "rungs.num_images",
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(digits_home: Path) -> Dataset:
    return Dataset.open(prepared(digits_home, "digits")[0])


def space(tree: dict = MIXED, base: dict = BASE) -> Space:
    return build_space(parse(SpaceConfig, tree), {**base, "prior": base.get("prior") or {"kind": "data"}}, SHAPE)


def influences_training(path: str) -> bool:
    section, _, key = path.partition(".")
    return section in TRAINING_SECTIONS and not (section == "training" and key in TrainingConfig.BOOKKEEPING)


def changed(value: Any, path: str) -> Any:
    if path in OTHERS:
        return OTHERS[path]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value * 1.5 + 0.01


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_train_key_at_random_points_depends_on_training_keys_only(dataset: Dataset, seed: int) -> None:
    """Change one key of a trial at a random point of the mixed space. Any key of the trial may be drawn."""
    rng = random.Random(seed)
    mixed = space()
    trial = mixed.resolve(mixed.sample(rng))
    tree = plain(trial)
    path, value = rng.choice([(path, value) for path, value in leaves(tree) if path not in UNCHANGED])
    other = copy.deepcopy(tree)
    set_key(other, path, changed(value, path))
    try:
        altered = parse_trial(other)
        altered.check(SHAPE)
    except ValueError:
        return
    assert (train_key(altered, dataset) != train_key(trial, dataset)) == influences_training(path), path


def test_train_key_of_every_config_key_depends_on_training_keys_only(dataset: Dataset) -> None:
    """Change each key of a generation base once. This base has a prior, so every section of a trial is covered."""
    tree = plain(parse_trial(GENERATION))
    trial, sections = parse_trial(GENERATION), set()
    for path, value in leaves(tree):
        if path in UNCHANGED:
            continue
        other = copy.deepcopy(tree)
        set_key(other, path, changed(value, path))
        if path == "prior.kind":
            other["prior"] = {"kind": "normal"}
        altered = parse_trial(other)
        assert altered != trial, path
        assert (train_key(altered, dataset) != train_key(trial, dataset)) == influences_training(path), path
        sections.add(path.partition(".")[0])
    assert sections == set(TrialConfig.model_fields)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_train_key_count_equals_distinct_training_values(dataset: Dataset, seed: int) -> None:
    rng = random.Random(seed)
    mixed = space()
    points = [mixed.sample(rng) for _ in range(30)]
    distinct = {(point["lr"], point["kernel"]) for point in points}
    assert len({train_key(mixed.resolve(point), dataset) for point in points}) == len(distinct)


@pytest.mark.slow
def test_mixed_space_sweep_runs_each_training_once(dataset: Dataset, tmp_path: Path) -> None:
    """Train, sample and judge 10 trials of the mixed space in the order in which the study asks them."""
    mixed = space()
    spec = StudySpec(job="mixed", space=mixed.config, base=dict(mixed.base), search=SearchConfig(algorithm="random"))
    ledger = open_ledger("mixed", spec, mixed, InMemoryStorage())
    store, steps, points = Store(tmp_path / "store"), [], []

    def counted(task, checkpoints, report):
        last = checkpoints.latest(task.training.steps)
        steps.append((checkpoints.key, last[0] if last else 0, task.training.steps))
        return train(task, checkpoints, report)

    for _ in range(10):
        asked = ledger.ask()
        points.append(asked.point)
        outcome = Chain(asked.config, dataset, store).run(counted, lambda *_: None)
        ledger.complete(asked.number, TrialOutcome(outcome.metrics))
    longest: dict[tuple, int] = {}
    for point in points:
        values = (point["lr"], point["kernel"])
        longest[values] = max(longest.get(values, 0), point["train_steps"])
    assert len(longest) < len(points), "at least two trials must share a training"
    assert len([key for key, start, _ in steps if start == 0]) == len({key for key, *_ in steps}) == len(longest)
    assert sum(end - start for _, start, end in steps) == sum(longest.values()), "each training step must run once"
