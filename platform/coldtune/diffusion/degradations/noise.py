"""Gaussian noise: the hot degradation (the paper's 5.1, A.6, A.8)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from coldtune.diffusion import draws
from coldtune.diffusion.degradations.base import DegradationConfig, Draw
from coldtune.diffusion.degradations.interpolation import Interpolation, InterpolationConfig, InterpolationDraw

_Z = draws.stream("degradation/noise/z")


class NoiseConfig(InterpolationConfig):
    """D(x, t) = sqrt(abar_t) x + sqrt(1 - abar_t) z, with z ~ N(0, I).

    The authors use the cosine schedule and T = 200.
    """

    kind: Literal["noise"] = "noise"


@dataclass(frozen=True)
class NoiseDraw(InterpolationDraw):
    """z: standard Gaussian noise, (B, C, H, W)."""


class Noise(Interpolation):
    """The forward process of standard diffusion, written as the paper's D. Its tables hold two numbers for each t."""

    config_type: ClassVar[type[DegradationConfig]] = NoiseConfig
    draw_type: ClassVar[type[InterpolationDraw]] = NoiseDraw
    gaussian: ClassVar[bool] = True

    def draw(self, seeds: Tensor) -> InterpolationDraw:
        """Make standard Gaussian noise for each image, as float32."""
        return NoiseDraw(draws.normal(seeds, _Z, self.image_shape))

    def lost(self, t: int, draw: Draw | None = None) -> Tensor:
        """Return the noise's share of the energy, 1 - abar_t."""
        return torch.as_tensor(1 - self.alpha_bar[t])

    def blend(self, kept: Draw, new: Draw, s: int, s_next: int, eta: float) -> NoiseDraw:
        """Return z' with sqrt(1 - abar_next) z' = sqrt(1 - abar_next - sigma^2) z_kept + sigma z_new.

        This is equation 12 of DDIM, with sigma = eta sqrt((1 - abar_next) / (1 - abar_s)) sqrt(1 - abar_s / abar_next).
        An eta of 0 is DDIM, and an eta of 1 is DDPM (A.8).
        """
        assert isinstance(kept, NoiseDraw)
        assert isinstance(new, NoiseDraw)
        abar, abar_next = float(self.alpha_bar[s]), float(self.alpha_bar[s_next])
        share = eta**2 * (1 - abar / abar_next) / (1 - abar)  # sigma^2 / (1 - abar_next), in 0..1
        return NoiseDraw(math.sqrt(1 - share) * kept.z + math.sqrt(share) * new.z.to(kept.z.dtype))
