"""Animorphosis: each image turns into an image of another dataset (the paper's 5.3)."""

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
    """D(x, t) = sqrt(abar_t) x + sqrt(1 - abar_t) z, with z an image of another dataset that is picked at random.

    Attributes:
        source: The name of the other dataset. Its training images are the candidates for z. The paper turns CelebA into
            AFHQ with T = 200.
    """

    kind: Literal["animorph"] = "animorph"
    source: str


@dataclass(frozen=True)
class AnimorphDraw(InterpolationDraw):
    """z: an image of the other dataset, (B, C, H, W) in [-1, 1]."""


class Animorph(Interpolation):
    """A blend with another image.

    Its tables hold two numbers for each t. The images of the source are copied to every device that draws. The loss of
    information depends on the two datasets, so no measure of it is declared.
    """

    config_type: ClassVar[type[DegradationConfig]] = AnimorphConfig
    draw_type: ClassVar[type[InterpolationDraw]] = AnimorphDraw
    config: AnimorphConfig

    def __init__(self, config: AnimorphConfig, image_shape: Sequence[int], source: Tensor | None = None) -> None:
        """Take the images of the other dataset as `source`.

        Args:
            source: uint8 or floating (N, C, H, W). None if nothing will be drawn.
        """
        super().__init__(config, image_shape)
        if source is not None:
            check_images_of(f"source of {config.source}", source, self.image_shape)
        self.source = source
        self._sources: dict[torch.device, Tensor] = {}

    def draw(self, seeds: Tensor) -> InterpolationDraw:
        """Pick an image of the source for each seed, with replacement, as float32.

        Raises:
            ValueError: If the degradation was built without its source.
        """
        if self.source is None:
            raise ValueError(
                f"degradation.source = {self.config.source!r}: its images are needed for a draw. Pass them to "
                "build_degradation(config, image_shape, source=images), as uint8 (N, C, H, W)."
            )
        if seeds.device not in self._sources:
            self._sources[seeds.device] = self.source.to(seeds.device)
        return AnimorphDraw(to_range(self._sources[seeds.device][draws.integers(seeds, _IMAGE, 0, len(self.source))]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config, self.image_shape, self.source)
