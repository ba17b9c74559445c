"""The Frechet distance between Gaussians fitted to features (FID), in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from coldtune.metrics.descriptors import Distance, FeatureSets
from coldtune.metrics.moments import FeatureMoments, to_float64
from coldtune.metrics.reference import Reference, eigenvalue_roots

_ROWS = 256  # rows of a product at a time, because only its lower triangle is computed
_BLOCK = 4096  # images at a time


def frechet_distance(reference: Reference, features: Tensor | FeatureMoments) -> float:
    """Return |m_1 - m_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1^(1/2) S_2 S_1^(1/2))^(1/2).

    This is the FID of Heusel et al. (2017), eq. 6. It needs no full rank: with N <= d, only the N - 1 eigenvalues that
    can differ from zero count. Its bias is positive, and grows as N falls and as the features spread. So compare values
    only at equal N, and values of close models only with N >= 4 d (see `check_objective`).

    Args:
        reference: The moments m_1 and S_1.
        features: The features (N, d) of the judged images, or their moments m_2 and S_2.

    Raises:
        ValueError: If the dimensions differ, there are fewer than 2 images, or a feature is not finite.
    """
    moments = features if isinstance(features, FeatureMoments) else FeatureMoments.of(features)
    return distance_of_eigenvalues(reference, moments, torch.linalg.eigvalsh(cross_product(reference, moments)))


def cross_product(reference: Reference, moments: FeatureMoments) -> Tensor:
    """Return F^T S F (d, d) of the reference's covariance R = F F^T and of S.

    Up to a rotation it is R^(1/2) S R^(1/2). Only the lower triangle is defined, because eigensolvers read no other
    entries. Computing that triangle alone saves a fifth of the time at d = 2048.

    Raises:
        ValueError: If the dimensions differ.
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
    """Return the distance from the ascending eigenvalues (d,) of `cross_product`."""
    mean = moments.mean
    cross = eigenvalue_roots(eigenvalues, min(reference.n, moments.n) - 1).sum()
    shift = mean - reference.mean.to(mean.device)
    spread = moments.covariance.trace() + reference.covariance.trace().to(mean.device)
    return max(float(shift @ shift + spread - 2 * cross), 0.0)  # a squared distance: only rounding makes it negative


def frechet_influences(reference: Reference, features: Tensor) -> Tensor:
    """Return each image's influence on FID, float64 (N,), sum 0: the derivative of FID as weight moves to that image.

    With weights w (1/N each), m = sum w_i x_i and S = N/(N-1) sum w_i (x_i - m)(x_i - m)^T, the derivative of
    |m - r|^2 + tr(S + R) - 2 tr (R^(1/2) S R^(1/2))^(1/2) towards image i is

        2 (m - r).c + N/(N-1) c^T (1 - T) c - tr((1 - T) S)
        c = x_i - m,  T = R^(1/2) (R^(1/2) S R^(1/2))^(-1/2) R^(1/2)

    T is the optimal map from N(m, S) to N(r, R), with the inverse on the range. Changing the weights does not leave the
    range, so this holds for N <= d too. It takes one eigendecomposition and one pass, in place of N leave-one-out
    distances. Up to 1/N, an influence is (N - 1) times the decrease of FID if its image is left out.

    `jackknife_interval` of the influences covers the expectation of FID at this N over sets of images from the same
    model, with the reference fixed. It does not cover FID at infinite N, from which that expectation differs by the
    bias (see `fid_infinity`). If the model's distribution is (nearly) the reference's, the first derivative vanishes.
    The interval is then wider than necessary, by up to about 1.6 at d = 64 and N = 4 d. It covers 95-100 % there in the
    simulations of tests/metrics/test_intervals.py.

    A percentile bootstrap is wrong for FID. A resample contains 63 % of the images, so its FID has the bias of a
    smaller N, and the interval may lie above its own estimate.

    Raises the errors of `frechet_distance`.
    """
    return frechet_estimate(reference, features)[1]


def frechet_estimate(reference: Reference, features: Tensor) -> tuple[float, Tensor]:
    """Return `frechet_distance` and `frechet_influences` of features (N, d), which share moments and product."""
    derivatives = differentiate(reference, features)
    return derivatives.distance, derivatives.influences


def frechet_reference_influences(reference: Reference, reference_features: Tensor, features: Tensor) -> Tensor:
    """Return each reference image's influence on FID, float64 (M,), sum 0, with the judged images fixed.

    FID is symmetric in its two sets, so these are `frechet_influences` with the roles swapped.
    """
    derivatives = differentiate(reference, features)
    return influences_on_reference(reference, reference_features, derivatives.shift, derivatives.gradient)


@dataclass(frozen=True, eq=False)
class FrechetDerivatives:
    """FID and its derivatives, from one product and one eigendecomposition.

    Attributes:
        distance: FID.
        influences: Each judged image's influence, float64 (N,), sum 0.
        shift: The derivative by the reference's mean (d,).
        gradient: The derivative by the reference's covariance (d, d).
    """

    distance: float
    influences: Tensor
    shift: Tensor
    gradient: Tensor


def differentiate(reference: Reference, features: Tensor) -> FrechetDerivatives:
    """Return FID and its derivatives.

    The derivative by the reference's covariance R = F F^T is 1 minus the optimal map from N(r, R) to N(m, S). That map
    is F^-T (F^T S F)^(1/2) F^-1, with the inverse on the range of R.

    Args:
        reference: The moments of the reference's features.
        features: The features (N, d) of the judged images.
    """
    features = to_float64(features)
    moments = FeatureMoments.of(features)
    product = cross_product(reference, moments)
    # `eigh` also returns eigenvalues, but its algorithm loses small eigenvalues.
    distance = distance_of_eigenvalues(reference, moments, torch.linalg.eigvalsh(product))
    values, vectors = torch.linalg.eigh(product)
    root, identity = reference.root.to(features.device), torch.eye(moments.dim, dtype=torch.float64).to(features.device)
    shift = 2 * (moments.mean - reference.mean.to(features.device))
    gradient = identity - _transport(root @ vectors, values)
    influences = _influences_of_gradients(features, moments.mean, moments.covariance, shift, gradient)
    levels = (root * root).sum(0)  # F is eigenvectors of R times roots of its eigenvalues
    inverse = torch.where(levels > len(levels) * torch.finfo(levels.dtype).eps * levels.max(), 1 / levels, 0.0)
    half = (root * inverse) @ vectors
    transport = (half * eigenvalue_roots(values, min(reference.n, moments.n) - 1)) @ half.T
    return FrechetDerivatives(distance, influences, -shift, identity - transport)


def influences_on_reference(
    reference: Reference, reference_features: Tensor, shift: Tensor, gradient: Tensor
) -> Tensor:
    """Return each reference image's influence, float64 (M,), from derivatives by the reference's moments."""
    features = to_float64(reference_features).to(shift.device)
    mean, covariance = reference.mean.to(shift.device), reference.covariance.to(shift.device)
    return _influences_of_gradients(features, mean, covariance, shift, gradient)


def _influences_of_gradients(
    features: Tensor, mean: Tensor, covariance: Tensor, shift: Tensor, gradient: Tensor
) -> Tensor:
    """Return the influences (N,) of features with these moments, from the derivatives by their mean and covariance."""
    factor, level = len(features) / (len(features) - 1), (gradient * covariance).sum()
    parts = []
    for block in torch.split(features, _BLOCK):
        centred = block - mean
        parts.append(centred @ shift + factor * ((centred @ gradient) * centred).sum(1) - level)
    return torch.cat(parts)


def _transport(half: Tensor, values: Tensor) -> Tensor:
    """Return T (d, d) from F V and the eigenvalues of F^T S F, whose eigenvectors are V. F serves as R^(1/2)."""
    # Directions in which a set has no spread (N <= d, a dead unit of the network) leave eigenvalues of mere rounding.
    least = len(values) * torch.finfo(values.dtype).eps * values[-1]
    inverse = torch.where(values > least, values.rsqrt(), 0.0)
    transport: Tensor = (half * inverse) @ half.T
    return transport


def describe_frechet(
    value: Callable[[FeatureSets], float], derivatives: Callable[[FeatureSets], FrechetDerivatives], **more: Any
) -> Distance:
    """Return the descriptor of a distance that follows from the moments of features.

    Args:
        value: Returns the distance.
        derivatives: Returns the distance with its derivatives. They are computed once for each pair of sets.
        more: Further fields of the descriptor.
    """

    def estimate(sets: FeatureSets) -> tuple[float, Tensor]:
        found = sets.once(derivatives)
        return found.distance, found.influences

    def reference_influences(sets: FeatureSets) -> Tensor:
        found = sets.once(derivatives)
        return influences_on_reference(sets.reference, sets.reference_features, found.shift, found.gradient)

    return Distance(
        value=value,
        estimate=estimate,
        reference_influences=reference_influences,
        needs_reference_features=False,
        images_per_dim=4,
        **more,
    )


FID = describe_frechet(
    lambda sets: frechet_distance(sets.reference, sets.features),
    lambda sets: differentiate(sets.reference, sets.features),
)
