"""Conversion between the two ranges of pixel values.

Files and feature extractors use uint8 in 0..255, networks use floats in [-1, 1].
"""

from __future__ import annotations

import torch


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 in 0..255 to float32 in [-1, 1], as x / 127.5 - 1. Raises ValueError for another type."""
    if images.dtype != torch.uint8:
        raise ValueError(f"to_float: dtype {images.dtype}; allowed: torch.uint8")
    return images.to(torch.float32).div_(127.5).sub_(1)


def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """Convert floats in [-1, 1] to uint8, as round((x + 1) * 127.5), clamped. It inverts `to_float` exactly."""
    return x.to(torch.float32).add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
