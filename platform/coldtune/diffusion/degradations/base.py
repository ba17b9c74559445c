"""The base class of all degradations D(x, t), with its configuration and its draw."""

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
    """The configuration keys that every degradation has.

    Attributes:
        kind: The name under which the degradation is registered.
        steps: T, the number of steps, at most 10,000. Some degradations hold a table of every step in memory.
        quantize: Truncate D(x, t) to 8 bit for every t >= 1, as the authors do for masks. Otherwise the faint rest of a
            masked pixel, in floating point, gives the image away (A.2). The truncation applies to the images that
            training sees and to x_T. The samplers' own D and their iterates stay exact, as in the authors' code.
            Gradients pass straight through.
    """

    kind: str
    steps: int = Field(ge=1, le=10_000)
    quantize: bool = False

    def lengths(self) -> tuple[str, ...]:
        """Return the dotted keys whose values are lengths in pixels, so that they depend on the size of the images."""
        return ()


@dataclass(frozen=True)
class Draw:
    """The random part of a degradation, for each image of a batch: a frozen dataclass of batch-first tensors.

    Every D(., t, draw) of a sampling run gets the same draw, so that all t see the same mask, snow or noise.
    `Degradation.draw` makes a draw from seeds, and anyone may construct a draw by hand. A field is None if the
    configuration leaves nothing to chance in it.
    """

    def to(self, device: torch.device | str) -> Self:
        """Return the same draw on another device."""
        return self._each(lambda value: value.to(device))

    def __getitem__(self, index: slice | Tensor) -> Self:
        """Return the draws of some of the images, chosen by a slice, int64 indices or a boolean mask."""
        return self._each(lambda value: value[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: None if value is None else change(value) for name, value in values.items()})


class Degradation(ABC):
    """A degradation D(x, t) of an image x, with severity t = 0..T and D(x, 0) = x.

    A subclass sets `config_type` and implements `_degrade`. That method must cost the same for every t, and it may use
    neither data-dependent control flow nor randomness other than its draw. A random degradation also sets `draw_type`
    and implements `_draw_shapes` and `draw`.

    Instances are immutable. They are cheap to pickle, because a pickle holds the configuration and the tables are
    rebuilt. They belong to no device and compute on the device of their inputs. `coldtune.testing.DegradationSuite`
    checks all of this.
    """

    config_type: ClassVar[type[DegradationConfig]]
    draw_type: ClassVar[type[Draw]] = Draw
    continuous: ClassVar[bool] = True
    """True if D changes little from t to t + 1, so that TACoS forgives an imperfect restorer (3.3)."""
    estimable: ClassVar[bool] = False
    """True if `estimate` can compute the draw from x_s and an estimate of x_0. `sampler.draw: estimated` needs it."""
    gaussian: ClassVar[bool] = False
    """True if the draw is Gaussian, so that two draws mix into a third of the same law. `sampler.eta` needs it."""

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
        """True if D needs a draw."""
        return bool(self._draw_shapes())

    @property
    def per_image(self) -> bool:
        """True if the draw of an image depends only on its own seed, and so not on how images are batched."""
        return True

    def draw(self, seeds: Tensor) -> Draw | None:
        """Draw the randomness of D for each image.

        Args:
            seeds: int64 (B,), a seed for each image.

        Returns:
            The draw, or None if the degradation is deterministic.
        """
        return None

    def lost(self, t: int, draw: Draw | None = None) -> Tensor | None:
        """Return the share of the information that D(., t) has taken away, by this degradation's own measure.

        Compare only settings whose lost(T) are equal: the less is lost, the better every FID.

        Returns:
            A share from 0 at t = 0 up to 1 that never falls in t. It is float64 of shape (), or of shape (B,) if the
            share depends on the draw. None if the degradation declares no such measure.
        """
        return None

    def estimate(self, x_s: Tensor, x0_hat: Tensor, s: int) -> Draw:
        """Compute the draw for which D(x0_hat, s, draw) = x_s, for s >= 1. Call it only if `estimable` is True."""
        raise NotImplementedError(f"{self.kind} declares itself estimable, but does not implement estimate")

    def blend(self, kept: Draw, new: Draw, s: int, s_next: int, eta: float) -> Draw:
        """Mix `kept` and `new` into a draw of D(., s_next), with more of `new` for a larger eta (A.8).

        Call it only if `gaussian` is True.
        """
        raise NotImplementedError(f"{self.kind} declares itself Gaussian, but does not implement blend")

    def __call__(self, x0: Tensor, t: int | Tensor, draw: Draw | None = None) -> Tensor:
        """Degrade images: compute D(x0, t), differentiable in x0.

        Half-precision images are degraded in float32 and rounded once.

        Args:
            x0: Floating (B, C, H, W), in [-1, 1] by convention.
            t: The severity, 0..T. Either an int for the whole batch, or int64 (B,) on the device of x0. Severities may
                differ within a batch.
            draw: The result of `draw(seeds)` for these images. None if the degradation is deterministic.

        Returns:
            A new tensor of the shape, dtype and device of x0.

        Raises:
            ValueError: If a shape, dtype, device, severity or the draw is wrong. On a GPU, a tensor t is checked on the
                device and nothing waits for the check. An out-of-range value then stops the program at its next
                synchronisation.
        """
        return self._checked(x0, t, draw, quantize=self.config.quantize)

    def exact(self, x0: Tensor, t: int | Tensor, draw: Draw | None = None) -> Tensor:
        """Compute D(x0, t) without the truncation of `quantize`. Samplers step with it."""
        return self._checked(x0, t, draw, quantize=False)

    @abstractmethod
    def _degrade(self, x0: Tensor, t: int | Tensor, draw: Draw | None) -> Tensor:
        """Compute D(x0, t) for checked inputs, with x0 of float32 or float64, outside autocast.

        For images with t = 0 the caller replaces the result by x0.
        """

    def _draw_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the fields of the draw that this configuration leaves to chance, with the shape for one image."""
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
        # D(x, 0) = x is enforced here, because reduced-precision matmuls (TF32) and some formulas miss x at t = 0.
        return degraded if clean is None else torch.where(clean, x0, degraded)

    def check_images(self, name: str, images: Tensor) -> None:
        """Raise ValueError unless `images` is a floating (B, C, H, W) tensor of this degradation's image shape."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            expected = ", ".join(str(size) for size in self.image_shape)
            raise ValueError(f"{name} of shape {tuple(images.shape)}: must be (B, {expected})")
        if not images.is_floating_point():
            raise ValueError(f"{name} of dtype {images.dtype}: must be floating point, in [-1, 1]")

    def _check_draw(self, draw: Draw | None, x0: Tensor) -> None:
        shapes = self._draw_shapes()
        if not shapes:
            if draw is not None:
                raise ValueError(
                    f"draw = {type(draw).__name__}(...): must be None, because {self.kind} is deterministic"
                )
            return
        if not isinstance(draw, self.draw_type):
            shown = "None" if draw is None else f"{type(draw).__name__}(...)"
            raise ValueError(
                f"draw = {shown}: must be a {self.draw_type.__name__}, because this {self.kind} is random. "
                "draw(seeds) makes it."
            )
        for field in fields(draw):
            value, shape = getattr(draw, field.name), shapes.get(field.name)
            if (value is None) != (shape is None):
                needs = "must be None, because the configuration sets it" if shape is None else f"must be (B, *{shape})"
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
        """Check a tensor of severities. Return False only if it certainly contains no 0."""
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
    """Return (C, H, W) as a tuple. Raise ValueError unless it is three positive integers."""
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(isinstance(size, int) and size >= 1 for size in shape):
        raise ValueError(f"image_shape = {image_shape!r}: must be (C, H, W), three positive integers")
    return shape[0], shape[1], shape[2]


def check_range(name: str, values: Tensor, low: int, high: int) -> bool:
    """Check that integers lie in low..high, and tell whether `low` may be among them.

    Values are read only if reading them is free, which it is on the CPU outside of compilation. Otherwise the device
    checks the values and nothing waits for the check: a wrong value stops the program at its next synchronisation.

    Returns:
        False only if the values were read and `low` is not among them.

    Raises:
        ValueError: If a value is out of range and was read.
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
    """Reshape one number per image, (B,), or one number for all, (), so that it multiplies (B, C, H, W)."""
    return values.reshape(-1, 1, 1, 1)


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the precision in which a degradation works: float64 for float64 images, float32 for all others.

    Half-precision images are degraded in float32 and rounded once. TACoS takes differences of neighbouring severities,
    and the rounding errors of half-precision tables would be larger than these differences.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32
