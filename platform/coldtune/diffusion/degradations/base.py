"""What every degradation D(x, t) is."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from coldtune.config import Config
from coldtune.diffusion.degradations.quantize import truncate_to_8_bit


class DegradationConfig(Config):
    """What every degradation's configuration has: its kind and T, the number of steps.

    quantize: D(x, t), t >= 1, is truncated to 8 bit, as the authors do for masks (A.2: else the faint rest of a masked
    pixel, in floating point, gives the image away). It concerns what training and x_T see; the samplers' own D and
    their iterates stay exact, as in the authors' code. Gradients pass straight through.
    """

    kind: str
    steps: int = Field(ge=1)
    quantize: bool = False


@dataclass(frozen=True)
class Draw:
    """What is random about one degradation of each image: a frozen dataclass of batch-first tensors.

    Handed to every D(., t, draw) of a sampling run, so that all t see the same mask, snow or noise.
    Made by `Degradation.draw` from seeds; anyone may construct one by hand. A field is None where its degradation's
    configuration leaves nothing to chance.
    """

    def to(self, device: torch.device | str) -> Self:
        """The same draw on another device."""
        return self._each(lambda value: value.to(device))

    def __getitem__(self, index: slice | Tensor) -> Self:
        """The draws of some of the images: a slice, int64 indices or a boolean mask."""
        return self._each(lambda value: value[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: None if value is None else change(value) for name, value in values.items()})


class Degradation(ABC):
    """D(x, t): severity t = 0..T of an image x, with D(x, 0) = x.

    A subclass sets `config_type` and implements `_degrade`, which costs the same for every t and may use neither
    data-dependent control flow nor randomness other than its draw. One that is random also sets `draw_type` and
    implements `_draw_shapes` and `draw`. Instances are immutable, cheap to pickle (their configuration is; tables are
    rebuilt) and hold no device: they follow that of their inputs. `coldtune.testing` checks all that is said here.
    """

    config_type: ClassVar[type[DegradationConfig]]
    draw_type: ClassVar[type[Draw]] = Draw
    continuous: ClassVar[bool] = True
    """Whether D changes little from one t to the next, so that TACoS forgives an imperfect restorer (3.3)."""
    estimable: ClassVar[bool] = False
    """Whether `estimate` can tell the draw from x_s and an estimate of x_0, as `sampler.draw: estimated` needs."""
    gaussian: ClassVar[bool] = False
    """Whether its draw is Gaussian, so that two may be mixed into one of the same law, as `sampler.eta` needs."""

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

    @property
    def random(self) -> bool:
        """Whether D needs a draw."""
        return bool(self._draw_shapes())

    @property
    def per_image(self) -> bool:
        """Whether an image's draw depends on its own seed alone, and so not on how images are batched."""
        return True

    def draw(self, seeds: Tensor) -> Draw | None:
        """The randomness of one degradation per image, from seeds int64 (B,); None where D is deterministic."""
        return None

    def lost(self, t: int, draw: Draw | None = None) -> Tensor | None:
        """The share of the information that D(., t) has taken away, by this degradation's own measure.

        From 0 at t = 0 up to 1, never falling in t; float64 () or, where it depends on the draw, (B,). None where no
        such measure is declared. Compare settings whose lost(T) are equal: the less is lost, the better every FID.
        """
        return None

    def estimate(self, x_s: Tensor, x0_hat: Tensor, s: int) -> Draw:
        """The draw for which D(x0_hat, s, draw) = x_s, s >= 1; only of a degradation that is `estimable`."""
        raise NotImplementedError(f"{self.kind} declares itself estimable, and cannot estimate")

    def blend(self, kept: Draw, new: Draw, s: int, s_next: int, eta: float) -> Draw:
        """The draw of D(., s_next) that is part `kept`, part `new` (A.8); only of one that is `gaussian`."""
        raise NotImplementedError(f"{self.kind} declares itself Gaussian, and cannot blend")

    def __call__(self, x0: Tensor, t: int | Tensor, draw: Draw | None = None) -> Tensor:
        """D(x0, t): a new tensor of the shape, dtype and device of x0; differentiable in x0.

        x0: (B, C, H, W), floating, in [-1, 1] by convention. t: an int for the whole batch or int64 (B,), 0..T, on the
        device of x0; severities may differ within the batch. draw: what `draw(seeds)` made for these images.
        Half-precision images are degraded in float32 and rounded once.
        ValueError for a wrong shape, dtype, device, t or draw. On a GPU a tensor t is checked on the device, without
        waiting for it: an out-of-range value then stops the program at its next synchronisation.
        """
        return self._checked(x0, t, draw, quantize=self.config.quantize)

    def exact(self, x0: Tensor, t: int | Tensor, draw: Draw | None = None) -> Tensor:
        """D(x0, t) without the truncation of `quantize`: what samplers step with."""
        return self._checked(x0, t, draw, quantize=False)

    @abstractmethod
    def _degrade(self, x0: Tensor, t: int | Tensor, draw: Draw | None) -> Tensor:
        """D(x0, t) for checked inputs, x0 of float32 or float64, outside autocast.

        What it returns where t = 0 is replaced by x0.
        """

    def _draw_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The fields of the draw that this configuration leaves to chance, with their shapes for one image."""
        return {}

    def _checked(self, x0: Tensor, t: int | Tensor, draw: Draw | None, quantize: bool) -> Tensor:
        self.check_images("x0", x0)
        clean: Tensor | None = None
        if isinstance(t, Tensor):
            clean = per_image(t == 0) if self._check_tensor(t, x0) else None
        else:
            t = self._check_number(t)
        self._check_draw(draw, x0)
        if isinstance(t, int) and t == 0:
            return x0.clone()
        with torch.autocast(x0.device.type, enabled=False):
            degraded = self._degrade(x0.to(computing_dtype(x0.dtype)), t, draw)
            degraded = (truncate_to_8_bit(degraded) if quantize else degraded).to(x0.dtype)
        # Imposed, not hoped for: reduced-precision matmuls (TF32) and formulas that miss x at t = 0 would break it.
        return degraded if clean is None else torch.where(clean, x0, degraded)

    def check_images(self, name: str, images: Tensor) -> None:
        """ValueError unless `images` is a floating (B, C, H, W) tensor of this degradation's image shape."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            expected = ", ".join(str(size) for size in self.image_shape)
            raise ValueError(f"{name} of shape {tuple(images.shape)}: must be (B, {expected})")
        if not images.is_floating_point():
            raise ValueError(f"{name} of dtype {images.dtype}: must be floating point, in [-1, 1]")

    def _check_draw(self, draw: Draw | None, x0: Tensor) -> None:
        shapes = self._draw_shapes()
        if not shapes:
            if draw is not None:
                raise ValueError(f"draw = {type(draw).__name__}(...): {self.kind} is deterministic; allowed: None")
            return
        if not isinstance(draw, self.draw_type):
            shown = "None" if draw is None else f"{type(draw).__name__}(...)"
            raise ValueError(
                f"draw = {shown}: this {self.kind} is random; hand in draw(seeds), a {self.draw_type.__name__}"
            )
        for field in fields(draw):
            value, shape = getattr(draw, field.name), shapes.get(field.name)
            if (value is None) != (shape is None):
                needs = "set by the configuration; allowed: None" if shape is None else f"must be (B, *{shape})"
                raise ValueError(f"draw.{field.name} = {'None' if value is None else 'Tensor'}: {needs}")
            if shape is None:
                continue
            if tuple(value.shape) != (len(x0), *shape):
                raise ValueError(f"draw.{field.name} of shape {tuple(value.shape)}: must be {(len(x0), *shape)}")
            if value.device != x0.device:
                raise ValueError(f"draw.{field.name} on {value.device}: must be on the device of x0, {x0.device}")

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
        return check_range("t", t, 0, self.steps)

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


def check_range(name: str, values: Tensor, low: int, high: int) -> bool:
    """Whether integers in low..high may contain `low`. ValueError, on the CPU, where any is out of range.

    Looks at values only where that is free. On a GPU the check is made on the device, without waiting for it: a wrong
    value then stops the program at its next synchronisation.
    """
    if values.device.type == "cpu" and not torch.compiler.is_compiling() and len(values):
        least, most = (int(bound) for bound in values.aminmax())
        if least < low or most > high:
            raise ValueError(f"{name} with values {least}..{most}: must be in {low}..{high}")
        return least == low
    if values.device.type in ("cpu", "cuda"):
        torch._assert_async(((values >= low) & (values <= high)).all(), f"{name} must be in {low}..{high}")
    return True


def per_image(values: Tensor) -> Tensor:
    """One number for each image, (B,), or one for all, (), in a shape that multiplies (B, C, H, W)."""
    return values.reshape(-1, 1, 1, 1)


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision in which a degradation works: float64 for float64 images, float32 for all others.

    Half-precision images are degraded in float32 and rounded once: TACoS takes differences of neighbouring severities,
    which half-precision tables would drown.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32
