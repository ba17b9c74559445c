"""Successive halving for several objectives: who goes on, by non-dominated sorting and crowding distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def fronts(values: Values) -> NDArray[np.int64]:
    """The front of each row of values (n, m), all to be minimised: 0 for those that no other dominates, and so on.

    a dominates b where it is nowhere larger and somewhere smaller; whoever is in front k is dominated by nobody but
    rows of earlier fronts (Deb et al. 2002, NSGA-II, section III A). Equal rows share their front. Row by row in
    lexicographic order, in which nobody dominates a predecessor, with a binary search for the front (Zhang et al. 2015,
    ENS-BS): memory n m.
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
    found = np.empty_like(rank)
    found[order] = rank
    return found


def crowding(values: Values) -> Values:
    """How much room each row of one front (n, m) has: its crowding distance (n,) (Deb et al. 2002, section III B).

    The sum over objectives of the distance between both neighbours, in units of the front's range; infinite at either
    end of an objective, so that the extremes of a front are never the first to go.
    """
    room = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        finite = np.isfinite(ordered[[0, -1]]).all()
        span = ordered[-1] - ordered[0] if finite else np.inf
        room[(column == ordered[0]) | (column == ordered[-1])] = np.inf
        if 0 < span < np.inf:
            room[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return room


def goes_on(mine: Sequence[float], others: Sequence[Sequence[float]], reduction_factor: int) -> bool:
    """Whether a trial that is worth `mine` at a rung is among the best 1/reduction_factor of all that have reached it.

    mine and others: one value for each objective, smaller is better; with a NaN among them it is the worst there is.
    The order is by front, then by room in it. Of fewer than reduction_factor trials the best one goes on, as in
    Optuna's successive halving of one objective; so does whoever is as good as the last that does.
    """
    values = np.asarray([mine, *others], dtype=np.float64)
    values[np.isnan(values).any(axis=1)] = np.inf
    rank = fronts(values)
    room = crowding(values[rank == rank[0]])
    better = int((rank < rank[0]).sum()) + int((room > room[0]).sum())
    return better < max(len(values) // reduction_factor, 1)
