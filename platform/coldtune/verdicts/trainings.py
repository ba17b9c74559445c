"""Trainings and settings as verdicts see them: values, image influences and the covariance of the images' part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coldtune.metrics.intervals import jackknife_covariance
from coldtune.metrics.judgement import Judgement
from coldtune.metrics.registry import DISTANCES, IMAGE_SCORES

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Training:
    """A trained network, judged on the protocol's images by a metric.

    Attributes:
        value: The metric's value.
        influences: Each image's first-order influence (N,) on the value, sum 0, as a `Judgement` stores it.
        seed: The seed of the training.
        network: The key of the trained network. Equal keys in two settings mean the same network, for example if only
            the sampler differs. Such trainings are always paired.
        reference_influences: Each reference image's influence (M,), sum 0. None takes the reference as fixed.
        pairs: The place in the reference of each image's original (N,), or None if the two sets are independent.
        again: The network's values on the same images with other draws, one for each further protocol seed.
    """

    value: float
    influences: Tensor
    seed: int
    network: str
    reference_influences: Tensor | None = None
    pairs: Tensor | None = None
    again: tuple[float, ...] = ()

    @classmethod
    def of(cls, judgement: Judgement, metric: str, seed: int, network: str) -> Training:
        """Return the training behind a judgement.

        Args:
            metric: A distance ("fid", "kid", "mind", ...) or an image score ("ssim", "rmse", "psnr"). A prefix such as
                "sampled/" is ignored.

        Raises:
            ValueError: If the judgement has no influences of this metric, or the value is not finite.
        """
        metric = metric.rpartition("/")[2]
        if metric in IMAGE_SCORES:
            score = IMAGE_SCORES[metric]
            per_image = judgement.per_image.get(score.per_image.name)
            if per_image is not None:
                influences = per_image.double() - per_image.double().mean()
                slope = _slope(score.of_mean, float(per_image.double().mean()), metric)
                return cls(judgement.values[metric].value, influences * slope, seed, network)
        elif metric in judgement.influences:
            of_reference = judgement.reference_influences.get(metric)
            pairs = judgement.protocol.pairs() if of_reference is not None else None
            return cls(judgement.values[metric].value, judgement.influences[metric], seed, network, of_reference, pairs)
        known = [name for name in DISTANCES if name in judgement.influences]
        known += [name for name, score in IMAGE_SCORES.items() if score.per_image.name in judgement.per_image]
        others = f", only {', '.join(known)} {'have' if len(known) > 1 else 'has'}" if known else ""
        raise ValueError(f"metric = {metric!r}: has no numbers for each image{others}")


def _slope(of_mean: Callable[[float], float], mean: float, metric: str) -> float:
    """Return the derivative of a score with respect to the mean over images, by a central difference."""
    step = 1e-5 * abs(mean)
    if step == 0 or not math.isfinite(of_mean(mean)):
        raise ValueError(f"metric = {metric!r}: has no influences, because no image has an error")
    return (of_mean(mean + step) - of_mean(mean - step)) / (2 * step)


@dataclass(frozen=True, eq=False)
class Setting:
    """Everything of a trial but its training seed, with the trainings of it that were judged.

    Attributes:
        name: Its name in sentences.
        trainings: The trainings in the order of their replicates. A look at r trainings uses the first r of them, so
            the order must not depend on their values.
        missing: Why the setting has no mean, for example "was pruned (1 of 5)". Such a setting stays in its family, but
            gets no verdict. "" for all others.
    """

    name: str
    trainings: tuple[Training, ...]
    missing: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "trainings", tuple(self.trainings))
        networks = [training.network for training in self.trainings]
        if twice := next((name for name in networks if networks.count(name) > 1), None):
            raise ValueError(
                f"setting {self.name}: the network {twice!r} is there twice, but each training counts once"
            )
        if bad := [training.seed for training in self.trainings if not math.isfinite(training.value)]:
            raise ValueError(f"setting {self.name}: the value of the training with seed {bad[0]} is not finite")

    @property
    def values(self) -> list[float]:
        """The values of its trainings."""
        return [training.value for training in self.trainings]

    def first(self, count: int) -> Setting:
        """Return the setting with its first `count` trainings."""
        return replace(self, trainings=self.trainings[:count])


@dataclass(frozen=True, eq=False)
class Panel:
    """All trainings of some settings, with the covariance of the images' part of their values.

    Attributes:
        values: (K,), all trainings of all settings.
        covariance: (K, K). The images' part of the variance of a weighted sum of values, with weights w, is w C w.
            The same images judge all trainings, so the covariances are large and differences are far more certain.
        rows: By setting, the places of its trainings.
        num_images: N.
    """

    settings: Mapping[str, Setting]
    values: Array
    covariance: Array
    rows: Mapping[str, tuple[int, ...]]
    num_images: int

    @classmethod
    def of(cls, settings: Iterable[Setting]) -> Panel:
        """Gather settings that were judged on the same images.

        Raises:
            ValueError: If two settings have the same name, or were judged on different images or references.
        """
        given = tuple(settings)
        names = [setting.name for setting in given]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"setting {twice}: two settings have this name")
        trainings = [training for setting in given for training in setting.trainings]
        _check_images(given)
        rows, start = {}, 0
        for setting in given:
            rows[setting.name] = tuple(range(start, start + len(setting.trainings)))
            start += len(setting.trainings)
        values = np.array([training.value for training in trainings], dtype=np.float64)
        if not trainings:
            return cls(dict(zip(names, given, strict=True)), values, np.zeros((0, 0)), rows, 0)
        return cls(
            dict(zip(names, given, strict=True)),
            values,
            _covariance(trainings),
            rows,
            len(trainings[0].influences),
        )

    def first(self, counts: Mapping[str, int]) -> Panel:
        """Return the panel with the first `counts` trainings of the named settings only, without new sums."""
        settings = {name: self.settings[name].first(count) for name, count in counts.items()}
        kept = [row for name, setting in settings.items() for row in self.rows[name][: len(setting.trainings)]]
        rows, start = {}, 0
        for name, setting in settings.items():
            rows[name] = tuple(range(start, start + len(setting.trainings)))
            start += len(setting.trainings)
        chosen = np.array(kept, dtype=int)
        return Panel(settings, self.values[chosen], self.covariance[np.ix_(chosen, chosen)], rows, self.num_images)


def _covariance(trainings: Sequence[Training]) -> Array:
    first = trainings[0]
    influences = torch.stack([training.influences.double() for training in trainings])
    of_reference = [t.reference_influences.double() for t in trainings if t.reference_influences is not None]
    stacked = torch.stack(of_reference) if of_reference else None
    return np.asarray(jackknife_covariance(influences, stacked, first.pairs).numpy(), dtype=np.float64)


def _check_images(settings: Sequence[Setting]) -> None:
    """Raise ValueError unless all trainings were judged on equally many images and references, paired alike."""

    def shape(training: Training) -> tuple[int, int | None]:
        reference = training.reference_influences
        return len(training.influences), None if reference is None else len(reference)

    shapes = [(setting.name, shape(training), training.pairs) for setting in settings for training in setting.trainings]
    for name, other, pairs in shapes[1:]:
        first_name, first, first_pairs = shapes[0]
        same = pairs is first_pairs or (
            pairs is not None and first_pairs is not None and torch.equal(pairs, first_pairs)
        )
        if other != first or not same:
            raise ValueError(
                f"settings {first_name} and {name} were judged on different images "
                f"(N, M = {first} and {other}): judge both under one protocol"
            )
