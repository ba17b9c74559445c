"""Distances between two sets of features by name, on features that were extracted once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from coldtune.metrics.fid_infinity import fid_infinity
from coldtune.metrics.frechet import Reference, frechet_distance
from coldtune.metrics.kid import kid
from coldtune.metrics.mind import mind
from coldtune.metrics.precision_recall import precision_recall


@dataclass(frozen=True, eq=False)
class FeatureSets:
    """What the distances are of: features (N, d), the reference's (M, d), its moments, and a seed."""

    features: Tensor
    of_reference: Tensor | None
    reference: Reference
    seed: int

    @property
    def reference_features(self) -> Tensor:
        """The reference's features, where they are at hand."""
        assert self.of_reference is not None, "distances() asks for them"
        return self.of_reference

    @cached_property
    def precision_recall(self) -> tuple[float, float]:
        """Both at once, because they share the search for neighbours."""
        return precision_recall(self.features, self.reference_features)


# name -> value; another distance is one line here
DISTANCES: dict[str, Callable[[FeatureSets], float]] = {
    "fid": lambda sets: frechet_distance(sets.reference, sets.features),
    "fid_infinity": lambda sets: fid_infinity(sets.features, sets.reference, sets.seed),
    "kid": lambda sets: kid(sets.features, sets.reference_features),
    "mind": lambda sets: mind(sets.features, sets.reference_features, sets.seed),
    "precision": lambda sets: sets.precision_recall[0],
    "recall": lambda sets: sets.precision_recall[1],
}
OF_MOMENTS = frozenset({"fid", "fid_infinity"})  # what needs no features of the reference, only its moments


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
    if unknown := [name for name in names if name not in DISTANCES]:
        raise ValueError(f"distances {', '.join(map(repr, unknown))}: allowed are {', '.join(DISTANCES)}")
    if reference_features is None:
        if missing := [name for name in names if name not in OF_MOMENTS]:
            raise ValueError(f"{', '.join(missing)}: needs the features of the reference's images (reference_features)")
        if reference is None:
            raise ValueError("neither reference_features nor reference given: one of them is needed")
    elif reference is None:
        reference = Reference.of(reference_features)
    elif reference.n != len(reference_features):
        raise ValueError(f"{len(reference_features)} reference features, but moments of {reference.n}: not one set")
    sets = FeatureSets(features, reference_features, reference, seed)
    return {name: DISTANCES[name](sets) for name in names}
