"""All metrics by name. To add a metric, describe it in its own file, then import it and add one line here."""

from __future__ import annotations

from coldtune.metrics.descriptors import Distance, ImageScore, PerImageScore
from coldtune.metrics.fid_infinity import FID_INFINITY
from coldtune.metrics.frechet import FID
from coldtune.metrics.image import PSNR, RMSE, SSIM
from coldtune.metrics.kid import KID
from coldtune.metrics.mind import MIND
from coldtune.metrics.precision_recall import PRECISION, RECALL

# Tables list the metrics in this order.
DISTANCES: dict[str, Distance] = {
    "fid": FID,
    "fid_infinity": FID_INFINITY,
    "kid": KID,
    "mind": MIND,
    "precision": PRECISION,
    "recall": RECALL,
}
IMAGE_SCORES: dict[str, ImageScore] = {
    "ssim": SSIM,
    "rmse": RMSE,
    "psnr": PSNR,
}


def higher_is_better(metric: str) -> bool:
    """Return True if larger values of the metric are better, and False for names outside the registry (`nfe`)."""
    found = DISTANCES.get(metric) or IMAGE_SCORES.get(metric)
    return found is not None and found.higher_is_better


def per_image_scores() -> dict[str, PerImageScore]:
    """Return the numbers that are stored for each restored image, by name."""
    return {score.per_image.name: score.per_image for score in IMAGE_SCORES.values()}


def label(metric: str) -> str:
    """Return the metric's name as sentences write it, for example "FID-INFINITY"."""
    return metric.upper().replace("_", "-")
