"""The rule by which a search has settled, against all orders of its settings, and on simulated searches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from coldtune.studies.search.settled import (
    LEAST,
    count_late,
    expected_gain,
    gain_of_best_five,
    has_settled,
    late_gain,
)


def test_late_gain_is_that_of_the_last_half() -> None:
    assert late_gain([5.0, 4.0, 3.5, 6.0, 9.0, 9.0]) == 0.0
    assert late_gain([5.0, 4.0, 6.0, 9.0, 3.5, 4.0]) == 0.5
    assert count_late(21) == 10


@pytest.mark.parametrize(
    "losses", [[5.0, 4.0, 6.0, 3.5, 9.0, 7.25], [1.0, 2.0, 4.0], [1.0, 1.0, 3.0, 3.0, 8.0, 8.5, 9.0]]
)
def test_expected_gain_is_the_mean_late_gain_over_all_orders(losses: list[float]) -> None:
    gains = [late_gain(order) for order in itertools.permutations(losses)]
    assert expected_gain(losses) == pytest.approx(np.mean(gains))


def test_gain_of_best_five_is_that_of_the_means() -> None:
    early, late = [1.0, 5.0, 5.0, 5.0, 5.0, 9.0], [3.0, 3.0, 3.0, 3.0, 3.0, 9.0]
    assert gain_of_best_five(early + late) == pytest.approx(4.2 - 3.0)
    assert gain_of_best_five(late + early) == 0.0


def test_has_settled_needs_enough_settings() -> None:
    assert has_settled([1.0] * LEAST, 0.1)
    assert not has_settled([1.0] * (LEAST - 1), 0.1)


def first_stop(losses: Sequence[float], noise: float) -> int | None:
    """Return after how many settings the rule stops a search, or None if it never does."""
    return next((count for count in range(len(losses)) if has_settled(losses[:count], noise)), None)


def test_search_that_improves_steadily_never_settles() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):  # each half improves by far more than the noise
        losses = 10 * 0.97 ** np.arange(80) + rng.exponential(1.0, 80) + 0.05 * rng.normal(size=80)
        assert first_stop(list(losses), 0.05) is None


def test_search_whose_values_are_noise_alone_settles_soon() -> None:
    rng = np.random.default_rng(0)
    stops = [first_stop(list(rng.normal(size=80)), 1.0) for _ in range(20)]
    assert all(stop is not None and stop < 50 for stop in stops)
