"""Non-dominated sorting at rungs, against known fronts, the definition, and Optuna's successive halving."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from optuna.pruners import SuccessiveHalvingPruner

from coldtune.studies.search.pareto import advances, crowding_distance, fronts

Values = NDArray[np.float64]

# Only a few different numbers, so that ties and equal rows are common.
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(0, 5).map(float)] * width), min_size=1, max_size=25)
)


def by_definition(values: Values) -> list[int]:
    """Find the fronts by definition: compare all pairs, remove the rows that no remaining row dominates, and repeat."""

    def dominates(a: Values, b: Values) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    rank = [-1] * len(values)
    for front in range(len(values)):
        left = [i for i, front_of_row in enumerate(rank) if front_of_row < 0]
        for i in left:
            if not any(dominates(values[j], values[i]) for j in left):
                rank[i] = front
    return rank


def test_fronts_small_examples_by_hand() -> None:
    points = np.array([[1, 5], [2, 3], [4, 1], [2, 5], [3, 4], [5, 5], [4, 2], [1, 5]], dtype=float)
    assert fronts(points).tolist() == [0, 0, 0, 1, 1, 2, 1, 0]
    assert fronts(np.array([[3.0], [1.0], [2.0], [1.0]])).tolist() == [2, 0, 1, 0], (
        "with one objective, rows are ordered by value"
    )
    grid = np.array([[x, y] for x in range(4) for y in range(4)], dtype=float)
    assert fronts(grid).tolist() == [x + y for x in range(4) for y in range(4)]


@given(tables)
def test_fronts_random_tables_match_definition(rows: list[tuple[float, ...]]) -> None:
    values = np.array(rows)
    assert fronts(values).tolist() == by_definition(values)


def test_crowding_distance_example_by_hand() -> None:
    """The front (0, 10), (1, 6), (4, 4), (10, 0): 4/10 + 6/10 and 9/10 + 6/10 inside, infinite at the ends."""
    distance = crowding_distance(np.array([[4, 4], [0, 10], [10, 0], [1, 6]], dtype=float))
    assert distance.tolist() == pytest.approx([1.5, math.inf, math.inf, 1.0])
    assert crowding_distance(np.array([[2.0, 2.0]])).tolist() == [math.inf]


def test_advances_examples_by_hand() -> None:
    others = [[1, 5], [5, 1], [2, 6], [6, 2], [7, 7]]
    assert advances([3, 3], others, 2), "the trial is on the first front"
    assert not advances([8, 8], others, 2), "all others dominate the trial"
    assert advances([8, 0], others, 2), "the trial is the best in one objective"
    assert not advances([2, 7], others, 2)
    assert advances([2, 2], [[1, 3]], 4), "fewer trials than the factor: only the first front advances"
    assert not advances([2, 4], [[1, 3]], 4)
    crowd = [[0, 10], [10, 0], [1, 6], [4, 4]]
    assert not advances([1.1, 5.9], crowd, 2), "within a front, the most crowded trial is dropped first"
    assert advances([4, 4], [[0, 10], [10, 0], [1, 6], [1.1, 5.9]], 2) is False, "only the two ends advance"
    assert not advances([math.nan, 0], [[1, 1], [2, 0]], 2), "a trial with a NaN is the worst"


@given(st.lists(st.integers(0, 8).map(float), min_size=1, max_size=20), st.integers(2, 4))
def test_advances_one_objective_matches_optuna(values: list[float], factor: int) -> None:
    """Trials reach a rung one after another. The reference is Optuna's asynchronous successive halving."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(pruner=SuccessiveHalvingPruner(10, factor))
    for number, value in enumerate(values):
        trial = study.ask()
        trial.report(value, 10)
        assert trial.should_prune() is not advances([value], [[other] for other in values[:number]], factor)
