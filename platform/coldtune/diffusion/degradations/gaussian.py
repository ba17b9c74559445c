"""The truncated Gaussian kernel of a blur: its weights, its spectrum, and the basis in which it is diagonal."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Padding = Literal["circular", "reflect"]


def kernel_1d(sigma: Tensor, size: int) -> Tensor:
    """Return the normalised weights exp(-i^2 / 2 sigma^2) for |i| <= (size-1)/2.

    A size below about 6 sigma truncates the kernel, and the blur is then weaker than sigma says. For example, 11 taps
    of sigma 7 blur like sigma 3.04.

    Args:
        sigma: (T,), in pixels.
        size: The number of taps, odd.

    Returns:
        float64 (T, size).
    """
    weights = torch.exp(-0.5 * (_offsets(size) / sigma[:, None]) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def response(sigma: Tensor, size: int, frequency: Tensor) -> Tensor:
    """Return the kernels' frequency responses sum_i g_i cos(i w).

    The response is 1 at w = 0. It is negative at some high frequencies if the kernel is truncated.

    Args:
        sigma: (T,), in pixels.
        size: The number of taps, odd.
        frequency: w, (F,), in radians per pixel.

    Returns:
        float64 (T, F).
    """
    return response_to(sigma, size, waves(size, frequency))


def waves(size: int, frequency: Tensor) -> Tensor:
    """Return cos(i w) for the taps i of a kernel and the frequencies w, (F,): float64 (size, F)."""
    return torch.cos(_offsets(size)[:, None] * frequency)


def response_to(sigma: Tensor, size: int, seen: Tensor) -> Tensor:
    """Return the kernels' `response` to `waves`, which many sigmas can share."""
    return kernel_1d(sigma, size) @ seen


def frequencies(n: int, padding: Padding) -> Tensor:
    """Return the frequencies w_j of the eigenbasis for j = 0..n-1, in radians per pixel: float64 (n,).

    The first frequency is the constant's, 0.
    """
    return torch.arange(n, dtype=torch.float64, device="cpu") * (2 * math.pi / _period(n, padding))


def eigenbasis(n: int, padding: Padding) -> tuple[Tensor, Tensor]:
    """Return the basis V in which filtering an axis of n padded pixels with any symmetric kernel is diagonal.

    For circular padding, V is cos + sin of w_j i with w_j = 2 pi j / n (Hartley's basis). For reflect padding, which
    mirrors at the edge pixel without repeating it, V is cos of w_j i with w_j = pi j / (n-1). That is the cosine
    transform of type I, and it needs n >= 2.

    Returns:
        V with the eigenvectors in its columns, and V^-1. Both are float64 (n, n). The matrix of a filter is V
        diag(response(w)) V^-1.
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
    """Return the largest odd kernel whose padding an axis of n pixels can supply.

    Its radius is n if the padding wraps around, and n - 1 if the padding mirrors.
    """
    return 2 * (n if padding == "circular" else n - 1) + 1


def _period(n: int, padding: Padding) -> int:
    """Return the number of pixels after which the padded axis repeats."""
    return n if padding == "circular" else 2 * (n - 1)


def _offsets(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64, device="cpu") - (size - 1) // 2
