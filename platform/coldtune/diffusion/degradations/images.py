"""Checks and conversions of whole sets of images, as datasets store them."""

from __future__ import annotations

import torch
from torch import Tensor


def check_images_of(name: str, images: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless `images` is uint8 or floating (N, *image_shape) with N >= 1."""
    if images.ndim != 4 or tuple(images.shape[1:]) != image_shape or not len(images):
        raise ValueError(f"{name}: images of shape {tuple(images.shape)}: must be (N, *{image_shape}), N at least 1")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"{name}: images of dtype {images.dtype}: must be uint8, or floating in [-1, 1]")


def to_range(images: Tensor) -> Tensor:
    """Convert uint8 images to float32 in [-1, 1] (x / 127.5 - 1). Floating images only change to float32."""
    numbers = images.to(torch.float32)
    return numbers / 127.5 - 1 if images.dtype == torch.uint8 else numbers
