"""Distances between two sets of features by name, with intervals, on features that were extracted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from coldtune.metrics.descriptors import FeatureSets
from coldtune.metrics.intervals import Interval
from coldtune.metrics.reference import Reference
from coldtune.metrics.registry import DISTANCES


@dataclass(frozen=True, eq=False)
class Estimate:
    """A distance with its 95 % interval, and each image's influence on it, float64 (N,), sum 0."""

    interval: Interval
    influences: Tensor


def distances(
    features: Tensor,
    reference_features: Tensor | None,
    reference: Reference | None = None,
    names: Sequence[str] = tuple(DISTANCES),
    seed: int = 0,
) -> dict[str, float]:
    """The distances called `names` of features (N, d) from reference features (M, d), as {name: value} in that order.

    reference: the moments of the reference features where they are at hand (`reference_statistics`); None takes them
    here. With them, FID and FID-infinity need no reference features (None).
    seed: of FID-infinity's subsets and MIND's directions, the protocol's, so that all trials share them.
    Precision and recall are better the larger they are, all others the smaller.
    ValueError for an unknown name, reference features that are missing or not those of `reference`, and as each.
    """
    sets = _sets(features, reference_features, reference, names, seed)
    return {name: DISTANCES[name].value(sets) for name in names}


def estimates(
    features: Tensor,
    reference_features: Tensor | None,
    reference: Reference | None = None,
    names: Sequence[str] = tuple(DISTANCES),
    seed: int = 0,
) -> dict[str, Estimate]:
    """`distances` with their intervals, which cover the distance's expectation over sets of N images of one model.

    The reference is taken as fixed in all of them: they do not say what another sample of clean images would change.
    From the influences of the images (`frechet_influences`, `fid_infinity_estimate`, `kid_influences`,
    `mind_influences`, `precision_recall_influences` say how); precision, a share of independent images, has Wilson's
    interval. In the simulations of tests/metrics/test_intervals.py those of FID-infinity are up to 1.3 times as wide as
    need be, those of recall 1.3 to 2 times; recall's has no width where no single image matters.
    Arguments and errors as `distances`.
    """
    sets = _sets(features, reference_features, reference, names, seed)
    return {name: _estimate(name, sets) for name in names}


def _estimate(name: str, sets: FeatureSets) -> Estimate:
    distance = DISTANCES[name]
    value, influences = distance.estimate(sets)
    return Estimate(distance.interval(value, influences).within(*distance.bounds), influences)


def check_distances(reference_features: Tensor | None, reference: Reference | None, names: Sequence[str]) -> None:
    """ValueError where `distances` of these names could not be taken from this reference."""
    if unknown := [name for name in names if name not in DISTANCES]:
        raise ValueError(f"distances {', '.join(map(repr, unknown))}: allowed are {', '.join(DISTANCES)}")
    if reference_features is None:
        if missing := [name for name in names if DISTANCES[name].needs_reference_features]:
            raise ValueError(f"{', '.join(missing)}: needs the features of the reference's images (reference_features)")
        if reference is None:
            raise ValueError("neither reference_features nor reference given: one of them is needed")
    elif reference is not None and reference.n != len(reference_features):
        raise ValueError(f"{len(reference_features)} reference features, but moments of {reference.n}: not one set")


def _sets(
    features: Tensor, reference_features: Tensor | None, reference: Reference | None, names: Sequence[str], seed: int
) -> FeatureSets:
    check_distances(reference_features, reference, names)
    if reference is None:
        assert reference_features is not None
        reference = Reference.of(reference_features)
    return FeatureSets(features, reference_features, reference, seed)
