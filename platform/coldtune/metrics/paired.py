"""Paired comparison of two runs on the same images and draws: which is better, by how much, and how sure is that?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from coldtune.metrics.intervals import LEVEL, RESAMPLES, Interval, jackknife_interval, resampled_means
from coldtune.metrics.judgement import Judgement
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.registry import DISTANCES, IMAGE_SCORES, higher_is_better, label, per_image_scores
from coldtune.metrics.values import check_same


@dataclass(frozen=True)
class Comparison:
    """The comparison of A with B by one metric under one protocol.

    Attributes:
        metric: The metric.
        a: The name of A.
        b: The name of B.
        difference: A - B with its 95 % interval.
        protocol: The protocol of both.
        score: The per-image score (`mse` or `ssim`) that p_value and wins refer to. None for generated images, because
            no such image has a score.
        p_value: The two-sided p-value of Wilcoxon's signed-rank test on that score, or None.
        wins: The number of images whose score is better for A, or None.
    """

    metric: str
    a: str
    b: str
    difference: Interval
    protocol: Protocol
    score: str | None = None
    p_value: float | None = None
    wins: int | None = None

    @property
    def better(self) -> str | None:
        """The name of the better run, or None if the interval contains 0."""
        if not self.difference.excludes_zero:
            return None
        return self.a if (self.difference.value > 0) == higher_is_better(self.metric) else self.b

    def __str__(self) -> str:
        """Return a sentence: `A is better than B: FID -1.4, 95 % CI [-1.9, -0.8], N = 10,000, same draws`."""
        n, least = self.protocol.num_images, 4 * self.protocol.dim
        value, low, high = rounded(self.difference)
        verdict = {
            self.a: f"{self.a} is better than {self.b}",
            self.b: f"{self.a} is worse than {self.b}",
            None: f"{self.a} and {self.b} cannot be told apart",
        }[self.better]
        text = f"{verdict}: {label(self.metric)} {value}, 95 % CI [{low}, {high}], N = {n:,}, same draws"
        if self.metric == "fid" and n < least:
            text += f" (N < 4 d = {least:,}: FID may prefer the over-smoothed one)"
        return text

    def per_image(self) -> str:
        """Return a sentence about the single images, or "" for generated images.

        For example `MSE is smaller for A on 6,012 of 10,000 images, Wilcoxon p = 2e-11`.
        """
        if self.p_value is None or self.score is None:
            return ""
        side = "larger" if per_image_scores()[self.score].higher_is_better else "smaller"
        share = f"{self.wins:,} of {self.protocol.num_images:,} images"
        return f"{self.score.upper()} is {side} for {self.a} on {share}, Wilcoxon p = {self.p_value:.1g}"


def compare(a: Judgement, b: Judgement, metric: str = "fid", names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Compare two sets of images, pairing image i of `a` with image i of `b`.

    Under one protocol both images come from the same original and the same draw. The difficulty of an image therefore
    cancels in the difference, and the interval is far narrower than two separate intervals. For a distance it is the
    interval of the differences of influences, those of the reference's images included. For an image score it is that
    of the means on the same resamples.

    As for a single value, the interval is about this N. FID's bias cancels only as far as it is the same for both,
    which it is not below N = 4 d. The interval is also that of a comparison planned beforehand. The best of many trials
    looks better than it is, so judge the chosen trial anew on the test split.

    Args:
        a: The judgement of A.
        b: The judgement of B.
        metric: A distance ("fid", "kid", "mind") or an image score ("ssim", "rmse", "psnr").
        names: The names of A and B in sentences.

    Returns:
        The difference A - B with its 95 % interval.

    Raises:
        ValueError: If the protocols differ (the message names the parts), a judgement lacks the metric, or the metric
            is infinite.
    """
    check_same([a.protocol, b.protocol])
    allowed = [name for name in (*DISTANCES, *IMAGE_SCORES) if _has(a, name) and _has(b, name)]
    if metric not in allowed:
        raise ValueError(f"metric = {metric!r}: both have intervals of {', '.join(allowed) or 'nothing'}")
    if metric in IMAGE_SCORES:
        score: str | None = IMAGE_SCORES[metric].per_image.name
        difference = _of_scores(a, b, metric)
    else:
        score = "mse" if "mse" in a.per_image and "mse" in b.per_image else None
        value = a.values[metric] - b.values[metric]
        of_reference = pairs = None
        if metric in a.reference_influences and metric in b.reference_influences:
            of_reference = a.reference_influences[metric] - b.reference_influences[metric]
            pairs = a.protocol.pairs()
        difference = jackknife_interval(value, a.influences[metric] - b.influences[metric], of_reference, pairs)
    if score is None:
        return Comparison(metric, *names, difference, a.protocol)
    x, y = a.per_image[score], b.per_image[score]
    wins = int(((x > y) if per_image_scores()[score].higher_is_better else (x < y)).sum())
    return Comparison(metric, *names, difference, a.protocol, score, wilcoxon(x, y), wins)


def wilcoxon(x: Tensor, y: Tensor) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test on pairs (N,).

    The test asks whether the difference is symmetric about 0. It ignores pairs without a difference, and returns 1 if
    no pair differs.

    Raises:
        ValueError: If the shapes differ.
    """
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"losses {tuple(x.shape)} and {tuple(y.shape)}: allowed are two equal shapes (N,)")
    if torch.equal(x, y):
        return 1.0
    from scipy import stats

    return float(stats.wilcoxon((x - y).cpu().numpy()).pvalue)


def _has(judgement: Judgement, metric: str) -> bool:
    score = IMAGE_SCORES.get(metric)
    return metric in judgement.influences or (score is not None and score.per_image.name in judgement.per_image)


def _of_scores(a: Judgement, b: Judgement, metric: str) -> Interval:
    """Return the difference of an image score, with a bootstrap interval that resamples pairs."""
    seed, score = a.protocol.seed, IMAGE_SCORES[metric]
    per_image = score.per_image.name
    value = a.values[metric] - b.values[metric]
    if not math.isfinite(value):
        raise ValueError(f"metric = {metric!r}: infinite for images without any error; compare by rmse")
    means = [resampled_means(judgement.per_image[per_image], seed, RESAMPLES).tolist() for judgement in (a, b)]
    samples = [score.of_mean(x) - score.of_mean(y) for x, y in zip(*means, strict=True)]
    if not all(map(math.isfinite, samples)):
        raise ValueError(
            f"metric = {metric!r}: infinite in resamples without the few images that have an error; compare by rmse"
        )
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = torch.quantile(torch.tensor(samples, dtype=torch.float64), tails).tolist()
    return Interval(value, low, high)


def rounded(interval: Interval) -> tuple[str, str, str]:
    """Round value, low and high to the first or second digit of the half width.

    A bound that excludes 0 is not shown as 0, because the verdict rests on it.
    """
    half = (interval.high - interval.low) / 2
    if half == 0:
        return f"{interval.value:.3g}", f"{interval.low:.3g}", f"{interval.high:.3g}"
    decimals = max(-math.floor(math.log10(half / 2)), 0)
    while interval.excludes_zero and 0 in (round(interval.low, decimals), round(interval.high, decimals)):
        decimals += 1
    value, low, high = (
        f"{round(x, decimals) + 0.0:,.{decimals}f}" for x in (interval.value, interval.low, interval.high)
    )
    return value, low, high
