"""The Frechet distance between Gaussians fitted to features (FID), in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from coldtune.metrics.descriptors import Distance
from coldtune.metrics.moments import FeatureMoments, to_float64
from coldtune.metrics.reference import Reference, eigenvalue_roots

_ROWS = 256  # rows of a product of which only the lower triangle is wanted
_BLOCK = 4096  # images at a time


def frechet_distance(reference: Reference, features: Tensor | FeatureMoments) -> float:
    """|m_1 - m_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1^(1/2) S_2 S_1^(1/2))^(1/2), of the reference and of features (N, d).

    The FID of Heusel et al. (2017), eq. 6. It needs no full rank: with N <= d only the N - 1 eigenvalues that can
    differ from zero count. Its bias is positive, grows as N falls and with the spread of the
    features, so compare values only at equal N, and of close models with N >= 4 d (see `check_objective`).
    ValueError when the dimensions differ, below 2 images, or when a feature is not finite.
    """
    moments = features if isinstance(features, FeatureMoments) else FeatureMoments.of(features)
    return distance_of_eigenvalues(reference, moments, torch.linalg.eigvalsh(cross_product(reference, moments)))


def cross_product(reference: Reference, moments: FeatureMoments) -> Tensor:
    """F^T S F (d, d) of the reference's covariance R = F F^T and of S: as R^(1/2) S R^(1/2) up to a rotation.

    ValueError for unequal d.

    The upper triangle is left 0 or as it comes: eigensolvers read the lower one, and to compute that alone saves a
    fifth of the time at d = 2048.
    """
    if moments.dim != reference.dim:
        raise ValueError(f"features of {moments.dim} dimensions against a reference of {reference.dim}")
    root = reference.root.to(moments.mean.device)
    half = root.T @ moments.covariance
    product = torch.zeros_like(root)
    for start in range(0, len(root), _ROWS):
        end = start + _ROWS
        product[start:end, :end] = half[start:end] @ root[:, :end]
    return product


def distance_of_eigenvalues(reference: Reference, moments: FeatureMoments, eigenvalues: Tensor) -> float:
    """The distance, given the ascending eigenvalues (d,) of `cross_product`."""
    mean = moments.mean
    cross = eigenvalue_roots(eigenvalues, min(reference.n, moments.n) - 1).sum()
    shift = mean - reference.mean.to(mean.device)
    spread = moments.covariance.trace() + reference.covariance.trace().to(mean.device)
    return max(float(shift @ shift + spread - 2 * cross), 0.0)  # a squared distance: only rounding makes it negative


def frechet_influences(reference: Reference, features: Tensor) -> Tensor:
    """Each image's influence on FID, float64 (N,), sum 0: the derivative of FID as weight moves to that image.

    With weights w (1/N each), m = sum w_i x_i and S = N/(N-1) sum w_i (x_i - m)(x_i - m)^T, the derivative of
    |m - r|^2 + tr(S + R) - 2 tr (R^(1/2) S R^(1/2))^(1/2) towards image i is

        2 (m - r).c + N/(N-1) c^T (1 - T) c - tr((1 - T) S)
        c = x_i - m,  T = R^(1/2) (R^(1/2) S R^(1/2))^(-1/2) R^(1/2)

    T is the optimal map from N(m, S) to N(r, R), with the inverse on the range: reweighting does not leave it, so this
    holds for N <= d too. One eigendecomposition and one pass, in place of N leave-one-out distances (to which it
    is (N - 1) times the decrease, up to 1/N). Errors as `frechet_distance`.

    `jackknife_interval` of them covers the expectation of FID at this N over sets of images from the same model, with
    the reference fixed. It does not cover FID at infinite N, from which that expectation differs by the bias (see
    `fid_infinity`). If the model's distribution is (nearly) the reference's, the first derivative vanishes and the
    interval is wider than necessary, by up to about 1.6 at d = 64 and N = 4 d. It covers 95-100 % there in the
    simulations of tests/metrics/test_intervals.py. A percentile bootstrap is wrong here: a resample holds 63 % of the
    images, so its FID has the bias of a smaller N, and the interval may lie above its own estimate.
    """
    return frechet_estimate(reference, features)[1]


def frechet_estimate(reference: Reference, features: Tensor) -> tuple[float, Tensor]:
    """`frechet_distance` and `frechet_influences` of features (N, d), of the same moments and product."""
    features = to_float64(features)
    moments = FeatureMoments.of(features)
    product = cross_product(reference, moments)
    # Not of the eigenvalues that come with the vectors: those are found by another algorithm, which loses small ones.
    distance = distance_of_eigenvalues(reference, moments, torch.linalg.eigvalsh(product))
    values, vectors = torch.linalg.eigh(product)
    mean, covariance = moments.mean, moments.covariance
    gradient = torch.eye(moments.dim, dtype=torch.float64, device=mean.device)
    gradient -= _transport(reference.root.to(mean.device) @ vectors, values)
    shift = 2 * (mean - reference.mean.to(mean.device))
    factor, level = moments.n / (moments.n - 1), (gradient * covariance).sum()
    parts = []
    for block in torch.split(features, _BLOCK):
        centred = block - mean
        parts.append(centred @ shift + factor * ((centred @ gradient) * centred).sum(1) - level)
    return distance, torch.cat(parts)


def _transport(half: Tensor, values: Tensor) -> Tensor:
    """T above (d, d), of F V and the eigenvalues of F^T S F, whose eigenvectors are V: F F^T = R serves as R^(1/2)."""
    # Directions in which a set has no spread (N <= d, a dead unit of the network) leave eigenvalues of mere rounding.
    least = len(values) * torch.finfo(values.dtype).eps * values[-1]
    inverse = torch.where(values > least, values.rsqrt(), 0.0)
    transport: Tensor = (half * inverse) @ half.T
    return transport


FID = Distance(
    value=lambda sets: frechet_distance(sets.reference, sets.features),
    estimate=lambda sets: frechet_estimate(sets.reference, sets.features),
    needs_reference_features=False,
    images_per_dim=4,
)
