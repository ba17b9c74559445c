"""Gaussian blur (the paper's 4.1, 5.2, A.1) in closed form: D(x, t) = A_t x A_t^T."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from coldtune.config import parse
from coldtune.diffusion.degradations.base import DegradationConfig, Draw, check_image_shape
from coldtune.diffusion.degradations.gaussian import (
    Padding,
    eigenbasis,
    frequencies,
    largest_size,
    response,
    response_to,
    waves,
)
from coldtune.diffusion.degradations.separable import Separable
from coldtune.diffusion.schedules import SigmaConfig


class BlurConfig(DegradationConfig):
    """D(x, t) = G_t * ... * G_1 * x, with kernels G of `kernel_size` taps a side and standard deviation sigma_t.

    The weaker the end of a blur, the better every conditional FID. Compare only blurs of equal `leftover`.

    Attributes:
        kernel_size: Odd and at least 3. At most 2n+1 (circular) or 2n-1 (reflect) for the smaller image side n.
        padding: "circular" keeps the channel means exactly. "reflect" mirrors the image at its edge, without repeating
            the edge pixel, and moves the channel means a little.
        sigma: The standard deviation of each step's kernel, in pixels.
        collapse_final: Make D(x, T) the constant image of the channel means, as generation from a colour needs (5.2).
    """

    kind: Literal["blur"] = "blur"
    kernel_size: int = Field(ge=3, le=4095)
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

    def lengths(self) -> tuple[str, ...]:
        """Return the keys of lengths. The rate of an exponential schedule is a factor for each step."""
        return ("kernel_size", "sigma.start", *(["sigma.rate"] if self.sigma.schedule == "linear" else []))


class Blur(Separable):
    """Gaussian blur in closed form. Convolving t times instead would cost t n^2 k^2 multiply-adds.

    A_t is the product of t single steps along one axis. All steps share an eigenbasis V, so A_t = V diag(lambda_t)
    V^-1. lambda_t is the running product of the kernels' frequency responses, computed in float64.
    """

    config_type: ClassVar[type[DegradationConfig]] = BlurConfig
    config: BlurConfig

    def __init__(self, config: BlurConfig, image_shape: Sequence[int]) -> None:
        super().__init__(config, image_shape)
        _check_kernel_fits(config, self.image_shape)
        self._sigma = config.sigma.values(config.steps)

    @property
    def leftover(self) -> float:
        """The share of the slowest mode that survives D(., T). The function `leftover` of this module explains it."""
        return leftover(self.config, self.image_shape)

    def lost(self, t: int, draw: Draw | None = None) -> Tensor:
        """Return the share of white noise's energy, without its mean, that is blurred away.

        It is 1 minus the mean of the squared eigenvalues.
        """
        kept = [self._eigenvalues(n)[t] ** 2 for n in self.image_shape[1:]]
        energies = (kept[0][:, None] * kept[1]).flatten()[1:]
        if not len(energies) or (self.config.collapse_final and t == self.steps):
            return torch.tensor(float(t > 0), dtype=torch.float64)
        return 1 - energies.mean()

    def _eigenvalues(self, n: int) -> Tensor:
        """Return lambda_0..lambda_T of an axis of n pixels, the constant's eigenvalue first: float64 (T+1, n)."""
        single = response(self._sigma, self.config.kernel_size, frequencies(n, self.config.padding))
        return torch.cat((torch.ones(1, n, dtype=torch.float64, device="cpu"), single)).cumprod(dim=0)

    def _build(self, n: int) -> Tensor:
        basis, inverse = eigenbasis(n, self.config.padding)
        table = (basis * self._eigenvalues(n)[:, None]) @ inverse
        table[0] = torch.eye(n, dtype=torch.float64, device="cpu")
        if self.config.collapse_final:
            table[-1] = 1.0 / n
        return table


def leftover(config: BlurConfig | Mapping[str, Any], image_shape: Sequence[int]) -> float:
    """Return how much of the slowest mode survives the whole blur: the second-largest |eigenvalue| of A_T, 0..1.

    Two blurs of equal leftover end about equally hard, whatever their T, kernel, schedule and rate. Equal leftovers are
    the condition for comparing their FIDs.

    The value comes in closed form from the kernels' frequency response, in float64. If the image is not square, the
    longer side decides, because all modes of both axes count. With `collapse_final` the value is 0.
    """
    config = parse(BlurConfig, config, where="degradation")
    return 0.0 if config.collapse_final else math.exp(log_leftover(config, check_image_shape(image_shape)))


def log_leftover(config: BlurConfig, image_shape: tuple[int, int, int]) -> float:
    """Return the natural logarithm of the leftover of the single steps. `collapse_final` is ignored."""
    return log_leftover_by_start(config, image_shape)(config.sigma.start)


def log_leftover_by_start(config: BlurConfig, image_shape: tuple[int, int, int]) -> Callable[[float], float]:
    """Return `log_leftover` as a function of `sigma.start`, for a search that changes nothing else."""
    _check_kernel_fits(config, image_shape)
    # The first frequency belongs to the constant image, which survives as a whole.
    seen = [
        waves(config.kernel_size, frequencies(n, config.padding)[1:]) if n > 1 else None for n in set(image_shape[1:])
    ]

    def log_left(start: float) -> float:
        sigma = config.sigma.model_copy(update={"start": start}).values(config.steps)
        steps = [None if each is None else response_to(sigma, config.kernel_size, each) for each in seen]
        # An axis of a single pixel has no other frequency, so nothing of it is left.
        return max(-math.inf if each is None else float(each.abs().log().sum(dim=0).max()) for each in steps)

    return log_left


def _check_kernel_fits(config: BlurConfig, image_shape: tuple[int, int, int]) -> None:
    n = min(image_shape[1:])
    allowed = largest_size(n, config.padding)
    if config.kernel_size > allowed:
        raise ValueError(
            f"degradation.kernel_size = {config.kernel_size}: at most {allowed} for {config.padding} padding "
            f"of an image whose smaller side is {n} px"
        )
