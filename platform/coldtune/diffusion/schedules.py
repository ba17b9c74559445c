"""Schedules: how strong each step of a degradation is."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from coldtune.config import Config


class SigmaConfig(Config):
    """The standard deviation, in pixels, of the Gaussian kernel that step t = 1..T adds.

    The paper: MNIST constant 7, CIFAR-10 linear 0.36 + 0.01 (t-1), CelebA exponential with start 1 and rate 0.01 (A.1,
    5.2).

    Attributes:
        schedule: "constant" is start. "linear" is start + rate (t-1). "exponential" is start exp(rate (t-1)).
        start: The standard deviation of step 1.
        rate: A larger rate takes most of the information in the last steps. It has no default, because a default of 0
            would make the schedule constant without a word. Leave it out for "constant".
    """

    schedule: Literal["constant", "linear", "exponential"]
    start: float = Field(gt=0)
    rate: float | None = None

    @model_validator(mode="after")
    def _rate_where_it_means_something(self) -> Self:
        if self.schedule == "constant" and self.rate:
            raise ValueError(f"rate = {self.rate}: must be left out, because a constant schedule has no rate")
        if self.schedule != "constant" and self.rate is None:
            raise ValueError(f"rate: required by the {self.schedule} schedule")
        return self

    def values(self, steps: int) -> Tensor:
        """Return sigma_t for t = 1..steps: float64 (steps,).

        Raises:
            ValueError: If a sigma is not positive and finite.
        """
        t = torch.arange(steps, dtype=torch.float64, device="cpu")
        match self.schedule:
            case "constant":
                sigma = torch.full_like(t, self.start)
            case "linear":
                sigma = self.start + self._rate * t
            case "exponential":
                sigma = self.start * torch.exp(self._rate * t)
        last = float(sigma[-1])
        if not (math.isfinite(last) and last > 0):
            raise ValueError(
                f"sigma.rate = {self.rate}: makes sigma {last:g} at t = {steps}, "
                "but every sigma must be positive and finite"
            )
        return sigma

    @property
    def _rate(self) -> float:
        return self.rate or 0.0


class BetaConfig(Config):
    """The standard deviation, in pixels, of the Gaussian of mask t = 1..T: start + step (t-1).

    Start, step and T together decide how large the hole is at T, and how fast it grows. The paper: start 1, step 0.1, T
    = 50 (A.2, which says variance). The authors' code: 1.1 and 0.1 with T = 50 at 32 px, 2.2 and 0.2 with T = 100 at
    128 px. For generation it has 0.05 and 0.05 with T = 750.
    """

    start: float = Field(gt=0)
    step: float

    def values(self, steps: int) -> Tensor:
        """Return beta_t for t = 1..steps: float64 (steps,).

        Raises:
            ValueError: If a beta is not positive and finite.
        """
        beta = self.start + self.step * torch.arange(steps, dtype=torch.float64, device="cpu")
        last = float(beta[-1])
        if not (math.isfinite(last) and last > 0):
            raise ValueError(
                f"beta.step = {self.step}: makes beta {last:g} at t = {steps}, "
                "but every beta must be positive and finite"
            )
        return beta


# From Nichol and Dhariwal. The offset keeps the first step from being too small. The bound keeps the last step from
# being singular.
_COSINE_OFFSET, _LARGEST_BETA = 0.008, 0.999


def cosine_alpha_bar(steps: int) -> Tensor:
    """Return abar_0..abar_steps of the cosine schedule: float64 (steps+1,), from abar_0 = 1 down to about 1e-7.

    abar_t = prod_{j<=t} (1 - beta_j), beta_j = min(1 - f(j/T) / f((j-1)/T), .999), f(u) = cos^2(pi/2 (u+.008)/1.008).
    """
    u = torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps
    f = torch.cos((u + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * (math.pi / 2)) ** 2
    kept = (f[1:] / f[:-1]).clamp(min=1 - _LARGEST_BETA)
    return torch.cat((torch.ones(1, dtype=torch.float64, device="cpu"), kept)).cumprod(dim=0)
