"""The two number ranges of images: uint8 0..255 in files and for feature extractors, floats in [-1, 1] for networks."""

from __future__ import annotations

import torch


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 in [-1, 1]: x / 127.5 - 1. Raises ValueError for another dtype."""
    if images.dtype != torch.uint8:
        raise ValueError(f"to_float: dtype {images.dtype}; allowed: torch.uint8")
    return images.to(torch.float32).div_(127.5).sub_(1)


def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """Floats in [-1, 1] -> uint8: round((x + 1) * 127.5), clamped. Undoes `to_float` exactly."""
    return x.to(torch.float32).add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
