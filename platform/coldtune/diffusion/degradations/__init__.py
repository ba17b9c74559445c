"""Degradations D(x, t), one file each; `build_degradation` makes one from its configuration."""

from coldtune.diffusion.degradations.base import Degradation, DegradationConfig, Draw
from coldtune.diffusion.degradations.blur import Blur, BlurConfig, leftover
from coldtune.diffusion.degradations.blur_start import start_for_leftover
from coldtune.diffusion.degradations.registry import DEGRADATIONS, build_degradation, degradation_config

__all__ = [
    "DEGRADATIONS",
    "Blur",
    "BlurConfig",
    "Degradation",
    "DegradationConfig",
    "Draw",
    "build_degradation",
    "degradation_config",
    "leftover",
    "start_for_leftover",
]
