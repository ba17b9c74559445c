"""MIND: a sliced Wasserstein distance between features, from sorted projections instead of covariances."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from coldtune.diffusion import draws
from coldtune.metrics.descriptors import Distance, FeatureSets
from coldtune.metrics.moments import feature_sets

DIRECTIONS = 1000
_CHUNK = 64  # directions projected at a time: N x 64 numbers of float64 for each set
_STREAM = draws.stream("metrics/mind/directions")
_MOST_KEPT = 1 << 22  # numbers of a sorted reference that is kept: 64 MB, with their rows


def mind(features: Tensor, reference_features: Tensor, seed: int = 0, directions: int = DIRECTIONS) -> float:
    """Return 3 d times the mean squared 1-D 2-Wasserstein distance over random directions (Berthet et al., 2026).

    Along a unit vector u, the distance of two sets is that of their sorted projections. For N = M the projections are
    paired in order, otherwise the two quantile functions are integrated exactly. MIND is symmetric, exactly 0 for equal
    sets, and assumes no Gaussian.

    Two Gaussians that differ by a shift are 3 |shift|^2 apart, up to the noise of the directions. That noise is
    (2 / directions)^(1/2) relative, 4.5 % for 1,000, and it is the same for all models at one seed.

    The plug-in estimate is biased upwards by an amount that falls with N and M and grows with the model's spread. So
    compare at equal N, M and seed only, and compare close models with N >= 4 d.

    Args:
        features: The features (N, d) of the judged images.
        reference_features: The features (M, d) of the reference's images.
        seed: Draws the directions.
        directions: More directions cost time in proportion. They lower the noise of the absolute value, but hardly that
            of a comparison.

    Raises:
        ValueError: If there is no direction, or a set has fewer than 2 vectors.
    """
    x, y = feature_sets(features, reference_features)
    total = x.new_zeros(())
    for units in _chunks(seed, directions, x):
        total = total + squared_wasserstein(x @ units.T, y @ units.T).sum()
    return float(3 * x.shape[1] * total / directions)


def mind_influences(
    features: Tensor, reference_features: Tensor, seed: int = 0, directions: int = DIRECTIONS
) -> Tensor:
    """Return each image's influence on `mind`, float64 (N,), sum 0, with the reference fixed.

    The influence is the derivative of MIND as weight moves to that image. Along a single direction it is the
    Kantorovich potential of the optimal transport, summed up from (x' - x)(x' + x - y - y') between neighbours x < x'
    in order. Here y and y' are the reference's quantiles on both sides of the boundary. If they differ, the derivative
    has two sides, and this is their mean. The noise of the order statistics is second order, as it is for FID.
    """
    return mind_estimate(features, reference_features, seed, directions)[1]


def mind_estimate(
    features: Tensor, reference_features: Tensor, seed: int = 0, directions: int = DIRECTIONS
) -> tuple[float, Tensor]:
    """Return `mind` and `mind_influences`, from projections that are sorted once."""
    return _estimate(*feature_sets(features, reference_features), seed, directions)[:2]


def _estimate(x: Tensor, y: Tensor, seed: int, directions: int) -> tuple[float, Tensor, Tensor]:
    """Return `mind`, and the influences of the vectors x (N, d) and y (M, d): MIND is symmetric in its two sets."""
    total, of_x, of_y = x.new_zeros(()), x.new_zeros(len(x)), y.new_zeros(len(y))
    for units, sorted_y, rows_y in _sorted_projections(y, seed, directions):
        sorted_x, rows_x = (x @ units.T).sort(0)
        total = total + _sorted_squared_wasserstein(sorted_x, sorted_y).sum()
        of_x = of_x + _in_order_of_rows(_potentials(sorted_x, sorted_y), rows_x).sum(1)
        of_y = of_y + _in_order_of_rows(_potentials(sorted_y, sorted_x), rows_y).sum(1)
    scale = 3 * x.shape[1] / directions
    return float(scale * total), scale * (of_x - of_x.mean()), scale * (of_y - of_y.mean())


Projections = tuple[Tensor, Tensor, Tensor]
"""Directions (K, d), the sorted projections (M, K) of a set on them, and the rows of the set in that order."""


@dataclass(frozen=True)
class _Kept:
    """The sorted projections of the reference that this process used last."""

    reference: Tensor
    settings: tuple[object, ...]
    projections: tuple[Projections, ...]


_kept: _Kept | None = None


def _sorted_projections(y: Tensor, seed: int, directions: int) -> Iterable[Projections]:
    """Return the directions, and the sorted projections of the reference y on them.

    A process judges many sets against one reference. Sorting a reference of 1,000 images took a third of the time of
    judging 16 images. So the projections of the last reference are kept in memory, if they are not too large. The
    number of threads is compared too, because it may change the last bits of a product.
    """
    global _kept
    settings = (seed, directions, y.device, y.dtype, torch.get_num_threads())
    last = _kept
    if last is not None and last.settings == settings and torch.equal(last.reference, y):
        return last.projections
    found = ((units, *(y @ units.T).sort(0)) for units in _chunks(seed, directions, y))
    if len(y) * directions > _MOST_KEPT or y.device.type != "cpu":
        return found
    made = tuple(found)
    _kept = _Kept(y.clone(), settings, made)
    return made


def _in_order_of_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Return sorted columns (N, K) in the order of the vectors, whose places in the sorted columns are `rows`."""
    return torch.empty_like(values).scatter(0, rows, values)


def _chunks(seed: int, directions: int, like: Tensor) -> tuple[Tensor, ...]:
    if directions < 1:
        raise ValueError(f"directions = {directions}: allowed are integers of at least 1")
    return torch.split(unit_vectors(seed, directions, like.shape[1]).to(like.device), _CHUNK)


def _potentials(x: Tensor, y: Tensor) -> Tensor:
    """Return the potential at each x, (N, K), up to a constant, for sorted columns (N, K) and (M, K)."""
    n, m = len(x), len(y)
    boundaries = torch.arange(1, n, device=x.device) * m  # in units of 1 / (n m), so that all numbers are integers
    quantiles = y[(boundaries - 1) // n] + y[boundaries // n]
    steps = x.diff(dim=0) * (x[1:] + x[:-1] - quantiles)
    return torch.cat([x.new_zeros(1, x.shape[1]), steps.cumsum(0)])


def unit_vectors(seed: int, count: int, dim: int) -> Tensor:
    """Return uniformly random unit vectors (count, dim), float64: normalised Gaussians, the k-th from (seed, k)."""
    seeds = draws.derive(seed, _STREAM, torch.arange(count))
    vectors = draws.normal(seeds, _STREAM, (dim,)).double()
    return torch.nn.functional.normalize(vectors, dim=1)


def squared_wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared 2-Wasserstein distance of the distributions in each column: (N, K), (M, K) -> (K,)."""
    return _sorted_squared_wasserstein(x.sort(0).values, y.sort(0).values)


def _sorted_squared_wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """Return `squared_wasserstein` of columns that are sorted already."""
    if len(x) == len(y):
        return ((x - y) ** 2).mean(0)
    rows, columns, weights = _quantile_pairs(len(x), len(y))
    return weights.to(x.device) @ (x[rows.to(x.device)] - y[columns.to(x.device)]) ** 2


@lru_cache(maxsize=4)  # the same for all directions, and for all sets that a process judges alike
def _quantile_pairs(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the monotone coupling of n and m equal masses: the rows, the columns and the mass of each pair (sum 1).

    Both quantile functions are constant between the multiples of 1/n and 1/m. In units of 1/(n m) they are integers.
    """
    ends: Tensor = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()  # type: ignore[no-untyped-call]
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    return starts // m, starts // n, (ends - starts).double() / (n * m)


def _of_sets(sets: FeatureSets) -> tuple[float, Tensor, Tensor]:
    return _estimate(*feature_sets(sets.features, sets.reference_features), sets.seed, DIRECTIONS)


MIND = Distance(
    value=lambda sets: mind(sets.features, sets.reference_features, sets.seed),
    estimate=lambda sets: sets.once(_of_sets)[:2],
    reference_influences=lambda sets: sets.once(_of_sets)[2],
)
