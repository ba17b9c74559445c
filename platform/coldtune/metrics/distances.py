"""Distances between two sets of features by name, alone or with intervals, from features that were extracted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from coldtune.metrics.descriptors import FeatureSets
from coldtune.metrics.intervals import Interval, jackknife_error
from coldtune.metrics.reference import Reference
from coldtune.metrics.registry import DISTANCES


@dataclass(frozen=True, eq=False)
class Estimate:
    """A distance with its 95 % interval.

    Attributes:
        influences: Each image's influence on the distance, float64 (N,), sum 0.
        reference_influences: Each reference image's influence, float64 (M,), sum 0. None if the interval takes the
            reference as fixed.
    """

    interval: Interval
    influences: Tensor
    reference_influences: Tensor | None = None


def distances(
    features: Tensor,
    reference_features: Tensor | None,
    reference: Reference | None = None,
    names: Sequence[str] = tuple(DISTANCES),
    seed: int = 0,
) -> dict[str, float]:
    """Return the distances called `names` between features (N, d) and reference features (M, d).

    Precision and recall are better if they are larger, all other distances if they are smaller.

    Args:
        features: The features of the judged images.
        reference_features: The features of the reference's images. FID and FID-infinity also accept None, if
            `reference` is given.
        reference: The moments of the reference features (`reference_statistics`). None computes them here.
        names: The distances to compute, which also sets the order of the result.
        seed: Draws the subsets of FID-infinity and the directions of MIND. Pass the protocol's seed, so that all trials
            share them.

    Returns:
        The distance of each name.

    Raises:
        ValueError: If a name is unknown, if reference features are missing or are not those of `reference`, or if a
            distance refuses its input.
    """
    sets = _sets(features, reference_features, reference, names, seed)
    return {name: DISTANCES[name].value(sets) for name in names}


def estimates(
    features: Tensor,
    reference_features: Tensor | None,
    reference: Reference | None = None,
    names: Sequence[str] = tuple(DISTANCES),
    seed: int = 0,
    *,
    resample_reference: bool = False,
    pairs: Tensor | None = None,
) -> dict[str, Estimate]:
    """Return the distances called `names` with their intervals.

    An interval covers the distance's expectation over sets of N images of the same model. By default it takes the
    reference as fixed. It then does not say how much another sample of clean images would change.

    The intervals follow from the images' influences (for example `frechet_influences`). Precision is a share of
    independent images and has Wilson's interval. In the simulations of tests/metrics/test_intervals.py, intervals of
    FID-infinity are up to 1.3 times too wide, and those of recall 1.3 to 2 times. The interval of recall has no width
    if no single image matters.

    With drawn references (tests/metrics/test_reference_choice.py), intervals contain the expectation in 90 to 100 % of
    cases. Those of KID are up to 2.3 times too wide if restored images nearly equal their originals, and those of
    precision 1.4 to 5 times.

    Args:
        features: As in `distances`.
        reference_features: As in `distances`.
        reference: As in `distances`.
        names: As in `distances`.
        seed: As in `distances`.
        resample_reference: The interval covers the expectation over other references of M images too. The reference is
            still taken as fixed if its features are not given, or for a distance without `reference_influences`.
        pairs: The place in the reference of each image's original, integers (N,), if images were restored from
            originals in the reference. Images and originals are then drawn again together. None draws both sets
            independently.

    Returns:
        The estimate of each name.

    Raises:
        ValueError: As `distances`.
    """
    sets = _sets(features, reference_features, reference, names, seed)
    return {name: _estimate(name, sets, resample_reference, pairs) for name in names}


def _estimate(name: str, sets: FeatureSets, resample_reference: bool, pairs: Tensor | None) -> Estimate:
    distance = DISTANCES[name]
    value, influences = distance.estimate(sets)
    of_reference = None
    if resample_reference and distance.reference_influences and sets.given_reference_features is not None:
        of_reference = distance.reference_influences(sets)
    error = jackknife_error(influences, of_reference, pairs)
    return Estimate(distance.interval(value, error, len(influences)).within(*distance.bounds), influences, of_reference)


def check_distances(reference_features: Tensor | None, reference: Reference | None, names: Sequence[str]) -> None:
    """Raise ValueError if `distances` cannot compute these names from this reference."""
    if unknown := [name for name in names if name not in DISTANCES]:
        raise ValueError(f"distances {', '.join(map(repr, unknown))}: allowed are {', '.join(DISTANCES)}")
    if reference_features is None:
        if missing := [name for name in names if DISTANCES[name].needs_reference_features]:
            raise ValueError(f"{', '.join(missing)}: needs the features of the reference's images (reference_features)")
        if reference is None:
            raise ValueError("neither reference_features nor reference given: pass at least one of them")
    elif reference is not None and reference.n != len(reference_features):
        raise ValueError(f"{len(reference_features)} reference features, but moments of {reference.n}: not one set")


def _sets(
    features: Tensor, reference_features: Tensor | None, reference: Reference | None, names: Sequence[str], seed: int
) -> FeatureSets:
    check_distances(reference_features, reference, names)
    if reference is None:
        assert reference_features is not None, "checked above"
        reference = Reference.of(reference_features)
    return FeatureSets(features, reference_features, reference, seed)
