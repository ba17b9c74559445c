"""Gaussian blur (the paper's 4.1, 5.2, A.1) in closed form: D(x, t) = A_t x A_t^T."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from coldtune.config import parse
from coldtune.diffusion.degradations.base import (
    Degradation,
    DegradationConfig,
    Draw,
    check_image_shape,
    computing_dtype,
)
from coldtune.diffusion.degradations.gaussian import Padding, eigenbasis, frequencies, largest_size, response
from coldtune.diffusion.schedules import SigmaConfig


class BlurConfig(DegradationConfig):
    """D(x, t) = G_t * ... * G_1 * x with kernels G of `kernel_size` taps a side and standard deviation sigma_t.

    kernel_size: odd, at least 3; at most 2n+1 (circular) or 2n-1 (reflect) for the smaller image side n.
    padding: circular keeps the channel means exactly; reflect (the edge not repeated) moves them a little.
    collapse_final: D(x, T) is the channel means' constant image, as generation from a colour needs (5.2).
    The weaker the end, the better every conditional FID: compare blurs of equal `leftover` only.
    """

    kind: Literal["blur"] = "blur"
    kernel_size: int = Field(ge=3)
    padding: Padding
    sigma: SigmaConfig
    collapse_final: bool = False

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the kernel has a centre")
        return value

    @model_validator(mode="after")
    def _every_sigma_is_positive(self) -> BlurConfig:
        self.sigma.values(self.steps)
        return self


class Blur(Degradation):
    """Blur at the same cost for every t: a gather from a table of matrices and two batched matrix products.

    A_t is the product of t single steps along one axis. All steps share an eigenbasis V, so A_t = V diag(lambda_t) V^-1
    with lambda_t the running product of the kernels' frequency responses, in float64. The table of A_t is made at
    first use, once for each device and precision, and takes (T+1) n^2 numbers for each different side n: in float32
    0.2 MB for T = 50 at 32 px, 20 MB for T = 300 at 128 px (four times that again while it is made). An image costs
    2 n^3 multiply-adds a channel, against t n^2 k^2 of convolving t times.
    """

    config_type: ClassVar[type[DegradationConfig]] = BlurConfig
    config: BlurConfig

    def __init__(self, config: BlurConfig, image_shape: Sequence[int]) -> None:
        super().__init__(config, image_shape)
        _check_kernel_fits(config, self.image_shape)
        self._sigma = config.sigma.values(config.steps)
        self._tables: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}

    @property
    def leftover(self) -> float:
        """How much of the slowest mode survives D(., T): see `leftover` of this module."""
        return leftover(self.config, self.image_shape)

    def matrices(self, n: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """A_0..A_T for an axis of n pixels: (T+1, n, n), A_0 the identity. Kept; not to be written to."""
        key = n, torch.device(device), dtype
        if key not in self._tables:
            # Made under inference_mode, a table could never take part in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                self._tables[key] = self._build(n).to(device=device, dtype=dtype)
        return self._tables[key]

    def _degrade(self, x0: Tensor, t: int | Tensor, draw: Draw | None) -> Tensor:
        dtype = computing_dtype(x0.dtype)
        batch, channels, height, width = x0.shape
        with torch.autocast(x0.device.type, enabled=False):
            x = x0.to(dtype)
            # The product along rows takes all channels of an image at once, without copies of its matrix.
            x = (x.reshape(batch, channels * height, width) @ self._at(width, t, x).mT).reshape(x.shape)
            return (self._at(height, t, x).unsqueeze(-3) @ x).to(x0.dtype)

    def _at(self, n: int, t: int | Tensor, x: Tensor) -> Tensor:
        """A_t: (n, n) for an int, (B, n, n) for a tensor."""
        table = self.matrices(n, x.device, x.dtype)
        return table[t] if isinstance(t, int) else table.index_select(0, t)

    def _build(self, n: int) -> Tensor:
        basis, inverse = eigenbasis(n, self.config.padding)
        frequency = frequencies(n, self.config.padding)
        eigenvalues = response(self._sigma, self.config.kernel_size, frequency).cumprod(dim=0)
        identity = torch.eye(n, dtype=torch.float64, device="cpu")[None]
        table = torch.cat((identity, (basis * eigenvalues[:, None]) @ inverse))
        if self.config.collapse_final:
            table[-1] = 1.0 / n
        return table


def leftover(config: BlurConfig | Mapping[str, Any], image_shape: Sequence[int]) -> float:
    """How much of the slowest mode survives the whole blur: the second-largest |eigenvalue| of A_T, 0..1.

    In closed form from the kernels' frequency response, in float64; of an image that is not square, its longer side's
    (all modes of both axes count). 0 with collapse_final. Two blurs of equal leftover end about equally hard, whatever
    their T, kernel, schedule and rate: the condition for comparing their FIDs.
    """
    config = parse(BlurConfig, config, where="degradation")
    return 0.0 if config.collapse_final else math.exp(log_leftover(config, check_image_shape(image_shape)))


def log_leftover(config: BlurConfig, image_shape: tuple[int, int, int]) -> float:
    """Natural logarithm of what survives the path of single steps (collapse_final left aside)."""
    _check_kernel_fits(config, image_shape)
    return max(_log_survival(config, n) for n in set(image_shape[1:]))


def _log_survival(config: BlurConfig, n: int) -> float:
    """Of one axis of n pixels. The first frequency is the constant image's, which survives whole."""
    if n == 1:
        return -math.inf
    sigma = config.sigma.values(config.steps)
    steps = response(sigma, config.kernel_size, frequencies(n, config.padding)[1:])
    return float(steps.abs().log().sum(dim=0).max())


def _check_kernel_fits(config: BlurConfig, image_shape: tuple[int, int, int]) -> None:
    n = min(image_shape[1:])
    allowed = largest_size(n, config.padding)
    if config.kernel_size > allowed:
        raise ValueError(
            f"degradation.kernel_size = {config.kernel_size}: at most {allowed} for {config.padding} padding "
            f"of an image whose smaller side is {n} px"
        )
