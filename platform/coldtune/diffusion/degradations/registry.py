"""Which degradations there are. A new one is a file, and a line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from coldtune.config import parse
from coldtune.diffusion.degradations.animorph import Animorph, AnimorphConfig
from coldtune.diffusion.degradations.base import Degradation, DegradationConfig
from coldtune.diffusion.degradations.blur import Blur
from coldtune.diffusion.degradations.desaturate import Desaturate
from coldtune.diffusion.degradations.downsample import Downsample
from coldtune.diffusion.degradations.mask import Mask
from coldtune.diffusion.degradations.noise import Noise
from coldtune.diffusion.degradations.snow import Snow

DEGRADATIONS: dict[str, type[Degradation]] = {
    "animorph": Animorph,
    "blur": Blur,
    "desaturate": Desaturate,
    "downsample": Downsample,
    "mask": Mask,
    "noise": Noise,
    "snow": Snow,
}


def build_degradation(
    config: Mapping[str, Any] | DegradationConfig, image_shape: Sequence[int], source: Tensor | None = None
) -> Degradation:
    """The degradation that `config` describes, for images of `image_shape` (C, H, W).

    config: a mapping with `kind`, `steps` (T) and the keys of that kind, or its configuration object.
    source: the images of the dataset that `config` names as its `source`, uint8 or floating (N, C, H, W); animorph's,
    which cannot draw without them.
    ValueError naming the key, the value and what is allowed.
    """
    parsed = degradation_config(config)
    if isinstance(parsed, AnimorphConfig):
        return Animorph(parsed, image_shape, source)
    if source is not None:
        raise ValueError(f"source: {parsed.kind} has no source dataset; allowed: None")
    return DEGRADATIONS[parsed.kind](parsed, image_shape)


def degradation_config(config: Mapping[str, Any] | DegradationConfig) -> DegradationConfig:
    """The checked configuration of one degradation; what depends on the image's size is checked when it is built."""
    kind = config.kind if isinstance(config, DegradationConfig) else config.get("kind")
    if kind not in DEGRADATIONS:
        raise ValueError(f"degradation.kind = {kind!r}: allowed: {', '.join(sorted(DEGRADATIONS))}")
    return parse(DEGRADATIONS[kind].config_type, config, where="degradation")


def source_of(config: Mapping[str, Any] | DegradationConfig) -> str | None:
    """The name of the dataset whose images `build_degradation` needs as `source` before it can draw; None for most."""
    parsed = degradation_config(config)
    return parsed.source if isinstance(parsed, AnimorphConfig) else None
