"""The start of a degradation's schedule that gives its end: for searches in which only the path may vary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coldtune.diffusion.degradations.base import DegradationConfig
from coldtune.diffusion.degradations.blur_start import blur_start_for_leftover
from coldtune.diffusion.degradations.mask_start import mask_start_for_leftover
from coldtune.diffusion.degradations.registry import build_degradation, degradation_config

# kind -> the key that its end follows from, and what finds its value
STARTS: dict[str, tuple[str, Callable[[Any, Sequence[int], float], float]]] = {
    "blur": ("sigma.start", blur_start_for_leftover),
    "mask": ("beta.start", mask_start_for_leftover),
}


def start_for_leftover(
    config: DegradationConfig | Mapping[str, Any], image_shape: Sequence[int], leftover: float
) -> float:
    """The value of `sigma.start` (blur) or `beta.start` (mask) with which a degradation ends with `leftover`, 0..1.

    See `blur_start_for_leftover` and `mask_start_for_leftover`; OutOfReachError where no value does. ValueError for
    other kinds: their ends do not follow from one number.
    """
    parsed = degradation_config(config)
    if parsed.kind not in STARTS:
        raise ValueError(
            f"degradation.kind = {parsed.kind!r}: its end does not follow from a start; allowed: {_kinds()}"
        )
    return STARTS[parsed.kind][1](parsed, image_shape, leftover)


def leftover_of(config: DegradationConfig | Mapping[str, Any], image_shape: Sequence[int]) -> float:
    """How much of an image a degradation leaves at t = T: see `Blur.leftover` and `Mask.leftover`.

    ValueError for kinds that have no such number.
    """
    value = getattr(build_degradation(config, image_shape), "leftover", None)
    if value is None:
        raise ValueError(
            f"degradation.kind = {degradation_config(config).kind!r}: has no leftover; allowed: {_kinds()}"
        )
    return float(value)


def _kinds() -> str:
    return ", ".join(STARTS)
