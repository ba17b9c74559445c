"""Priors that start from the draw itself, for degradations that end at their draw (the paper's 5.1, 5.3)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from coldtune.diffusion.degradations.animorph import Animorph
from coldtune.diffusion.degradations.base import Degradation, Draw
from coldtune.diffusion.degradations.interpolation import Interpolation, InterpolationDraw
from coldtune.diffusion.degradations.noise import Noise
from coldtune.diffusion.priors.base import Prior, PriorConfig, State


class NormalPriorConfig(PriorConfig):
    """The configuration of a start from noise. A noise_scale only makes the noise louder."""

    kind: Literal["normal"] = "normal"


class DatasetPriorConfig(PriorConfig):
    """The configuration of a start from an image of the degradation's `source`."""

    kind: Literal["dataset"] = "dataset"


class _DrawnPrior(Prior):
    """A prior with x_T = z, as the authors start.

    D(x, T) itself also contains a little of x, for example sqrt(abar_T) = 2.5e-4 of it at T = 200.
    """

    ends_at: ClassVar[type[Interpolation]]

    def __init__(self, config: PriorConfig, d: Degradation) -> None:
        super().__init__(config, d)
        if not isinstance(d, self.ends_at):
            raise ValueError(f"prior.kind = {config.kind!r}: needs {self.ends_at.__name__.lower()}, not {d.kind}")

    def _start(self, seeds: Tensor, state: State, images: Tensor | None) -> tuple[Tensor, Draw | None]:
        draw = self.d.draw(seeds)
        assert isinstance(draw, InterpolationDraw)
        return draw.z.clone(), draw


class NormalPrior(_DrawnPrior):
    """The prior of `noise`: x_T ~ N(0, I), independent in every pixel."""

    config_type: ClassVar[type[PriorConfig]] = NormalPriorConfig
    ends_at: ClassVar[type[Interpolation]] = Noise


class DatasetPrior(_DrawnPrior):
    """The prior of `animorph`: x_T is an image of the degradation's source, picked uniformly."""

    config_type: ClassVar[type[PriorConfig]] = DatasetPriorConfig
    ends_at: ClassVar[type[Interpolation]] = Animorph
