"""The truncated Gaussian kernel of a blur: its weights, the matrix that applies it along an axis, its spectrum."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Padding = Literal["circular", "reflect"]


def kernel_1d(sigma: Tensor, size: int) -> Tensor:
    """Normalised weights exp(-i^2 / 2 sigma^2), |i| <= (size-1)/2: float64 (T, size) for sigma (T,) in pixels.

    A size below about 6 sigma truncates: the blur is then weaker than sigma says (11 taps of sigma 7 act like 3.04).
    """
    offsets = torch.arange(size, dtype=torch.float64, device="cpu") - (size - 1) // 2
    weights = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def step_matrix(kernel: Tensor, n: int, padding: Padding) -> Tensor:
    """The (n, n) matrix that filters an axis of n pixels with `kernel` (size,) after padding it at both ends.

    circular wraps around; reflect mirrors at the edge pixel without repeating it, as in torch.nn.functional.pad.
    """
    radius = (len(kernel) - 1) // 2
    rows = torch.arange(n, device="cpu")[:, None]
    columns = rows + torch.arange(-radius, radius + 1, device="cpu")
    columns = columns % n if padding == "circular" else (n - 1) - (columns.abs() - (n - 1)).abs()
    matrix = torch.zeros(n, n, dtype=torch.float64, device="cpu")
    return matrix.scatter_add_(1, columns, kernel.expand(n, -1))


def largest_size(n: int, padding: Padding) -> int:
    """The largest odd kernel whose padding an axis of n pixels can supply: a radius of n wrapped, n - 1 mirrored."""
    return 2 * (n if padding == "circular" else n - 1) + 1


def log_survival(sigma: Tensor, size: int, n: int, padding: Padding) -> float:
    """Log of the second-largest |eigenvalue| of the product of all steps along an axis of n pixels; -inf where n = 1.

    All steps share one eigenbasis: cosines and sines of frequency 2 pi j / n where padding is circular, cosines of
    pi j / (n-1) where it reflects. A step's eigenvalue is its kernel's response there, sum_i g_i cos(i w); the largest
    of all is the constant image's, 1. A truncated kernel's response can be negative: its absolute value counts.
    """
    if n == 1:
        return -math.inf
    period, modes = (n, n // 2) if padding == "circular" else (2 * (n - 1), n - 1)
    offsets = torch.arange(size, dtype=torch.float64, device="cpu") - (size - 1) // 2
    frequency = torch.arange(1, modes + 1, dtype=torch.float64, device="cpu") * (2 * math.pi / period)
    response = kernel_1d(sigma, size) @ torch.cos(offsets[:, None] * frequency)
    return float(response.abs().log().sum(dim=0).max())
