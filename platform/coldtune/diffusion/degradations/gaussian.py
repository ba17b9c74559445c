"""The truncated Gaussian kernel of a blur: its weights, its spectrum, the basis in which it is diagonal."""

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
    weights = torch.exp(-0.5 * (_offsets(size) / sigma[:, None]) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def response(sigma: Tensor, size: int, frequency: Tensor) -> Tensor:
    """The kernels' frequency responses sum_i g_i cos(i w): float64 (T, F) for sigma (T,), w (F,) in radians a pixel.

    1 at w = 0; negative at some high frequencies where the kernel is truncated.
    """
    return kernel_1d(sigma, size) @ torch.cos(_offsets(size)[:, None] * frequency)


def frequencies(n: int, padding: Padding) -> Tensor:
    """The frequencies w_j, j = 0..n-1, of the eigenbasis, in radians a pixel: float64 (n,), the constant's 0 first."""
    return torch.arange(n, dtype=torch.float64, device="cpu") * (2 * math.pi / _period(n, padding))


def eigenbasis(n: int, padding: Padding) -> tuple[Tensor, Tensor]:
    """The basis V in which filtering an axis of n padded pixels with any symmetric kernel is diagonal.

    Returns V, eigenvectors in columns, and V^-1, both float64 (n, n): the filter's matrix is V diag(response(w)) V^-1.
    circular wraps around: V is cos + sin of w_j i, w_j = 2 pi j / n (Hartley's basis). reflect mirrors at the edge
    pixel without repeating it: V is cos of w_j i, w_j = pi j / (n-1) (the cosine transform of type I; n >= 2).
    """
    period = _period(n, padding)
    index = torch.arange(n, dtype=torch.int64, device="cpu")
    angle = (index[:, None] * index % period).to(torch.float64) * (2 * math.pi / period)
    if padding == "circular":
        basis = torch.cos(angle) + torch.sin(angle)
        return basis, basis / n
    basis = torch.cos(angle)
    weight = torch.ones(n, dtype=torch.float64, device="cpu")
    weight[0] = weight[-1] = 0.5
    return basis, basis * weight[:, None] * weight * (2 / (n - 1))


def largest_size(n: int, padding: Padding) -> int:
    """The largest odd kernel whose padding an axis of n pixels can supply: a radius of n wrapped, n - 1 mirrored."""
    return 2 * (n if padding == "circular" else n - 1) + 1


def _period(n: int, padding: Padding) -> int:
    """After how many pixels the padded axis repeats."""
    return n if padding == "circular" else 2 * (n - 1)


def _offsets(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64, device="cpu") - (size - 1) // 2
