"""One random colour: for masks that fade to one (the paper's 5.3)."""

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
    """colors: uniform over the degradation's color_range, which the restorer was trained on; or empirical, the mean
    colours of training images picked at random: likelier ones, of which it saw fewer.
    """

    kind: Literal["color"] = "color"
    colors: Literal["uniform", "empirical"] = "uniform"


class ColorPrior(Prior):
    """x_T is flat, of one random colour, and the draw holds that colour (and a random centre, where there is one).

    That is the law of D(x, T) for a reversed mask with uniform colours; a forward one leaves a little of x at the rim.
    """

    config_type: ClassVar[type[PriorConfig]] = ColorPriorConfig
    config: ColorPriorConfig

    def __init__(self, config: ColorPriorConfig, d: Degradation) -> None:
        super().__init__(config, d)
        if not (isinstance(d, Mask) and d.config.fill == "color"):
            raise ValueError(f"prior.kind = 'color': starts a mask with fill = 'color', not {d.config!r}")

    @property
    def learns(self) -> bool:
        """Only of empirical colours."""
        return self.config.colors == "empirical"

    def fit(self, images: Tensor, seed: int = 0) -> State:
        """means (N, C), float64: the channel means of every training image; nothing for uniform colours."""
        return {"means": channel_means(images, self.d)} if self.learns else {}

    def _start(self, seeds: Tensor, state: State, images: Tensor | None) -> tuple[Tensor, Draw | None]:
        draw = self.d.draw(seeds)
        assert isinstance(draw, MaskDraw)
        if self.learns:
            means = state["means"]
            draw = replace(draw, color=means[draws.integers(seeds, _IMAGE, 0, len(means))])
        assert draw.color is not None
        return self._flat(draw.color), draw
