"""Non-dominated sorting at rungs: known fronts, the definition, and Optuna's successive halving for one objective."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from optuna.pruners import SuccessiveHalvingPruner

from coldtune.studies.search.pareto import crowding, fronts, goes_on

Values = NDArray[np.float64]

# Few different numbers, so that ties and equal rows are common.
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.tuples(*[st.integers(0, 5).map(float)] * width), min_size=1, max_size=25)
)


def by_definition(values: Values) -> list[int]:
    """Peel off whom nobody that is left dominates, pair by pair."""

    def dominates(a: Values, b: Values) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    rank = [-1] * len(values)
    for front in range(len(values)):
        left = [i for i, found in enumerate(rank) if found < 0]
        for i in left:
            if not any(dominates(values[j], values[i]) for j in left):
                rank[i] = front
    return rank


def test_fronts_that_can_be_drawn() -> None:
    points = np.array([[1, 5], [2, 3], [4, 1], [2, 5], [3, 4], [5, 5], [4, 2], [1, 5]], dtype=float)
    assert fronts(points).tolist() == [0, 0, 0, 1, 1, 2, 1, 0]
    assert fronts(np.array([[3.0], [1.0], [2.0], [1.0]])).tolist() == [2, 0, 1, 0], "of one objective: by value"
    grid = np.array([[x, y] for x in range(4) for y in range(4)], dtype=float)
    assert fronts(grid).tolist() == [x + y for x in range(4) for y in range(4)]


@given(tables)
def test_fronts_are_those_of_the_definition(rows: list[tuple[float, ...]]) -> None:
    values = np.array(rows)
    assert fronts(values).tolist() == by_definition(values)


def test_room_in_a_front() -> None:
    """Of (0, 10), (1, 6), (4, 4), (10, 0): by hand 4/10 + 6/10 and 9/10 + 6/10, and the ends without limit."""
    room = crowding(np.array([[4, 4], [0, 10], [10, 0], [1, 6]], dtype=float))
    assert room.tolist() == pytest.approx([1.5, math.inf, math.inf, 1.0])
    assert crowding(np.array([[2.0, 2.0]])).tolist() == [math.inf]


def test_who_goes_on() -> None:
    others = [[1, 5], [5, 1], [2, 6], [6, 2], [7, 7]]
    assert goes_on([3, 3], others, 2), "on the first front"
    assert not goes_on([8, 8], others, 2), "behind everyone"
    assert goes_on([8, 0], others, 2), "the best in one objective"
    assert not goes_on([2, 7], others, 2)
    assert goes_on([2, 2], [[1, 3]], 4), "of fewer than the factor, the first front"
    assert not goes_on([2, 4], [[1, 3]], 4)
    crowd = [[0, 10], [10, 0], [1, 6], [4, 4]]
    assert not goes_on([1.1, 5.9], crowd, 2), "of one front the most crowded goes first"
    assert goes_on([4, 4], [[0, 10], [10, 0], [1, 6], [1.1, 5.9]], 2) is False, "only the ends: two of five go on"
    assert not goes_on([math.nan, 0], [[1, 1], [2, 0]], 2), "what is not a number is the worst"


@given(st.lists(st.integers(0, 8).map(float), min_size=1, max_size=20), st.integers(2, 4))
def test_one_objective_is_judged_as_by_optuna(values: list[float], factor: int) -> None:
    """Trials that come to a rung one after another, against Optuna's asynchronous successive halving."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(pruner=SuccessiveHalvingPruner(10, factor))
    for number, value in enumerate(values):
        trial = study.ask()
        trial.report(value, 10)
        assert trial.should_prune() is not goes_on([value], [[other] for other in values[:number]], factor)
