"""Descriptors of metrics: how a metric is computed, which direction is better, and what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from coldtune.metrics.intervals import Interval, normal_interval
from coldtune.metrics.moments import feature_sets
from coldtune.metrics.reference import Reference

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class FeatureSets:
    """The input of a distance.

    Attributes:
        features: The features (N, d) of the judged images.
        given_reference_features: The features (M, d) of the reference's images, or None if only moments are known.
        reference: The moments of the reference's features.
        seed: The protocol's seed, for distances that draw random numbers.
    """

    features: Tensor
    given_reference_features: Tensor | None
    reference: Reference
    seed: int
    _results: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def reference_features(self) -> Tensor:
        """The features (M, d) of the reference's images. `check_distances` has made sure that they are given."""
        assert self.given_reference_features is not None, "a distance that uses them sets needs_reference_features"
        return self.given_reference_features

    def of_reference(self, kind: str, compute: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return `compute(reference features)`, which all judgements under this reference share.

        Args:
            kind: Names the tensors and every constant that they depend on.
            compute: Is given the features in float64, on the device of the judged features.

        Returns:
            The tensors, on the device of the judged features.
        """
        features, reference = feature_sets(self.features, self.reference_features)
        kept = self.reference.keep(kind, lambda: compute(reference))
        return {name: tensor.to(features.device) for name, tensor in kept.items()}

    def once(self, compute: Callable[[FeatureSets], T]) -> T:
        """Return `compute(self)`, computed at the first call only, so that distances can share expensive work."""
        if compute not in self._results:
            self._results[compute] = compute(self)
        result: T = self._results[compute]
        return result


@dataclass(frozen=True)
class Distance:
    """A metric that compares the features of two sets of images.

    Attributes:
        value: Computes the distance alone.
        estimate: Computes the distance and each image's influence (N,) on it, sum 0.
        reference_influences: Computes each reference image's influence (M,) on the distance, sum 0. If it is None, the
            interval takes the reference as fixed.
        interval: Computes the 95 % interval from the distance, its standard error and N.
        bounds: The range in which the true distance lies. Intervals are cut to it.
        higher_is_better: True if a larger value means better images.
        needs_reference_features: False if the reference's moments are enough.
        images_per_dim: As an objective, the distance needs N >= images_per_dim * d images. With fewer images its bias
            can rank over-smoothed images first. 0 means that the distance has no such limit.
    """

    value: Callable[[FeatureSets], float]
    estimate: Callable[[FeatureSets], tuple[float, Tensor]]
    reference_influences: Callable[[FeatureSets], Tensor] | None = None
    interval: Callable[[float, float, int], Interval] = normal_interval
    bounds: tuple[float, float] = (0.0, math.inf)
    higher_is_better: bool = False
    needs_reference_features: bool = True
    images_per_dim: int = 0


@dataclass(frozen=True)
class PerImageScore:
    """A number for each restored image, from which the scores of a set are made.

    Attributes:
        name: The name under which a `Judgement` stores the numbers.
        compute: Maps images and their originals, (B, C, H, W) in [0, 1], to float64 (B,).
        higher_is_better: True if a larger number means a better image.
    """

    name: str
    compute: Callable[[Tensor, Tensor], Tensor]
    higher_is_better: bool = False


@dataclass(frozen=True)
class ImageScore:
    """A metric that compares restored images with their originals, pair by pair.

    Attributes:
        per_image: The number of each pair.
        of_mean: Maps the mean over all pairs to the score of the set. It must be monotone, because the bounds of the
            interval are mapped in the same way.
        higher_is_better: True if a larger score means better images.
    """

    per_image: PerImageScore
    of_mean: Callable[[float], float]
    higher_is_better: bool = False
