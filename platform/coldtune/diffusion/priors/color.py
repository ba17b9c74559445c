"""A prior of random colours, for masks that fade to a colour (the paper's 5.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from coldtune.diffusion import draws
from coldtune.diffusion.degradations.base import Degradation, Draw
from coldtune.diffusion.degradations.mask import Mask, MaskDraw
from coldtune.diffusion.priors.base import Prior, PriorConfig, State, channel_means

_IMAGE = draws.stream("prior/color/image")


class ColorPriorConfig(PriorConfig):
    """The configuration of a prior of random colours.

    Attributes:
        colors: "uniform" is uniform over the degradation's color_range, on which the restorer was trained. "empirical"
            takes the mean colours of training images picked at random. They are likelier colours, but the restorer saw
            fewer of them.
    """

    kind: Literal["color"] = "color"
    colors: Literal["uniform", "empirical"] = "uniform"


class ColorPrior(Prior):
    """A prior whose x_T is flat, of a random colour.

    The draw holds the colour, and also a random centre if D has one. For a reversed mask with uniform colours, that is
    exactly the law of D(x, T). A forward mask leaves a little of x at the rim.
    """

    config_type: ClassVar[type[PriorConfig]] = ColorPriorConfig
    config: ColorPriorConfig

    def __init__(self, config: ColorPriorConfig, d: Degradation) -> None:
        super().__init__(config, d)
        if not (isinstance(d, Mask) and d.config.fill == "color"):
            raise ValueError(f"prior.kind = 'color': needs a mask with fill = 'color', not {d.config!r}")

    @property
    def learns(self) -> bool:
        """True for empirical colours."""
        return self.config.colors == "empirical"

    def fit(self, images: Tensor, seed: int = 0) -> State:
        """Return the channel means of every training image as `means` (N, C), or nothing for uniform colours."""
        return {"means": channel_means(images, self.d)} if self.learns else {}

    def _start(self, seeds: Tensor, state: State, images: Tensor | None) -> tuple[Tensor, Draw | None]:
        draw = self.d.draw(seeds)
        assert isinstance(draw, MaskDraw)
        if self.learns:
            means = state["means"]
            draw = replace(draw, color=means[draws.integers(seeds, _IMAGE, 0, len(means))])
        assert draw.color is not None
        return self._flat(draw.color), draw
