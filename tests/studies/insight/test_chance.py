"""The test of each key against the errors of the other keys, and the exchange within blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from scipy import stats

from coldtune.studies.insight.chance import LEVEL, find_chance, is_chance, orders_within_blocks
from coldtune.studies.insight.estimate import Estimate
from coldtune.studies.insight.sample import Sample

KEYS: dict[str, BaseDistribution] = {
    "a": FloatDistribution(0, 1),
    "b": FloatDistribution(0, 1),
    "c": CategoricalDistribution(("x", "y", "z")),
}


def made_up(value: Callable[[np.random.Generator, dict[str, object]], float], settings: int, seed: int = 0) -> Sample:
    """Return random settings, and their values."""
    rng = np.random.default_rng(seed)
    points = [
        {"a": float(rng.random()), "b": float(rng.random()), "c": "xyz"[rng.integers(3)]} for _ in range(settings)
    ]
    values = tuple(((value(rng, point),),) for point in points)
    return Sample(KEYS, tuple(points), values, ("minimize",))


@pytest.mark.parametrize("key", ["a", "c"])
def test_find_chance_key_that_decides_everything_is_no_chance(key: str) -> None:
    levels = {"x": 0.1, "y": 0.9, "z": 0.4}
    sample = made_up(lambda _, point: levels[str(point["c"])] if key == "c" else float(point["a"]), 20)  # type: ignore[arg-type]
    assert not find_chance(sample)[key]


def test_find_chance_of_shuffled_values_calls_keys_at_the_stated_level() -> None:
    called = [
        not each
        for seed in range(6)
        for each in find_chance(made_up(lambda rng, _: float(rng.normal()), 20, seed)).values()
    ]
    assert stats.binomtest(sum(called), len(called), LEVEL, alternative="greater").pvalue > 0.001


def test_find_chance_of_a_trend_in_time_calls_no_key() -> None:
    """Values and keys that all drift with the number of the setting are no evidence, because blocks keep the drift."""
    keys: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in "abc"}
    called = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        stage = np.repeat(np.arange(6) / 6, 10)
        points = tuple({name: float(stage[i] + rng.random() / 6) for name in keys} for i in range(len(stage)))
        values = tuple(((float(5 * stage[i] + rng.normal()),),) for i in range(len(stage)))
        called += [not each for each in find_chance(Sample(keys, points, values, ("minimize",))).values()]
    assert stats.binomtest(sum(called), len(called), LEVEL, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize("settings", [9, 10, 25])
def test_orders_within_blocks_keep_every_setting_in_its_block(settings: int) -> None:
    orders = orders_within_blocks(settings, 50, np.random.default_rng(0))
    assert (np.sort(orders, axis=1) == np.arange(settings)).all()
    assert (orders // 10 == np.arange(settings) // 10).all()
    assert len({tuple(order) for order in orders.tolist()}) == 50


@pytest.mark.parametrize(("larger", "chance"), [(0, False), (2, False), (3, True), (99, True)])
def test_is_chance_counts_the_observed_score(larger: int, chance: bool) -> None:
    exchanged = np.array([2.0] * larger + [0.0] * (99 - larger))
    assert is_chance(1.0, exchanged) == chance


def test_is_chance_of_equal_scores_is_true() -> None:
    assert is_chance(0.0, np.zeros(99))


def test_rank_held_counts_the_resamples_with_this_rank_or_a_better_one() -> None:
    resamples = {"a": np.array([0.9, 0.8, 0.7]), "b": np.array([0.1, 0.1, 0.3]), "c": np.array([0.05, 0.2, 0.1])}
    estimate = Estimate({"a": 0.8, "b": 0.2, "c": 0.1}, dict.fromkeys("abc", False), resamples, r2=0.9)
    assert estimate.rank_held() == {"a": 1.0, "b": pytest.approx(2 / 3)}
