"""Which degradations there are. A new one is a file, and a line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coldtune.config import parse
from coldtune.diffusion.degradations.base import Degradation, DegradationConfig
from coldtune.diffusion.degradations.blur import Blur

DEGRADATIONS: dict[str, type[Degradation]] = {
    "blur": Blur,
}


def build_degradation(config: Mapping[str, Any] | DegradationConfig, image_shape: Sequence[int]) -> Degradation:
    """The degradation that `config` describes, for images of `image_shape` (C, H, W).

    config: a mapping with `kind`, `steps` (T) and the keys of that kind, or its configuration object.
    ValueError naming the key, the value and what is allowed.
    """
    parsed = degradation_config(config)
    return DEGRADATIONS[parsed.kind](parsed, image_shape)


def degradation_config(config: Mapping[str, Any] | DegradationConfig) -> DegradationConfig:
    """The checked configuration of one degradation; what depends on the image's size is checked when it is built."""
    kind = config.kind if isinstance(config, DegradationConfig) else config.get("kind")
    if kind not in DEGRADATIONS:
        raise ValueError(f"degradation.kind = {kind!r}: allowed: {', '.join(sorted(DEGRADATIONS))}")
    return parse(DEGRADATIONS[kind].config_type, config, where="degradation")
