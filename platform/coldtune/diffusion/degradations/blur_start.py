"""Where a blur must start in order to end with a given leftover."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from coldtune.config import parse
from coldtune.diffusion.degradations.base import check_image_shape
from coldtune.diffusion.degradations.blur import BlurConfig, log_leftover
from coldtune.diffusion.degradations.endpoint import check_leftover, solve_start

# Far below the pixel grid a kernel is the identity; far above its own size it is flat.
_SMALLEST_SIGMA = 1e-2
_LARGEST_SIGMA_IN_KERNELS = 1e3


def blur_start_for_leftover(
    config: BlurConfig | Mapping[str, Any], image_shape: Sequence[int], leftover: float
) -> float:
    """The sigma.start, to 6 significant digits, with which the blur of `config` ends with `leftover`.

    config: any start; its schedule, rate, T, kernel and padding are kept. leftover: in (0, 1), as `leftover()` measures
    it. Found by bisection: a larger start blurs more. So rate, schedule, T and kernel change the path of a search's
    trials, never their end. OutOfReachError with the reachable range where no start > 0 leads there: with few or small
    steps even flat kernels leave more (the lower end), and a linear growth blurs from start 0 already (the upper end).
    """
    config = parse(BlurConfig, config, where="degradation")
    shape = check_image_shape(image_shape)
    check_leftover(leftover)
    if config.collapse_final:
        raise ValueError("degradation.collapse_final = True: nothing is left over at T, whatever sigma.start")
    what = (
        f"T = {config.steps}, kernel_size = {config.kernel_size}, {config.sigma.schedule} rate = {config.sigma.rate} "
        f"at {shape[1]}x{shape[2]} px"
    )
    return solve_start(lambda start: log_leftover(_with_start(config, start), shape), _bracket(config), leftover, what)


def _bracket(config: BlurConfig) -> tuple[float, float]:
    """The smallest and the largest start worth trying."""
    growth = (config.sigma.rate or 0.0) * (config.steps - 1)
    largest = _LARGEST_SIGMA_IN_KERNELS * config.kernel_size
    match config.sigma.schedule:
        case "linear":
            return max(-growth, 0.0) + _SMALLEST_SIGMA, largest + max(-growth, 0.0)
        case "exponential":
            return _SMALLEST_SIGMA * math.exp(-max(growth, 0.0)), largest * math.exp(-min(growth, 0.0))
        case "constant":
            return _SMALLEST_SIGMA, largest


def _with_start(config: BlurConfig, start: float) -> BlurConfig:
    return config.model_copy(update={"sigma": config.sigma.model_copy(update={"start": start})})
