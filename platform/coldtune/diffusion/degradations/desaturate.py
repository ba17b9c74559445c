"""Desaturation: colours fade to grey (the paper's A.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from coldtune.diffusion.degradations.base import Degradation, DegradationConfig, Draw, per_image
from coldtune.diffusion.degradations.tables import Table


class DesaturateConfig(DegradationConfig):
    """D(x, t) = (1 - t/T) x + (t/T) m, with m the mean of x over its channels.

    The paper uses T = 50 for CIFAR-10 and T = 20 for CelebA.
    """

    kind: Literal["desaturate"] = "desaturate"


class Desaturate(Degradation):
    """Desaturation of images with at least two channels. Its table holds a number for each t."""

    config_type: ClassVar[type[DegradationConfig]] = DesaturateConfig

    def __init__(self, config: DesaturateConfig, image_shape: Sequence[int]) -> None:
        super().__init__(config, image_shape)
        if self.image_shape[0] == 1:
            raise ValueError(f"degradation.kind = 'desaturate': images of shape {self.image_shape} have no colour")
        self._greyness = Table(lambda: torch.linspace(0, 1, self.steps + 1, dtype=torch.float64, device="cpu"))

    def lost(self, t: int, draw: Draw | None = None) -> Tensor:
        """Return the share of each pixel's distance from grey that is gone: t / T."""
        return torch.tensor(t / self.steps, dtype=torch.float64)

    def _degrade(self, x0: Tensor, t: int | Tensor, draw: Draw | None) -> Tensor:
        return x0.lerp(x0.mean(dim=1, keepdim=True), per_image(self._greyness.at(t, x0)))
