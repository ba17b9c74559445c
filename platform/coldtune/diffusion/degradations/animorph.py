"""Animorphosis: images turn into those of another dataset (the paper's 5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from coldtune.diffusion import draws
from coldtune.diffusion.degradations.base import DegradationConfig
from coldtune.diffusion.degradations.images import check_images_of, to_range
from coldtune.diffusion.degradations.interpolation import Interpolation, InterpolationConfig, InterpolationDraw

_IMAGE = draws.stream("degradation/animorph/image")


class AnimorphConfig(InterpolationConfig):
    """D(x, t) = sqrt(abar_t) x + sqrt(1 - abar_t) z with z an image of another dataset, picked at random.

    source: that dataset's name; its training images are what z is picked from. The paper: CelebA to AFHQ, T = 200.
    """

    kind: Literal["animorph"] = "animorph"
    source: str


@dataclass(frozen=True)
class AnimorphDraw(InterpolationDraw):
    """z: an image of the other dataset, (B, C, H, W) in [-1, 1]."""


class Animorph(Interpolation):
    """A blend with another image. Tables: two numbers for each t, and the source's images, on every device that draws.

    How much is lost depends on the two datasets: no measure is declared.
    """

    config_type: ClassVar[type[DegradationConfig]] = AnimorphConfig
    draw_type: ClassVar[type[InterpolationDraw]] = AnimorphDraw
    config: AnimorphConfig

    def __init__(self, config: AnimorphConfig, image_shape: Sequence[int], source: Tensor | None = None) -> None:
        """`source`: the other dataset's images, uint8 or floating (N, C, H, W); None where nothing will be drawn."""
        super().__init__(config, image_shape)
        if source is not None:
            check_images_of(f"source of {config.source}", source, self.image_shape)
        self.source = source
        self._sources: dict[torch.device, Tensor] = {}

    def draw(self, seeds: Tensor) -> InterpolationDraw:
        """An image of the source for each seed, with replacement, float32. ValueError where none were handed in."""
        if self.source is None:
            raise ValueError(
                f"degradation.source = {self.config.source!r}: its images are needed to draw one; "
                "build_degradation(config, image_shape, source=images) takes them, uint8 (N, C, H, W)"
            )
        if seeds.device not in self._sources:
            self._sources[seeds.device] = self.source.to(seeds.device)
        return AnimorphDraw(to_range(self._sources[seeds.device][draws.integers(seeds, _IMAGE, 0, len(self.source))]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config, self.image_shape, self.source)
