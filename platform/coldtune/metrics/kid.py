"""KID: the squared maximum mean discrepancy with a cubic kernel, without bias at any N."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coldtune.metrics.descriptors import Distance, FeatureSets
from coldtune.metrics.moments import feature_sets

BLOCK = 2048  # rows and columns of the kernel in memory at a time: 32 MB


def kid(features: Tensor, reference_features: Tensor, block: int = BLOCK) -> float:
    """Return the unbiased MMD^2 of two sets with k(x, y) = (x . y / d + 1)^3 (Binkowski et al., 2018, eq. 4).

    This is the U-statistic over all pairs. The paper takes the mean over random subsets to save time, but the
    U-statistic has the smallest variance that the images allow, and it needs no seed. Its expectation is the same at
    every N and 0 for equal distributions. So it may be negative, and values at different N may be compared as far as
    their noise allows. KID is symmetric.

    KID weighs lost spread lightly: an over-smoothed set that keeps its mean moves KID less than it moves FID.

    Args:
        features: The features (N, d) of the judged images.
        reference_features: The features (M, d) of the reference's images.
        block: The kernel is computed in pieces of block x block, which bound the memory.

    Raises:
        ValueError: If a set has fewer than 2 vectors.
    """
    return kid_estimate(features, reference_features, block)[0]


def kid_influences(features: Tensor, reference_features: Tensor, block: int = BLOCK) -> Tensor:
    """Return each image's influence on `kid`, float64 (N,), mean 0, with the reference fixed.

    The influence is 2 (mean over j != i of k(x_i, x_j) - mean over j of k(x_i, y_j)), centred. It is the first-order
    projection of the U-statistic, and sum(influences^2) / (N (N - 1)) estimates the variance of KID. If the
    distributions are (nearly) equal, the second order dominates and the estimate is up to twice too large. Intervals
    are then up to 2^(1/2) too wide.
    """
    return kid_estimate(features, reference_features, block)[1]


def kid_estimate(features: Tensor, reference_features: Tensor, block: int = BLOCK) -> tuple[float, Tensor]:
    """Return `kid` and `kid_influences`, which are both means over rows of the same kernels."""
    x, y = feature_sets(features, reference_features)
    return _estimate(x, y, _row_means_within(y, block), block)


def kid_reference_influences(features: Tensor, reference_features: Tensor, block: int = BLOCK) -> Tensor:
    """Return each reference image's influence on `kid`, float64 (M,), mean 0. KID is symmetric in its two sets."""
    x, y = feature_sets(features, reference_features)
    return _reference_influences(x, y, _row_means_within(y, block), block)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return (x . y / d + 1)^3 of each pair, (N, M), for sets (N, d) and (M, d)."""
    base = (x @ (y.T / x.shape[1])).add_(1)
    return base.square().mul_(base)  # a power of 3 is ten times slower


def _row_means(x: Tensor, y: Tensor, block: int) -> Tensor:
    """Return the mean over j of k(x_i, y_j): (N,)."""
    rows = [sum((kernel(a, b).sum(1) for b in torch.split(y, block)), a.new_zeros(())) for a in torch.split(x, block)]
    return torch.cat(rows) / len(y)


def _row_means_within(x: Tensor, block: int) -> Tensor:
    """Return the mean over j != i of k(x_i, x_j): (N,)."""
    diagonal = ((x * x).sum(1) / x.shape[1] + 1) ** 3
    return (_row_means(x, x, block) * len(x) - diagonal) / (len(x) - 1)


def _estimate(x: Tensor, y: Tensor, within_y: Tensor, block: int) -> tuple[float, Tensor]:
    within, across = _row_means_within(x, block), _row_means(x, y, block)
    rows = 2 * (within - across)
    return float(within.mean() + within_y.mean() - 2 * across.mean()), rows - rows.mean()


def _reference_influences(x: Tensor, y: Tensor, within_y: Tensor, block: int) -> Tensor:
    rows = 2 * (within_y - _row_means(y, x, block))
    return rows - rows.mean()


def _sets(sets: FeatureSets) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return both sets, and the mean kernel within the reference, which takes longest and is computed once."""
    x, y = feature_sets(sets.features, sets.reference_features)
    kept = sets.of_reference("kid", lambda reference: {"row_means": _row_means_within(reference, BLOCK)})
    return x, y, kept["row_means"], BLOCK


KID = Distance(
    value=lambda sets: _estimate(*_sets(sets))[0],
    estimate=lambda sets: _estimate(*_sets(sets)),
    reference_influences=lambda sets: _reference_influences(*_sets(sets)),
    bounds=(-math.inf, math.inf),  # an unbiased estimate of 0 may be negative
)
