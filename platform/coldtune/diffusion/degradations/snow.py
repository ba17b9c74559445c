"""Snow after ImageNet-C: the flakes grow denser and the wind blows them further (the paper's A.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from coldtune.config import Config
from coldtune.diffusion import draws
from coldtune.diffusion.degradations.base import Degradation, DegradationConfig, Draw
from coldtune.diffusion.degradations.gaussian import kernel_1d
from coldtune.diffusion.degradations.tables import Table

_SEED, _VERTICAL = draws.stream("degradation/snow/seed"), draws.stream("degradation/snow/vertical")
_ZOOM, _TAPS = 2.5, 11


class RangeConfig(Config):
    """A value that goes from `start` at t = 1 to `end` at t = T in equal steps. If T = 1, only `start` counts."""

    start: float
    end: float

    def values(self, steps: int) -> Tensor:
        """Return the values for t = 1..steps: float64 (steps,)."""
        return torch.linspace(self.start, self.end, steps, dtype=torch.float64, device="cpu")


class SnowConfig(DegradationConfig):
    """D(x, t) = clip(x + S_t + S_t', 0, 1), in the unit range, with S_t' the pattern S_t rotated by 180 degrees.

    S_t starts as a seed matrix of N(mean, sd). A part of it is zoomed 2.5 times, values below threshold_t become 0, and
    the result is clipped to [0, 1]. Then it is blurred along rows or columns by 11 taps of a Gaussian of motion_sigma_t
    pixels, with zeros outside.

    Attributes:
        threshold: It falls from t = 1 to T, so that flakes only appear. The paper: 1.15 to 0.7 (CIFAR-10), 1.15 to 0.55
            (CelebA), both with T = 200.
        motion_sigma: How far the wind blows the flakes, in pixels. The paper: 0.05 to 16 (CIFAR-10), 0.05 to 20
            (CelebA).
        mean: Of the seed matrix. A brighter seed has more flakes at the same threshold.
        sd: Of the seed matrix.
        crop: The part of the seed matrix that is zoomed. The paper takes the upper-left corner, the authors' code the
            center.
        zoom: The interpolation of the zoom. The paper takes splines ("cubic"), the authors' code "linear".
        shared: Use the pattern of the first image for all images of a batch, as the authors do. The snow of an image
            then depends on how images are batched, so trials are no longer compared on equal draws.
    """

    kind: Literal["snow"] = "snow"
    threshold: RangeConfig
    motion_sigma: RangeConfig
    mean: float = 0.55
    sd: float = Field(default=0.3, gt=0)
    crop: Literal["corner", "center"] = "corner"
    zoom: Literal["cubic", "linear"] = "cubic"
    shared: bool = False

    @field_validator("threshold")
    @classmethod
    def _snow_grows_denser(cls, value: RangeConfig) -> RangeConfig:
        if value.start < value.end:
            raise ValueError(f"start = {value.start}, end = {value.end}: must not rise, because flakes must not vanish")
        return value

    @field_validator("motion_sigma")
    @classmethod
    def _positive(cls, value: RangeConfig) -> RangeConfig:
        if min(value.start, value.end) <= 0:
            raise ValueError(f"start = {value.start}, end = {value.end}: both must be above 0")
        return value

    def lengths(self) -> tuple[str, ...]:
        """Return the keys of lengths."""
        return ("motion_sigma.start", "motion_sigma.end")


@dataclass(frozen=True)
class SnowDraw(Draw):
    """The random part of snow.

    Attributes:
        seed: The seed matrices, (B, H, W).
        vertical: True if the wind blows along columns, bool (B,).
    """

    seed: Tensor
    vertical: Tensor


class Snow(Degradation):
    """Snow at the same cost for every t: level t needs no other level.

    The tables take (T+1) n^2 numbers for each different image side n. In float32 and for T = 200 that is 0.8 MB at 32
    px and 13 MB at 128 px. An image costs about 4 n^3 multiply-adds, whatever its number of channels.
    """

    config_type: ClassVar[type[DegradationConfig]] = SnowConfig
    draw_type: ClassVar[type[Draw]] = SnowDraw
    config: SnowConfig

    def __init__(self, config: SnowConfig, image_shape: Sequence[int]) -> None:
        super().__init__(config, image_shape)
        sides = set(self.image_shape[1:])
        self._zoom = {n: Table(lambda n=n: self._build_zoom(n)) for n in sides}  # type: ignore[misc]
        self._motion = {n: Table(lambda n=n: self._build_motion(n)) for n in sides}  # type: ignore[misc]
        self._threshold = Table(self._build_threshold)

    @property
    def per_image(self) -> bool:
        """False if the whole batch shares a pattern."""
        return not self.config.shared

    def draw(self, seeds: Tensor) -> SnowDraw:
        """Draw a seed matrix, as float32, and a direction for each image."""
        if self.config.shared:
            seeds = seeds[:1].expand(len(seeds))
        _, height, width = self.image_shape
        seed = self.config.mean + self.config.sd * draws.normal(seeds, _SEED, (height, width))
        return SnowDraw(seed, draws.integers(seeds, _VERTICAL, 0, 2).bool())

    def pattern(self, t: int | Tensor, draw: SnowDraw, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return S_t for t = 1..T: (B, H, W), on the device of the draw."""
        flakes = self._flakes(t, draw, dtype)
        # Entry 0 of a table is the identity. So the same two products serve both directions of the wind.
        vertical = draw.vertical.to(torch.int64)
        down, across = (self._motion[n] for n in self.image_shape[1:])
        return down.at(t * vertical, flakes) @ flakes @ across.at(t * (1 - vertical), flakes).mT

    def lost(self, t: int, draw: Draw | None = None) -> Tensor:
        """Return the mean brightness of the flakes before the wind blows them: (B,), 0 at t = 0."""
        assert isinstance(draw, SnowDraw)
        flakes = self._flakes(max(t, 1), draw.to("cpu"), torch.float64).mean(dim=(1, 2))
        return flakes if t else torch.zeros_like(flakes)

    def _flakes(self, t: int | Tensor, draw: SnowDraw, dtype: torch.dtype) -> Tensor:
        """Return the zoomed seed with everything below the threshold set to 0, clipped to [0, 1]."""
        seed = draw.seed.to(dtype)
        rows, columns = (self._zoom[n].on(seed.device, dtype) for n in self.image_shape[1:])
        zoomed = rows @ seed @ columns.mT
        threshold = self._threshold.at(t, seed).reshape(-1, 1, 1)
        return torch.where(zoomed >= threshold, zoomed, 0.0).clamp(0, 1)

    def _degrade(self, x0: Tensor, t: int | Tensor, draw: Draw | None) -> Tensor:
        assert isinstance(draw, SnowDraw)
        pattern = self.pattern(t, draw, x0.dtype)
        snow = (pattern + pattern.flip((1, 2)))[:, None]
        return ((x0 + 1) / 2 + snow).clamp(0, 1) * 2 - 1

    def _build_zoom(self, n: int) -> Tensor:
        """Make the matrix that crops and zooms an axis of n pixels: float64 (n, n)."""
        from scipy.ndimage import zoom  # takes a while to import

        size = math.ceil(n / _ZOOM)
        grown = zoom(
            torch.eye(size, dtype=torch.float64).numpy(), (_ZOOM, 1), order=3 if self.config.zoom == "cubic" else 1
        )
        from_seed, from_grown = ((n - size) // 2, (len(grown) - n) // 2) if self.config.crop == "center" else (0, 0)
        matrix = torch.zeros(n, n, dtype=torch.float64, device="cpu")
        matrix[:, from_seed : from_seed + size] = torch.from_numpy(grown)[from_grown : from_grown + n]
        return matrix

    def _build_motion(self, n: int) -> Tensor:
        """Make the matrices of the wind along an axis of n pixels: float64 (T+1, n, n), the identity first."""
        kernels = kernel_1d(self.config.motion_sigma.values(self.steps), _TAPS)
        pixel = torch.arange(n, device="cpu")
        offset = pixel[:, None] - pixel + _TAPS // 2
        inside = (offset >= 0) & (offset < _TAPS)
        blown = kernels[:, offset.clamp(0, _TAPS - 1)] * inside
        return torch.cat((torch.eye(n, dtype=torch.float64, device="cpu")[None], blown))

    def _build_threshold(self) -> Tensor:
        values = self.config.threshold.values(self.steps)
        return torch.cat((values[:1], values))

    def _draw_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"seed": self.image_shape[1:], "vertical": ()}
