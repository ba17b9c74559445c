"""Generalised diffusion in pure torch: degradations, samplers, the restorer, and randomness that is a value."""

from coldtune.diffusion.degradations import (
    Blur,
    BlurConfig,
    Degradation,
    DegradationConfig,
    Draw,
    build_degradation,
    degradation_config,
    leftover,
    start_for_leftover,
)
from coldtune.diffusion.restorer import Restorer, RestorerConfig, build_restorer
from coldtune.diffusion.samplers import SamplerConfig, nfe, sample
from coldtune.diffusion.schedules import SigmaConfig

__all__ = [
    "Blur",
    "BlurConfig",
    "Degradation",
    "DegradationConfig",
    "Draw",
    "Restorer",
    "RestorerConfig",
    "SamplerConfig",
    "SigmaConfig",
    "build_degradation",
    "build_restorer",
    "degradation_config",
    "leftover",
    "nfe",
    "sample",
    "start_for_leftover",
]
