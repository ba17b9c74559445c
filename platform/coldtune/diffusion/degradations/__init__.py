"""Degradations D(x, t), each in its own file. `build_degradation` makes them from their configurations."""

from coldtune.diffusion.degradations.animorph import Animorph, AnimorphConfig, AnimorphDraw
from coldtune.diffusion.degradations.base import Degradation, DegradationConfig, Draw
from coldtune.diffusion.degradations.blur import Blur, BlurConfig, leftover
from coldtune.diffusion.degradations.desaturate import Desaturate, DesaturateConfig
from coldtune.diffusion.degradations.downsample import Downsample, DownsampleConfig
from coldtune.diffusion.degradations.endpoint import STARTS, OutOfReachError, leftover_of, start_for_leftover
from coldtune.diffusion.degradations.mask import Mask, MaskConfig, MaskDraw
from coldtune.diffusion.degradations.noise import Noise, NoiseConfig, NoiseDraw
from coldtune.diffusion.degradations.registry import DEGRADATIONS, build_degradation, degradation_config, source_of
from coldtune.diffusion.degradations.snow import Snow, SnowConfig, SnowDraw

__all__ = [
    "DEGRADATIONS",
    "STARTS",
    "Animorph",
    "AnimorphConfig",
    "AnimorphDraw",
    "Blur",
    "BlurConfig",
    "Degradation",
    "DegradationConfig",
    "Desaturate",
    "DesaturateConfig",
    "Downsample",
    "DownsampleConfig",
    "Draw",
    "Mask",
    "MaskConfig",
    "MaskDraw",
    "Noise",
    "NoiseConfig",
    "NoiseDraw",
    "OutOfReachError",
    "Snow",
    "SnowConfig",
    "SnowDraw",
    "build_degradation",
    "degradation_config",
    "leftover",
    "leftover_of",
    "source_of",
    "start_for_leftover",
]
