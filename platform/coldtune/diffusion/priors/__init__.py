"""Priors: distributions of x_T for generation, each in its own file. `build_prior` makes them."""

from coldtune.diffusion.priors.base import Prior, PriorConfig, Start, State
from coldtune.diffusion.priors.color import ColorPrior, ColorPriorConfig
from coldtune.diffusion.priors.drawn import DatasetPrior, DatasetPriorConfig, NormalPrior, NormalPriorConfig
from coldtune.diffusion.priors.gaussian import GaussianPrior, GaussianPriorConfig
from coldtune.diffusion.priors.gmm import GmmPrior, GmmPriorConfig
from coldtune.diffusion.priors.images import DataPrior, DataPriorConfig
from coldtune.diffusion.priors.registry import PRIORS, build_prior, prior_config

__all__ = [
    "PRIORS",
    "ColorPrior",
    "ColorPriorConfig",
    "DataPrior",
    "DataPriorConfig",
    "DatasetPrior",
    "DatasetPriorConfig",
    "GaussianPrior",
    "GaussianPriorConfig",
    "GmmPrior",
    "GmmPriorConfig",
    "NormalPrior",
    "NormalPriorConfig",
    "Prior",
    "PriorConfig",
    "Start",
    "State",
    "build_prior",
    "prior_config",
]
