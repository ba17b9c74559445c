"""FID extrapolated to infinitely many images, which removes the part of FID's bias that is due to N."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coldtune.diffusion import draws
from coldtune.metrics.frechet import FrechetDerivatives, describe_frechet, differentiate, frechet_distance
from coldtune.metrics.moments import check_features
from coldtune.metrics.reference import Reference

PARTS = 8
_ORDER = draws.stream("metrics/fid_infinity/order")


def fid_infinity(features: Tensor, reference: Reference, seed: int = 0) -> float:
    """Return the FID of features (N, d) extrapolated to N = infinity (Chong and Forsyth, 2020, section 3.1).

    The bias of FID is c / n + O(1 / n^2), and c differs between models. So the set is shuffled by `seed` and cut into k
    equal parts for k = 1, 2, ..., as long as a part has n >= 2 d vectors (at most PARTS). The FID averaged over the
    parts is a straight line in 1 / n, and the value is that line at 1 / n = 0. The paper takes one random subset for
    each n. Here every vector is used at every n, which lowers the variance for as many eigendecompositions.

    The reference is the same for every n, so the bias of its own size remains, equal for all models. With N < 4 d there
    are still two points, but they lie on the bent part of the curve, so a bias of unknown sign remains. The noise is
    larger than FID's, because a line is extended beyond its points. Near 0 the value can be slightly negative.

    Args:
        features: The features of the judged images. Their order matters, because it enters the shuffle.
        reference: The moments of the reference's features.
        seed: Shuffles the vectors. At equal order and seed, the parts of two models contain the same images.

    Raises:
        ValueError: If there are fewer than 4 vectors, or `frechet_distance` refuses them.
    """
    check_features(features, reference.dim)
    sizes, values = fid_at_sizes(features, reference, seed)
    return intercept(1 / sizes, values)


def fid_infinity_estimate(features: Tensor, reference: Reference, seed: int = 0) -> tuple[float, Tensor]:
    """Return `fid_infinity` and each image's influence on it, float64 (N,), sum 0.

    The value is a combination of FIDs of parts with coefficients that N alone determines. So its influences are the
    same combination of the parts' influences, each N / n times as large for a part of n images. As for FID, the
    interval from them covers the expectation at this N with the reference fixed. It does not include the bias that a
    bent line leaves.
    """
    derivatives = differentiate_infinity(features, reference, seed)
    return derivatives.distance, derivatives.influences


def differentiate_infinity(features: Tensor, reference: Reference, seed: int = 0) -> FrechetDerivatives:
    """Return `fid_infinity` and its derivatives, the same combination of those of the parts."""
    check_features(features, reference.dim)
    levels = shuffled_parts(len(features), reference.dim, seed)
    weights = intercept_weights(1 / _sizes(levels))
    value, influences = 0.0, torch.zeros(len(features), dtype=torch.float64, device=features.device)
    shift, gradient = torch.zeros_like(reference.mean), torch.zeros_like(reference.covariance)
    for weight, level in zip(weights.tolist(), levels, strict=True):
        for rows in level:
            rows = rows.to(features.device)
            part = differentiate(reference, features[rows])
            value += weight / len(level) * part.distance
            influences[rows] += weight / len(level) * len(features) / len(rows) * part.influences
            shift = shift.to(part.shift) + weight / len(level) * part.shift
            gradient = gradient.to(part.gradient) + weight / len(level) * part.gradient
    return FrechetDerivatives(value, influences, shift, gradient)


def fid_at_sizes(features: Tensor, reference: Reference, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the points of that line, float64 (K,): the sizes n, descending from N, and the mean FID of the parts."""
    levels = shuffled_parts(len(features), reference.dim, seed)
    values = [
        sum(frechet_distance(reference, features[rows.to(features.device)]) for rows in level) / len(level)
        for level in levels
    ]
    return _sizes(levels), torch.tensor(values, dtype=torch.float64)


def shuffled_parts(count: int, dim: int, seed: int) -> list[tuple[Tensor, ...]]:
    """Return, for k = 1, 2, ..., the rows of each of the k parts.

    Raises:
        ValueError: If `count` is below 4.
    """
    if count < 4:
        raise ValueError(f"{count} features: FID-infinity needs at least 4, and 4 d for its line to be straight")
    order = torch.argsort(draws.derive(seed, _ORDER, torch.arange(count)))
    return [torch.split(order[: count // k * k], count // k) for k in range(1, part_count(count, dim) + 1)]


def _sizes(levels: list[tuple[Tensor, ...]]) -> Tensor:
    return torch.tensor([len(level[0]) for level in levels], dtype=torch.float64)


def part_count(count: int, dim: int) -> int:
    """Return the largest number of parts, 2..PARTS, such that each part has at least 2 dim vectors if possible."""
    return min(max(count // (2 * dim), 2), PARTS)


def intercept(x: Tensor, y: Tensor) -> float:
    """Return the value at x = 0 of the least-squares line through points (K,), K >= 2."""
    return float(intercept_weights(x) @ y)


def intercept_weights(x: Tensor) -> Tensor:
    """Return the weights w (K,), sum 1, for which that value is w . y."""
    centred = x - x.mean()
    return 1 / len(x) - x.mean() * centred / (centred @ centred)


FID_INFINITY = describe_frechet(
    lambda sets: fid_infinity(sets.features, sets.reference, sets.seed),
    lambda sets: differentiate_infinity(sets.features, sets.reference, sets.seed),
    bounds=(-math.inf, math.inf),  # the extrapolated value may be negative
)
