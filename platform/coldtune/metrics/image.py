"""Comparison of image pairs in [0, 1] units: SSIM, PSNR, RMSE. Float64, so that the batch size changes no digit."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from coldtune.metrics.descriptors import ImageScore, PerImageScore
from coldtune.metrics.moments import to_float64

# The constants of Wang et al. (2004).
WINDOW = 11  # pixels
SIGMA = 1.5  # pixels
K1, K2 = 0.01, 0.03


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the structural similarity (Wang et al., 2004) of each pair: (B,), float64, 1 for equal images.

    It takes an 11x11 Gaussian window of standard deviation 1.5, only windows inside the image, data range 1, and the
    mean over windows and channels.

    Args:
        a: Images (B, C, H, W) in [0, 1].
        b: Images of the same shape and range.

    Raises:
        ValueError: If the images are smaller than 11 pixels, differ in shape, or are not finite in [0, 1].
    """
    a, b = _pair(a, b)
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(
            f"SSIM needs images of at least {WINDOW} pixels, its window; got {a.shape[-2]}x{a.shape[-1]}: raise "
            f"data.image_size, or judge by RMSE and PSNR"
        )
    mean_a, mean_b = _windows(a), _windows(b)
    var_a = _windows(a * a) - mean_a**2
    var_b = _windows(b * b) - mean_b**2
    covariance = _windows(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    structure = (2 * covariance + K2**2) / (var_a + var_b + K2**2)
    return (luminance * structure).mean((1, 2, 3))


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared error of each pair, float64 (B,), for images (B, C, H, W) in [0, 1]."""
    a, b = _pair(a, b)
    return ((a - b) ** 2).mean((1, 2, 3))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal to noise ratio of each pair in dB, 10 log10(1 / mse), float64 (B,). Equal images: inf."""
    return -10 * mse(a, b).log10()


def rmse(a: Tensor, b: Tensor) -> float:
    """Return the root of the mean squared error over all images, channels and pixels, as in the paper's tables."""
    return float(mse(a, b).mean().sqrt())


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float64, after checking that the shapes (B, C, H, W) are equal and the values finite in [0, 1]."""
    if a.shape != b.shape or a.ndim != 4 or len(a) == 0:
        raise ValueError(
            f"images {tuple(a.shape)} and {tuple(b.shape)}: allowed are two equal shapes (B, C, H, W), B >= 1"
        )
    for name, images in (("first", a), ("second", b)):
        if not images.is_floating_point():
            raise ValueError(f"{name} images = {images.dtype}: allowed are floating tensors in [0, 1]")
        if bad := int((~torch.isfinite(images)).flatten(1).any(1).sum()):
            raise ValueError(f"{bad} of {len(images)} {name} images hold NaN or infinity")
        low, high = float(images.min()), float(images.max())
        if low < -1e-6 or high > 1 + 1e-6:
            raise ValueError(f"{name} images lie in [{low:.4g}, {high:.4g}]: allowed is [0, 1]")
    return to_float64(a), to_float64(b)


def _windows(x: Tensor) -> Tensor:
    """Return the Gaussian-weighted mean of every 11x11 window inside x: (B, C, H, W) -> (B, C, H-10, W-10)."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    planes = x.flatten(0, 1)[:, None]
    planes = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return planes.view(*x.shape[:2], *planes.shape[-2:])


def _decibels(error: float) -> float:
    """Return the PSNR of a set from its mean squared error: infinite for equal sets.

    The mean of the images' PSNRs would be infinite as soon as one image is restored exactly.
    """
    return -10 * math.log10(error) if error > 0 else math.inf


_SSIM = PerImageScore("ssim", ssim, higher_is_better=True)
_MSE = PerImageScore("mse", mse)

SSIM = ImageScore(_SSIM, of_mean=lambda mean: mean, higher_is_better=True)
RMSE = ImageScore(_MSE, of_mean=math.sqrt)
PSNR = ImageScore(_MSE, of_mean=_decibels, higher_is_better=True)
