"""Which uncertainty to reduce: the split of a metric's variance, and what more trainings or more images would bring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from coldtune.metrics.registry import label
from coldtune.verdicts.estimate import Difference, own_image_variance
from coldtune.verdicts.trainings import Panel, Setting
from coldtune.verdicts.verdict import Outcome, Verdict

Name = TypeVar("Name")


@dataclass(frozen=True)
class Split:
    """The variance of a metric of a trained network, by its source.

    Attributes:
        training: The variance between trainings, without the images' part. None if no setting has two trainings.
        images: The variance over images. It contains the draws, unless `draws` is known.
        draws: The variance over the draws of degradation, sampling and judging. None unless networks were judged
            under at least two protocol seeds.
        trainings: The number of trained networks behind it. Settings that differ in the sampler only share them.
        settings: The number of settings with two or more trainings. Their variances are averaged.
        seeds: The number of protocol seeds behind `draws`. All networks share the draws of a seed, so more networks
            make `draws` hardly more certain.
    """

    training: float | None
    images: float
    draws: float | None
    trainings: int
    settings: int
    seeds: int = 1

    def sentence(self, metric: str) -> str:
        """Return the split in plain English, for example "FID varies by ±0.21 (sd) between trainings, ..."."""
        name = label(metric.rpartition("/")[2])
        parts = [] if self.training is None else [f"{self.training**0.5:.2g} between trainings"]
        parts.append(f"{self.images**0.5:.2g} over images{'' if self.draws is not None else ' and their draws'}")
        parts += [] if self.draws is None else [f"{self.draws**0.5:.2g} over draws"]
        seeds = "" if self.draws is None else f", {self.seeds} protocol seeds"
        trainings = f"{self.trainings} training{'s' * (self.trainings != 1)}"
        return f"{name} of a trained network varies (sd) by {', by '.join(parts)} ({trainings}{seeds})."


@dataclass(frozen=True)
class SettingVariance:
    """The contribution of a setting to the split of a metric's variance.

    Attributes:
        training: The variance between its trainings, without the images' part. It may be negative by chance. None with
            fewer than two trainings.
        images: The variance over images of each training.
        values: The value of each training under every protocol seed.
        networks: What names the trained network of each training.
    """

    training: float | None
    images: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    networks: tuple[str, ...]

    @classmethod
    def of(cls, setting: Setting) -> SettingVariance:
        """Return the contribution of a setting."""
        panel = Panel.of([setting])
        several = len(panel.values) > 1
        training = float(panel.values.var(ddof=1)) - own_image_variance(panel.covariance) if several else None
        values = tuple((each.value, *each.again) for each in setting.trainings)
        networks = tuple(each.network for each in setting.trainings)
        return cls(training, tuple(map(float, np.diag(panel.covariance))), values, networks)


def split_variance(settings: Iterable[Setting]) -> Split:
    """Split the variance of a metric into training, images and draws.

    Args:
        settings: The settings, all under the same protocol.

    Raises:
        ValueError: If there is no training.
    """
    return combine_variances(map(SettingVariance.of, settings))


def combine_variances(found: Iterable[SettingVariance]) -> Split:
    """Combine the contributions of settings to a split.

    Each image has draws of its own, so the variance over images that one judgement shows contains that over draws. The
    draws' part is what varies between protocol seeds if the network and the images stay the same.

    Raises:
        ValueError: If there is no training.
    """
    parts = tuple(found)
    images = [variance for part in parts for variance in part.images]
    if not images:
        raise ValueError("no training: a variance needs at least one judged training")
    between = [part.training for part in parts if part.training is not None]
    values = [under for part in parts for under in part.values]
    seeds = max(map(len, values))
    # An imported training may have fewer values than the others.
    drawn = np.array([under for under in values if len(under) == seeds])
    draws = float(drawn.var(axis=1, ddof=1).mean()) if seeds > 1 else None
    return Split(
        training=max(float(np.mean(between)), 0.0) if between else None,
        images=max(float(np.mean(images)) - (draws or 0.0), 0.0),
        draws=draws,
        trainings=len({network for part in parts for network in part.networks}),
        settings=len(between),
        seeds=seeds,
    )


def describe_others(splits: Mapping[str, Split]) -> str:
    """Return the splits of further metrics in a sentence, "" if there are none.

    Args:
        splits: By metric. All of them come from the same trainings, so they have the same sources.
    """
    if not splits:
        return ""
    drawn = any(split.draws is not None for split in splits.values())
    sources = "by training, by images and by draws" if drawn else "by training, and by images with their draws"
    shown = []
    for metric, split in splits.items():
        parts = (split.training, split.images, *((split.draws,) if drawn else ()))
        *first, last = ("unknown" if part is None else f"{part**0.5:.2g}" for part in parts)
        shown.append(f"{label(metric)} {', '.join(first)} and {last}")
    return f"The other metrics vary (sd) {sources}: {', '.join(shown)}."


def narrowing_by_trainings(
    difference: Difference, more: int, alpha: float = 0.05, later_alpha: float | None = None
) -> float:
    """Return the share by which `more` trainings of each setting are expected to narrow the interval, 0..1.

    Args:
        later_alpha: The level of the interval with these trainings. It is smaller than `alpha` if they are a further
            look. None: the level stays.
    """
    parts = tuple(replace(part, count=part.count + more) for part in difference.parts)
    return _narrowing(difference, replace(difference, parts=parts), alpha, later_alpha)


def narrowing_by_images(difference: Difference, factor: float, alpha: float = 0.05) -> float:
    """Return the share by which `factor` times the images are expected to narrow the interval, 0..1."""
    own = max(difference.network_variance - difference.image_variance, 0.0)
    left = {part: (part.variance or 0.0) / part.count for part in difference.parts}
    total = sum(left.values())
    parts = tuple(
        # The networks' own part of the images' variance is inside the variance between trainings.
        replace(part, variance=max(value - own * (1 - 1 / factor) * value / total, 0.0) * part.count) if total else part
        for part, value in left.items()
    )
    fewer = replace(difference, parts=parts, image_variance=difference.image_variance / factor)
    return _narrowing(difference, fewer, alpha)


def _narrowing(before: Difference, after: Difference, alpha: float, later_alpha: float | None = None) -> float:
    width = before.half_width(alpha)
    return max(1 - after.half_width(later_alpha or alpha) / width, 0.0) if width else 0.0


def advise(verdict: Verdict, num_images: int, split_size: int, later: Mapping[int, float] | None = None) -> str:
    """Return which to buy to decide an undecided comparison: trainings, or images as far as the split has any.

    Only what narrows the interval by at least 1 % is advised. Otherwise the sentence says that it does not help.

    Args:
        num_images: The images that were judged.
        split_size: The images of the split.
        later: The numbers of further trainings of each setting to speak of, ascending, with the level of the interval
            that they would have. A further look leaves less of the error, so its interval is wider. The first number
            that helps is advised. None: 3 trainings, and no further look.

    Returns:
        A sentence or two, or "" if the verdict needs no more of either.
    """
    difference = verdict.difference
    if difference is None or difference.error == 0 or verdict.outcome not in (Outcome.UNDECIDED, Outcome.TOO_FEW):
        return ""
    levels = later or {3: verdict.alpha}
    gains = {more: narrowing_by_trainings(difference, more, verdict.alpha, level) for more, level in levels.items()}
    more = next((more for more, gain in gains.items() if _helps(gain)), min(gains))
    by_trainings, trainings = gains[more], f"{more} more training{'s' * (more > 1)} of each"
    by_images = 0.0
    if num_images < split_size:
        by_images = narrowing_by_images(difference, split_size / num_images, verdict.alpha)
    images = f"all {split_size:,} images of the split instead of {num_images:,}"
    if _helps(by_trainings):
        said = [f"{trainings} would narrow this interval by about {100 * by_trainings:.0f} %."]
        if _helps(by_images):
            said.append(f"Judging {images} would narrow it by about {100 * by_images:.0f} %.")
            if by_images > by_trainings:
                said.reverse()
        elif num_images < split_size:
            said.append("More images would hardly narrow it, because nearly all of it is due to the trainings.")
        elif difference.image_variance > difference.training_variance:
            said.append("Most of the rest is due to the images, and all images of the split are judged already.")
        return " ".join(said)
    if _helps(by_images):
        return (
            f"Judging {images} would narrow this interval by about {100 * by_images:.0f} %. {trainings} would hardly "
            "narrow it."
        )
    if num_images < split_size:
        return f"{trainings} would hardly narrow this interval, nor would {images}."
    return f"{trainings} would hardly narrow this interval, and all images of the split are judged already."


def _helps(narrowing: float) -> bool:
    """Return True if a narrowing is at least 1 % when it is rounded."""
    return round(100 * narrowing) >= 1


def holm(p_values: Mapping[Name, float], to_come: int = 0) -> dict[Name, float]:
    """Return p-values adjusted by Holm (1979), for tables. Verdicts do not use them.

    Args:
        to_come: How many further comparisons there will be, which count as p-values of 1.
    """
    adjusted: dict[Name, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min((len(p_values) + to_come - rank) * p, 1.0))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
