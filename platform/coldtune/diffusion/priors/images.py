"""A prior of degraded real images, for conditional runs, which restore images and do not generate any (section 4)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from coldtune.diffusion.degradations.base import Draw
from coldtune.diffusion.degradations.images import check_images_of, to_range
from coldtune.diffusion.priors.base import Prior, PriorConfig, State


class DataPriorConfig(PriorConfig):
    """The configuration of a start from real images. x_T is as training degrades it, 8-bit truncation included."""

    kind: Literal["data"] = "data"


class DataPrior(Prior):
    """A prior with x_T = D(x, T, draw) of the images passed to `start`: the empirical law of the degradation's end."""

    config_type: ClassVar[type[PriorConfig]] = DataPriorConfig
    takes_images: ClassVar[bool] = True

    def _start(self, seeds: Tensor, state: State, images: Tensor | None) -> tuple[Tensor, Draw | None]:
        assert images is not None
        check_images_of("images", images, self.d.image_shape)
        if len(images) != len(seeds):
            raise ValueError(f"images: {len(images)} for {len(seeds)} seeds, but there must be one image per seed")
        draw = self.d.draw(seeds)
        return self.d(to_range(images.to(seeds.device)), self.d.steps, draw), draw
