"""Two runs on the same images and seeds: is one better, by how much, and how sure is that?"""

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
    """A against B by one metric under one protocol.

    difference: A - B with its 95 % interval. p_value: two-sided, of Wilcoxon's signed-rank test on the per-image
    `score` (`mse` or `ssim`), None for generation, where no image has a loss of its own. wins: on how many images A's
    score is the better one.
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
        """The name of the better one; None where the interval holds 0."""
        if not self.difference.excludes_zero:
            return None
        return self.a if (self.difference.value > 0) == higher_is_better(self.metric) else self.b

    def __str__(self) -> str:
        """As a sentence: `A is better than B: FID -1.4, 95 % CI [-1.9, -0.8], N = 10,000, same seeds`."""
        n, least = self.protocol.num_images, 4 * self.protocol.dim
        value, low, high = _rounded(self.difference)
        verdict = {
            self.a: f"{self.a} is better than {self.b}",
            self.b: f"{self.a} is worse than {self.b}",
            None: f"{self.a} and {self.b} cannot be told apart",
        }[self.better]
        text = f"{verdict}: {label(self.metric)} {value}, 95 % CI [{low}, {high}], N = {n:,}, same seeds"
        if self.metric == "fid" and n < least:
            text += f" (N < 4 d = {least:,}: FID may prefer the over-smoothed one)"
        return text

    def per_image(self) -> str:
        """What the images say one by one; empty for generation.

        `MSE is smaller for A on 6,012 of 10,000 images, Wilcoxon p = 2e-11`.
        """
        if self.p_value is None or self.score is None:
            return ""
        side = "larger" if per_image_scores()[self.score].higher_is_better else "smaller"
        share = f"{self.wins:,} of {self.protocol.num_images:,} images"
        return f"{self.score.upper()} is {side} for {self.a} on {share}, Wilcoxon p = {self.p_value:.1g}"


def compare(a: Judgement, b: Judgement, metric: str = "fid", names: tuple[str, str] = ("A", "B")) -> Comparison:
    """A - B by `metric` (a distance, `ssim`, `rmse` or `psnr`), paired image by image.

    Under one protocol image i of A and image i of B come from the same original and the same draw, so what makes an
    image hard cancels in the difference: the interval is that of the differences of influences (of distances) or of
    means on the same resamples (of scores), far narrower than two intervals side by side. As for one value, it is
    about this N: FID's bias cancels only as far as it is the same for both, which below N = 4 d it is not.
    The interval is that of one comparison planned beforehand: the best of many trials looks better than it is, so
    judge the chosen one anew (on the test split).
    ValueError for unequal protocols, naming what differs, and for a metric that one of them lacks or that is infinite.
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
        difference = jackknife_interval(value, a.influences[metric] - b.influences[metric])
    if score is None:
        return Comparison(metric, *names, difference, a.protocol)
    x, y = a.per_image[score], b.per_image[score]
    wins = int(((x > y) if per_image_scores()[score].higher_is_better else (x < y)).sum())
    return Comparison(metric, *names, difference, a.protocol, score, wilcoxon(x, y), wins)


def wilcoxon(x: Tensor, y: Tensor) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test on pairs (N,): is the difference symmetric about 0?

    Pairs without a difference are left out; 1 where none has one. ValueError for unequal shapes.
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
    """Difference of a score of the sets, by a bootstrap that resamples pairs."""
    seed, score = a.protocol.seed, IMAGE_SCORES[metric]
    per_image = score.per_image.name
    value = a.values[metric] - b.values[metric]
    if not math.isfinite(value):
        raise ValueError(f"metric = {metric!r}: infinite for images without any error; compare by rmse")
    means = [resampled_means(judgement.per_image[per_image], seed, RESAMPLES).tolist() for judgement in (a, b)]
    samples = [score.of_mean(x) - score.of_mean(y) for x, y in zip(*means, strict=True)]
    if not all(map(math.isfinite, samples)):
        raise ValueError(f"metric = {metric!r}: infinite wherever the few images with an error are left out; take rmse")
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = torch.quantile(torch.tensor(samples, dtype=torch.float64), tails).tolist()
    return Interval(value, low, high)


def _rounded(interval: Interval) -> tuple[str, str, str]:
    """Value, low and high to the first or second digit of the half width; a bound that excludes 0 is not shown as 0."""
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
