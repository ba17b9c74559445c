"""Gaussian masks: around a centre, pixels fade to grey or to one random colour (the paper's 4.2, 5.3, A.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import field_validator, model_validator
from torch import Tensor

from coldtune.diffusion import draws
from coldtune.diffusion.degradations.base import Degradation, DegradationConfig, Draw, check_range
from coldtune.diffusion.degradations.tables import Table
from coldtune.diffusion.schedules import BetaConfig

_ROW, _COLUMN = draws.stream("degradation/mask/row"), draws.stream("degradation/mask/column")
_COLOR = draws.stream("degradation/mask/color")


class MaskConfig(DegradationConfig):
    """D(x, t) = W_t x + (1 - W_t) c, with W_t made of masks z_i(p) = 1 - exp(-|p - centre|^2 / (2 beta_i^2)).

    Attributes:
        beta: The width of the mask of step i, as a standard deviation in pixels. The authors' code means the same. The
            paper says variance, which is its square.
        center: "fixed" is ((n-1) // 2, (n-1) // 2), the authors' n/2 - 1 for even n. "random" is drawn once for each
            image, uniform over -1..n-1 in both directions, as the authors draw it.
        fill: "zero" fades to c = 0, which is mid-grey. "color" fades to a random colour for each image, so that
            generation can start from a colour.
        color_range: The range over which each channel of the colour is uniform. The authors use [-0.5, 0.5], the middle
            half.
        order: "forward" is W_t = z_1 ... z_t. A hole grows, and a little of the rim is left at T (see `Mask.leftover`).
            "reverse" is W_t = 1 - z_1 ... z_(T-t), as the authors generate. The rim disappears first and the centre
            last, and nothing is left at T. The first step of "reverse" removes what a forward mask leaves at T.
    """

    kind: Literal["mask"] = "mask"
    beta: BetaConfig
    center: Literal["fixed", "random"] = "fixed"
    fill: Literal["zero", "color"] = "zero"
    color_range: tuple[float, float] = (-1.0, 1.0)
    order: Literal["forward", "reverse"] = "forward"

    @field_validator("color_range")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("must be [low, high], with low below high")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> MaskConfig:
        self.beta.values(self.steps)
        if self.fill == "zero" and self.color_range != (-1.0, 1.0):
            raise ValueError(
                f"color_range = {list(self.color_range)}: must be left out, because fill = 'zero' has no colour"
            )
        return self

    def lengths(self) -> tuple[str, ...]:
        """Return the keys of lengths."""
        return ("beta.start", "beta.step")


@dataclass(frozen=True)
class MaskDraw(Draw):
    """The random centres and colours of masks. A field is None if the configuration does not leave it to chance.

    Attributes:
        center: The row and column of each centre, int64 (B, 2), -1..n-1.
        color: (B, C).
    """

    center: Tensor | None = None
    color: Tensor | None = None


class Mask(Degradation):
    """Masks at the same cost for every t: W_t depends only on the distances to the centre, so it is looked up.

    The table takes (T+1) (n+1)^2 numbers for random centres and a quarter of that for fixed centres. In float32 that is
    0.2 MB for T = 50 at 32 px. For T = 750 at 128 px it is 13 MB with a fixed centre and 50 MB with a random centre.
    """

    config_type: ClassVar[type[DegradationConfig]] = MaskConfig
    draw_type: ClassVar[type[Draw]] = MaskDraw
    config: MaskConfig

    def __init__(self, config: MaskConfig, image_shape: Sequence[int]) -> None:
        super().__init__(config, image_shape)
        self._weights = Table(self._build)

    def draw(self, seeds: Tensor) -> MaskDraw | None:
        """Draw a centre and a colour for each image, if they are random."""
        channels, height, width = self.image_shape
        center = color = None
        if self.config.center == "random":
            rows, columns = draws.integers(seeds, _ROW, -1, height), draws.integers(seeds, _COLUMN, -1, width)
            center = torch.stack((rows, columns), dim=1)
        if self.config.fill == "color":
            low, high = self.config.color_range
            color = low + (high - low) * draws.uniform(seeds, _COLOR, (channels,))
        return MaskDraw(center, color) if self.random else None

    @property
    def leftover(self) -> float:
        """The mean remaining weight: the mean of W_T over all pixels and, if the centre is random, over all centres.

        The weaker the end, the better every FID. Compare only settings with equal leftover.
        """
        weights = self._weights.on("cpu", torch.float64)[-1]
        rows, columns = (self._distance_counts(n) for n in self.image_shape[1:])
        return float(rows @ weights @ columns / (rows.sum() * columns.sum()))

    def lost(self, t: int, draw: Draw | None = None) -> Tensor:
        """Return 1 minus the mean of W_t over the pixels. The shape is (B,) for random centres."""
        center = draw.center.cpu() if isinstance(draw, MaskDraw) and draw.center is not None else None
        return 1 - self._mask(t, center, torch.device("cpu"), torch.float64).mean(dim=(-2, -1))

    def _degrade(self, x0: Tensor, t: int | Tensor, draw: Draw | None) -> Tensor:
        assert draw is None or isinstance(draw, MaskDraw)
        weight = self._mask(t, draw.center if draw else None, x0.device, x0.dtype).unsqueeze(-3)
        if draw is None or draw.color is None:
            return weight * x0
        return weight * x0 + (1 - weight) * draw.color.to(x0.dtype)[:, :, None, None]

    def _mask(self, t: int | Tensor, center: Tensor | None, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return W_t: (H, W), or (B, H, W) if t or the centre differs between images."""
        rows, columns = (
            (torch.arange(n, device=device) - at).abs()
            for n, at in zip(self.image_shape[1:], self._center(center), strict=True)
        )
        level = t if isinstance(t, int) else t[:, None, None]
        return self._weights.on(device, dtype)[level, rows.unsqueeze(-1), columns.unsqueeze(-2)]

    def _center(self, center: Tensor | None) -> tuple[int | Tensor, int | Tensor]:
        if center is None:
            return (self.image_shape[1] - 1) // 2, (self.image_shape[2] - 1) // 2
        return center[:, :1], center[:, 1:]

    def _centers(self, n: int) -> Tensor:
        """Return every position that the centre can have along an axis of n pixels."""
        return torch.arange(-1, n) if self.config.center == "random" else torch.tensor([(n - 1) // 2])

    def _distances(self, n: int) -> Tensor:
        """Return |pixel - centre| along an axis of n pixels, for each possible centre."""
        return (torch.arange(n) - self._centers(n)[:, None]).abs()

    def _distance_counts(self, n: int) -> Tensor:
        """Count how often each distance 0, 1, ... occurs along an axis of n pixels."""
        return torch.bincount(self._distances(n).flatten()).to(torch.float64)

    def _build(self) -> Tensor:
        """Make W_0..W_T as a function of the distances in rows and columns: float64 (T+1, ., .)."""
        rows, columns = (
            torch.arange(int(self._distances(n).max()) + 1, dtype=torch.float64, device="cpu") ** 2
            for n in self.image_shape[1:]
        )
        beta = self.config.beta.values(self.steps)[:, None, None]
        single = -torch.expm1(-(rows[:, None] + columns) / (2 * beta**2))
        product = torch.cat((torch.ones_like(single[:1]), single)).cumprod(dim=0)
        if self.config.order == "forward":
            return product
        weights = 1 - product.flip(0)
        weights[0] = 1  # the formula is too low here, by the weight that the forward mask leaves at T
        return weights

    def _draw_shapes(self) -> Mapping[str, tuple[int, ...]]:
        shapes = {"center": (2,)} if self.config.center == "random" else {}
        return shapes | ({"color": (self.image_shape[0],)} if self.config.fill == "color" else {})

    def _check_draw(self, draw: Draw | None, x0: Tensor) -> None:
        super()._check_draw(draw, x0)
        if isinstance(draw, MaskDraw) and draw.center is not None:
            if draw.center.dtype != torch.int64:
                raise ValueError(f"draw.center of dtype {draw.center.dtype}: must be torch.int64")
            for axis, n in enumerate(self.image_shape[1:]):
                check_range("draw.center", draw.center[:, axis], -1, n - 1)
