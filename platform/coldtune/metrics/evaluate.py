"""All metrics of one set of images at once."""

from __future__ import annotations

import torch
from torch import Tensor

from coldtune.metrics.extractors import Extractor, batches
from coldtune.metrics.frechet import Reference, frechet_distance
from coldtune.metrics.image import ImageScores
from coldtune.metrics.moments import FeatureMoments, float64_device, to_float64


def image_set_metrics(
    images: Tensor,
    clean: Tensor | None,
    extractor: Extractor,
    reference: Reference,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """`fid` of uint8 images (N, C, H, W) against `reference`; `ssim`, `rmse`, `psnr` against `clean`, pair by pair.

    clean: the originals, uint8 (N, C, H, W) in the same order; None (generation: there are no pairs) leaves those three
    out. ssim is the mean over images; rmse in [0, 1] units and psnr in dB (infinite for equal sets) are those of the
    whole set. The result does not depend on batch_size; device is where batches are computed (None: where they lie).
    ValueError for other dtypes, unequal shapes, fewer than 2 images, or images smaller than SSIM's window.
    """
    if clean is not None and (clean.dtype != torch.uint8 or clean.shape != images.shape):
        raise ValueError(
            f"clean = {clean.dtype} {tuple(clean.shape)}: allowed is uint8 {tuple(images.shape)}, an original per image"
        )
    if len(images) < 2:
        raise ValueError(f"{len(images)} images: a distance between sets needs at least 2")
    sums = float64_device(torch.device(device) if device else images.device)
    moments, scores = FeatureMoments(extractor.dim, sums), ImageScores()
    start = 0
    for batch in batches(images, batch_size, device):
        moments.update(extractor(batch))
        if clean is not None:
            originals = clean[start : start + len(batch)].to(batch.device)
            scores.update(to_float64(batch) / 255, to_float64(originals) / 255)
        start += len(batch)
    metrics = {"fid": frechet_distance(reference, moments)}
    if clean is not None:
        metrics |= {"ssim": scores.ssim, "rmse": scores.rmse, "psnr": scores.psnr}
    return metrics
