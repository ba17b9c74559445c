"""Successive halving for several objectives, by non-dominated sorting and crowding distance (NSGA-II)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def fronts(values: Values) -> NDArray[np.int64]:
    """Return the front of each row: 0 for rows that no other row dominates, 1 for rows dominated only by front 0, etc.

    Row a dominates row b if a is nowhere larger than b and somewhere smaller. A row of front k is dominated only by
    rows of earlier fronts (Deb et al. 2002, NSGA-II, section III A). Equal rows share a front.

    The rows are visited in lexicographic order, in which no row dominates an earlier row. A binary search finds the
    front of each (Zhang et al. 2015, ENS-BS). The memory is of order n m.

    Args:
        values: Shape (n, m): n trials and m objectives. Smaller is better.

    Returns:
        The fronts, shape (n,).
    """
    order = np.lexsort(values.T[::-1])
    ordered, rank = values[order], np.zeros(len(values), dtype=np.int64)
    count = 0
    for i, row in enumerate(ordered):
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            members = ordered[:i][rank[:i] == middle]
            dominated = ((members <= row).all(axis=1) & (members < row).any(axis=1)).any()
            low, high = (middle + 1, high) if dominated else (low, middle)
        rank[i] = low
        count = max(count, low + 1)
    result = np.empty_like(rank)
    result[order] = rank
    return result


def crowding_distance(values: Values) -> Values:
    """Return the crowding distance of each row of a single front (Deb et al. 2002, section III B).

    It is the sum over objectives of the distance between the two neighbours of a row, divided by the range of the
    front. It is infinite at both ends of an objective, so the extremes of a front are never dropped first.

    Args:
        values: Shape (n, m). Smaller is better.

    Returns:
        The distances, shape (n,).
    """
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        finite = np.isfinite(ordered[[0, -1]]).all()
        span = ordered[-1] - ordered[0] if finite else np.inf
        distance[(column == ordered[0]) | (column == ordered[-1])] = np.inf
        if 0 < span < np.inf:
            distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return distance


def advances(values: Sequence[float], others: Sequence[Sequence[float]], reduction_factor: int) -> bool:
    """Return True if a trial is among the best 1/reduction_factor of all trials that have reached a rung.

    Trials are ordered by front, then by crowding distance within a front. If fewer than `reduction_factor` trials have
    reached the rung, only the best trial advances, as in Optuna's successive halving of one objective. Trials that are
    as good as the last advancing trial advance too.

    Args:
        values: The trial's value for each objective. Smaller is better. A trial with a NaN is worse than all others.
        others: The values of the other trials.
        reduction_factor: The trial must be among the best 1/reduction_factor.
    """
    table = np.asarray([values, *others], dtype=np.float64)
    table[np.isnan(table).any(axis=1)] = np.inf
    rank = fronts(table)
    distance = crowding_distance(table[rank == rank[0]])
    better = int((rank < rank[0]).sum()) + int((distance > distance[0]).sum())
    return better < max(len(table) // reduction_factor, 1)
