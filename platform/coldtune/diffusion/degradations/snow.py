"""Snow after ImageNet-C: flakes that grow denser and are blown further (the paper's A.5)."""

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
    """From `start` at t = 1 to `end` at t = T, in equal steps; with T = 1 only `start` counts."""

    start: float
    end: float

    def values(self, steps: int) -> Tensor:
        """The values for t = 1..steps, float64 (steps,)."""
        return torch.linspace(self.start, self.end, steps, dtype=torch.float64, device="cpu")


class SnowConfig(DegradationConfig):
    """D(x, t) = clip(x + S_t + S_t', 0, 1), in the unit range, with S_t' the pattern S_t rotated by 180 degrees.

    S_t: a seed matrix of N(mean, sd), a corner of it zoomed 2.5 times, what is below threshold_t set to 0, clipped to
    [0, 1], then blurred along one direction by 11 taps of a Gaussian of motion_sigma_t pixels, zeros outside.
    threshold: falls from t = 1 to T, so that flakes only appear; the paper 1.15 to .7 (CIFAR-10), to .55 (CelebA).
    motion_sigma: in pixels; how windy it looks. The paper .05 to 16, to 20; T = 200 for both.
    mean, sd: of the seed matrix; the brighter, the more flakes at one threshold.
    crop, zoom: which part is zoomed, and how: the paper says the upper-left corner and splines; the authors' code takes
    the center and linear interpolation.
    shared: one pattern for all images of a batch, as the authors draw it: the first image's. What an image gets then
    depends on how images are batched, so trials are no longer compared on equal draws.
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
            raise ValueError(f"start = {value.start}, end = {value.end}: must not rise, or flakes would vanish again")
        return value

    @field_validator("motion_sigma")
    @classmethod
    def _positive(cls, value: RangeConfig) -> RangeConfig:
        if min(value.start, value.end) <= 0:
            raise ValueError(f"start = {value.start}, end = {value.end}: both must be above 0")
        return value


@dataclass(frozen=True)
class SnowDraw(Draw):
    """seed: the seed matrices, (B, H, W). vertical: whether the wind blows along columns, bool (B,)."""

    seed: Tensor
    vertical: Tensor


class Snow(Degradation):
    """Snow at the same cost for every t: level t needs no other level.

    Tables: (T+1) n^2 numbers for each different side n (0.8 MB at 32 px, 13 MB at 128 px for T = 200 in float32).
    An image costs about 4 n^3 multiply-adds, whatever its channels.
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
        """Not where one pattern is shared."""
        return not self.config.shared

    def draw(self, seeds: Tensor) -> SnowDraw:
        """A seed matrix, float32, and a direction for each image."""
        if self.config.shared:
            seeds = seeds[:1].expand(len(seeds))
        _, height, width = self.image_shape
        seed = self.config.mean + self.config.sd * draws.normal(seeds, _SEED, (height, width))
        return SnowDraw(seed, draws.integers(seeds, _VERTICAL, 0, 2).bool())

    def pattern(self, t: int | Tensor, draw: SnowDraw, dtype: torch.dtype = torch.float32) -> Tensor:
        """S_t, (B, H, W), t = 1..T, on the device of the draw."""
        flakes = self._flakes(t, draw, dtype)
        # A table's first entry is the identity: one product each way serves both directions of the wind.
        vertical = draw.vertical.to(torch.int64)
        down, across = (self._motion[n] for n in self.image_shape[1:])
        return down.at(t * vertical, flakes) @ flakes @ across.at(t * (1 - vertical), flakes).mT

    def lost(self, t: int, draw: Draw | None = None) -> Tensor:
        """The mean brightness of the flakes before the wind blows them, at t >= 1: (B,)."""
        assert isinstance(draw, SnowDraw)
        flakes = self._flakes(max(t, 1), draw.to("cpu"), torch.float64).mean(dim=(1, 2))
        return flakes if t else torch.zeros_like(flakes)

    def _flakes(self, t: int | Tensor, draw: SnowDraw, dtype: torch.dtype) -> Tensor:
        """The zoomed seed where it reaches the threshold, clipped to [0, 1]."""
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
        """Crop and zoom of an axis of n pixels: float64 (n, n)."""
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
        """The wind along an axis of n pixels: float64 (T+1, n, n), the identity first."""
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
