"""What every degradation D(x, t) is."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from coldtune.config import Config


class DegradationConfig(Config):
    """What every degradation's configuration has: its kind and T, the number of steps."""

    kind: str
    steps: int = Field(ge=1)


@dataclass(frozen=True)
class Draw:
    """What is random about one degradation of each image: a frozen dataclass of batch-first tensors.

    Handed to every D(., t, draw) of a sampling run, so that all t see the same mask, snow or noise.
    Made by `Degradation.draw` from seeds; anyone may construct one by hand.
    """

    def to(self, device: torch.device | str) -> Self:
        """The same draw on another device."""
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class Degradation(ABC):
    """D(x, t): severity t = 0..T of an image x, with D(x, 0) = x.

    A subclass sets `config_type` and implements `_degrade`, which costs the same for every t and may use neither
    data-dependent control flow nor randomness other than its draw. Instances are immutable, cheap to pickle (their
    configuration is; tables are rebuilt) and hold no device: they follow that of their inputs.
    """

    config_type: ClassVar[type[DegradationConfig]]
    config: DegradationConfig

    def __init__(self, config: DegradationConfig, image_shape: Sequence[int]) -> None:
        self.config = config
        self.image_shape = check_image_shape(image_shape)

    @property
    def kind(self) -> str:
        """The name under which the degradation is registered."""
        return self.config.kind

    @property
    def steps(self) -> int:
        """T, the largest severity."""
        return self.config.steps

    def draw(self, seeds: Tensor) -> Draw | None:
        """The randomness of one degradation per image, from seeds int64 (B,); None where D is deterministic."""
        return None

    def __call__(self, x0: Tensor, t: int | Tensor, draw: Draw | None = None) -> Tensor:
        """D(x0, t): a new tensor of the shape, dtype and device of x0; differentiable in x0.

        x0: (B, C, H, W), floating, in [-1, 1] by convention. t: an int for the whole batch or int64 (B,), 0..T, on the
        device of x0; severities may differ within the batch. draw: what `draw(seeds)` made for these images.
        ValueError for a wrong shape, dtype, device or t. On a GPU a tensor t is checked on the device, without
        waiting for it: an out-of-range value then stops the program at its next synchronisation.
        """
        self.check_images("x0", x0)
        self._check_draw(draw)
        if not isinstance(t, Tensor):
            severity = self._check_number(t)
            return x0.clone() if severity == 0 else self._degrade(x0, severity, draw)
        may_be_zero = self._check_tensor(t, x0)
        degraded = self._degrade(x0, t, draw)
        # Imposed, not hoped for: reduced-precision matmuls (TF32) and formulas that miss x at t = 0 would break it.
        return torch.where((t == 0)[:, None, None, None], x0, degraded) if may_be_zero else degraded

    @abstractmethod
    def _degrade(self, x0: Tensor, t: int | Tensor, draw: Draw | None) -> Tensor:
        """D(x0, t) for checked inputs; what it returns where t = 0 is replaced by x0."""

    def check_images(self, name: str, images: Tensor) -> None:
        """ValueError unless `images` is a floating (B, C, H, W) tensor of this degradation's image shape."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            expected = ", ".join(str(size) for size in self.image_shape)
            raise ValueError(f"{name} of shape {tuple(images.shape)}: must be (B, {expected})")
        if not images.is_floating_point():
            raise ValueError(f"{name} of dtype {images.dtype}: must be floating point, in [-1, 1]")

    def _check_draw(self, draw: Draw | None) -> None:
        if draw is not None:
            raise ValueError(f"draw = {type(draw).__name__}(...): {self.kind} is deterministic; allowed: None")

    def _check_number(self, t: Any) -> int:
        try:
            severity = operator.index(t)
        except TypeError:
            severity = -1
        if isinstance(t, bool) or not 0 <= severity <= self.steps:
            raise ValueError(f"t = {t!r}: must be an integer or an int64 tensor, 0..{self.steps}")
        return severity

    def _check_tensor(self, t: Tensor, x0: Tensor) -> bool:
        """Whether t may contain a 0, which costs a look only where looking is free."""
        if t.dtype != torch.int64 or t.shape != x0.shape[:1]:
            raise ValueError(f"t of dtype {t.dtype} and shape {tuple(t.shape)}: must be int64 ({len(x0)},)")
        if t.device != x0.device:
            raise ValueError(f"t on {t.device}: must be on the device of x0, {x0.device}")
        if t.device.type == "cpu" and not torch.compiler.is_compiling() and len(t):
            low, high = (int(bound) for bound in t.aminmax())
            if low < 0 or high > self.steps:
                raise ValueError(f"t with values {low}..{high}: must be in 0..{self.steps}")
            return low == 0
        if t.device.type in ("cpu", "cuda"):
            torch._assert_async(((t >= 0) & (t <= self.steps)).all(), f"t must be in 0..{self.steps}")
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config, self.image_shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config!r}, image_shape={self.image_shape})"


def check_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) as a tuple; ValueError unless it is three positive integers."""
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(isinstance(size, int) and size >= 1 for size in shape):
        raise ValueError(f"image_shape = {image_shape!r}: must be (C, H, W), three positive integers")
    return shape[0], shape[1], shape[2]


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision in which a degradation works: float64 for float64 images, float32 for all others.

    Half-precision images are degraded in float32 and rounded once: TACoS takes differences of neighbouring severities,
    which half-precision tables would drown.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32
