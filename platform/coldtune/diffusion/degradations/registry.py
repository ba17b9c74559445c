"""The registry of degradations. A new degradation is a file, an import and a line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from coldtune.config import parse, shorten
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
    """Build the degradation D(x, t) that `config` describes, for images of shape (C, H, W).

    Example:
        A mask with a random centre. The centre is part of the draw, which is made from a seed for each image.

        >>> import coldtune, torch
        >>> d = coldtune.build_degradation(
        ...     {"kind": "mask", "steps": 50, "beta": {"start": 1, "step": 0.1}, "center": "random"},
        ...     image_shape=(3, 32, 32),
        ... )
        >>> x0 = torch.rand(8, 3, 32, 32) * 2 - 1  # eight images in [-1, 1]
        >>> draw = d.draw(seeds=torch.arange(8))
        >>> x_T = d(x0, d.steps, draw)
        >>> x_t = d(x0, torch.tensor([0, 1, 5, 10, 20, 30, 40, 50]), draw)  # one severity per image
        >>> torch.equal(x_t[0], x0[0]) and torch.equal(x_t[7], x_T[7])
        True

        A deterministic degradation needs no draw.

        >>> d = coldtune.build_degradation({"kind": "desaturate", "steps": 20}, image_shape=(3, 32, 32))
        >>> d.random
        False
        >>> x_t = d(x0, 10)

    Args:
        config: A mapping with `kind`, `steps` (T) and the keys of that kind, or the configuration object of a
            degradation.
        image_shape: (C, H, W).
        source: The images of the dataset that `config.source` names, uint8 or floating (N, C, H, W). Only animorph has
            a source, and it cannot draw without these images.

    Raises:
        ValueError: If the configuration is not valid for such images. The message names the key, the value and what is
            allowed.
    """
    parsed = degradation_config(config)
    if isinstance(parsed, AnimorphConfig):
        return Animorph(parsed, image_shape, source)
    if source is not None:
        raise ValueError(f"source: must be None, because {parsed.kind} has no source dataset")
    return DEGRADATIONS[parsed.kind](parsed, image_shape)


def degradation_config(config: Mapping[str, Any] | DegradationConfig) -> DegradationConfig:
    """Check a configuration and return it as an object.

    Keys whose limits depend on the size of the images are checked by `build_degradation`.
    """
    if not isinstance(config, DegradationConfig | Mapping):
        raise ValueError(f"degradation = {shorten(config)}: must be a mapping with `kind`")
    kind = config.kind if isinstance(config, DegradationConfig) else config.get("kind")
    if not isinstance(kind, str) or kind not in DEGRADATIONS:
        raise ValueError(f"degradation.kind = {shorten(kind)}: allowed: {', '.join(sorted(DEGRADATIONS))}")
    return parse(DEGRADATIONS[kind].config_type, config, where="degradation")


def source_of(config: Mapping[str, Any] | DegradationConfig) -> str | None:
    """Return the name of the dataset whose images `build_degradation` needs as `source`. None for most kinds."""
    parsed = degradation_config(config)
    return parsed.source if isinstance(parsed, AnimorphConfig) else None
