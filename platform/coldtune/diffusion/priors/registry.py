"""The registry of priors. A new prior is a file, an import and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coldtune.config import parse, shorten
from coldtune.diffusion.degradations.base import Degradation
from coldtune.diffusion.priors.base import Prior, PriorConfig
from coldtune.diffusion.priors.color import ColorPrior
from coldtune.diffusion.priors.drawn import DatasetPrior, NormalPrior
from coldtune.diffusion.priors.gaussian import GaussianPrior
from coldtune.diffusion.priors.gmm import GmmPrior
from coldtune.diffusion.priors.images import DataPrior

PRIORS: dict[str, type[Prior]] = {
    "color": ColorPrior,
    "data": DataPrior,
    "dataset": DatasetPrior,
    "gaussian": GaussianPrior,
    "gmm": GmmPrior,
    "normal": NormalPrior,
}


def build_prior(config: Mapping[str, Any] | PriorConfig, d: Degradation) -> Prior:
    """Build the prior that `config` describes, for the end of the degradation `d`.

    Args:
        config: A mapping with `kind` and the keys of that kind, or the configuration object of a prior.
        d: The degradation whose x_T the prior draws.

    Raises:
        ValueError: If the configuration is not valid, or if the prior does not fit the end of `d`. The message names
            the key, the value and what is allowed.
    """
    parsed = prior_config(config)
    return PRIORS[parsed.kind](parsed, d)


def prior_config(config: Mapping[str, Any] | PriorConfig) -> PriorConfig:
    """Check a configuration and return it as an object.

    `build_prior` checks whether the prior fits a degradation.
    """
    if not isinstance(config, PriorConfig | Mapping):
        raise ValueError(f"prior = {shorten(config)}: must be a mapping with `kind`")
    kind = config.kind if isinstance(config, PriorConfig) else config.get("kind")
    if not isinstance(kind, str) or kind not in PRIORS:
        raise ValueError(f"prior.kind = {shorten(kind)}: allowed: {', '.join(sorted(PRIORS))}")
    return parse(PRIORS[kind].config_type, config, where="prior")
