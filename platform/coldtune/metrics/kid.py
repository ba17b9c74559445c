"""KID: the squared maximum mean discrepancy with a cubic kernel, without bias at any N."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coldtune.metrics.descriptors import Distance
from coldtune.metrics.moments import feature_sets

BLOCK = 2048  # rows and columns of the kernel held at a time: 32 MB


def kid(features: Tensor, reference_features: Tensor, block: int = BLOCK) -> float:
    """Unbiased MMD^2 of features (N, d) and (M, d) with k(x, y) = (x . y / d + 1)^3 (Binkowski et al., 2018, eq. 4).

    The U-statistic over all pairs, not the mean over random subsets that the paper takes to save time: it has the
    smallest variance that the images allow, and no seed. Its expectation is the same at every N and 0 for equal
    distributions, so it may be negative, and values at different N may be compared as far as their noise allows.
    It weighs lost spread lightly: an over-smoothed set that keeps its mean moves KID less than it moves FID. Symmetric.
    Memory is that of one block x block piece of the kernel. ValueError below 2 vectors.
    """
    return kid_estimate(features, reference_features, block)[0]


def kid_influences(features: Tensor, reference_features: Tensor, block: int = BLOCK) -> Tensor:
    """Each image's influence on `kid`, float64 (N,), mean 0: the reference is taken as fixed.

    2 (mean over j != i of k(x_i, x_j) - mean over j of k(x_i, y_j)), centred: the first-order projection of the
    U-statistic. sum(influences^2) / (N (N - 1)) estimates the variance of KID; where the distributions are (nearly)
    equal the second order dominates and the estimate is up to twice too large, so intervals are up to 2^(1/2) too wide.
    """
    return kid_estimate(features, reference_features, block)[1]


def kid_estimate(features: Tensor, reference_features: Tensor, block: int = BLOCK) -> tuple[float, Tensor]:
    """`kid` and `kid_influences`: both are means over rows of the same kernels."""
    x, y = feature_sets(features, reference_features)
    within, across = _row_means_within(x, block), _row_means(x, y, block)
    value = within.mean() + _row_means_within(y, block).mean() - 2 * across.mean()
    rows = 2 * (within - across)
    return float(value), rows - rows.mean()


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / d + 1)^3 of each pair: (N, d), (M, d) -> (N, M)."""
    base = (x @ (y.T / x.shape[1])).add_(1)
    return base.square().mul_(base)  # a power of 3 is ten times slower


def _row_means(x: Tensor, y: Tensor, block: int) -> Tensor:
    """Mean over j of k(x_i, y_j): (N,)."""
    rows = [sum((kernel(a, b).sum(1) for b in torch.split(y, block)), a.new_zeros(())) for a in torch.split(x, block)]
    return torch.cat(rows) / len(y)


def _row_means_within(x: Tensor, block: int) -> Tensor:
    """Mean over j != i of k(x_i, x_j): (N,)."""
    own = ((x * x).sum(1) / x.shape[1] + 1) ** 3
    return (_row_means(x, x, block) * len(x) - own) / (len(x) - 1)


KID = Distance(
    value=lambda sets: kid(sets.features, sets.reference_features),
    estimate=lambda sets: kid_estimate(sets.features, sets.reference_features),
    bounds=(-math.inf, math.inf),
)
