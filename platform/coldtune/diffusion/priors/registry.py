"""Which priors there are. A new one is a file, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coldtune.config import parse
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
    """The prior that `config` describes, for images that end as `d` leaves them.

    config: a mapping with `kind` and the keys of that kind, or its configuration object.
    ValueError naming the key, the value and what is allowed, also where the prior is not that of such a degradation.
    """
    parsed = prior_config(config)
    return PRIORS[parsed.kind](parsed, d)


def prior_config(config: Mapping[str, Any] | PriorConfig) -> PriorConfig:
    """The checked configuration of one prior; whether it fits a degradation is checked when it is built."""
    kind = config.kind if isinstance(config, PriorConfig) else config.get("kind")
    if kind not in PRIORS:
        raise ValueError(f"prior.kind = {kind!r}: allowed: {', '.join(sorted(PRIORS))}")
    return parse(PRIORS[kind].config_type, config, where="prior")
