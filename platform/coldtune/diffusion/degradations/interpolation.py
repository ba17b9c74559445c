"""D(x, t) = sqrt(abar_t) x + sqrt(1 - abar_t) z: a blend of the image with a draw z (the paper's 5.1, 5.3)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from coldtune.diffusion.degradations.base import Degradation, DegradationConfig, Draw, computing_dtype, per_image
from coldtune.diffusion.degradations.tables import Table
from coldtune.diffusion.schedules import cosine_alpha_bar


class InterpolationConfig(DegradationConfig):
    """The keys of every degradation that blends an image with a draw.

    Attributes:
        schedule: "cosine" is Nichol and Dhariwal's abar_t, which the authors use. Its abar_T is about 1e-7, not 0.
    """

    schedule: Literal["cosine"] = "cosine"


@dataclass(frozen=True)
class InterpolationDraw(Draw):
    """z: the end of each image's path, (B, C, H, W)."""

    z: Tensor


class Interpolation(Degradation):
    """The base class of sqrt(abar_t) x + sqrt(1 - abar_t) z. Its tables hold two numbers for each t."""

    draw_type: ClassVar[type[InterpolationDraw]]
    estimable: ClassVar[bool] = True
    config: InterpolationConfig

    def __init__(self, config: InterpolationConfig, image_shape: Sequence[int]) -> None:
        super().__init__(config, image_shape)
        self.alpha_bar = cosine_alpha_bar(config.steps)
        """abar_0..abar_T, float64 (T+1,); abar_0 = 1."""
        self._image_weight = Table(lambda: self.alpha_bar.sqrt())
        self._rest_weight = Table(lambda: (1 - self.alpha_bar).sqrt())

    @abstractmethod
    def draw(self, seeds: Tensor) -> InterpolationDraw:
        """Make z, the end of each image's path."""

    def estimate(self, x_s: Tensor, x0_hat: Tensor, s: int) -> InterpolationDraw:
        """Compute z_hat = (x_s - sqrt(abar_s) x0_hat) / sqrt(1 - abar_s) (5.1, A.6), in float32 for half precision."""
        assert 1 <= s <= self.steps
        dtype = computing_dtype(x_s.dtype)
        x_s, x0_hat = x_s.to(dtype), x0_hat.to(dtype)
        z = (x_s - self._image_weight.at(s, x_s) * x0_hat) / self._rest_weight.at(s, x_s)
        return self.draw_type(z)

    def _degrade(self, x0: Tensor, t: int | Tensor, draw: Draw | None) -> Tensor:
        assert isinstance(draw, InterpolationDraw)
        image, rest = (per_image(weight.at(t, x0)) for weight in (self._image_weight, self._rest_weight))
        return image * x0 + rest * draw.z.to(x0.dtype)

    def _draw_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"z": self.image_shape}
