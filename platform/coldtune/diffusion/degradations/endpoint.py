"""How much of an image is left at t = T, and how to choose a schedule that leaves a given amount.

The weaker the end of a degradation, the better every conditional FID. A search over schedules therefore fixes the
leftover at T and varies only the path to it. For every point of the search, `start_for_leftover` computes the first
value of the schedule from the other settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from coldtune.diffusion.degradations.base import DegradationConfig, check_image_shape
from coldtune.diffusion.degradations.blur import BlurConfig, log_leftover_by_start
from coldtune.diffusion.degradations.mask import Mask, MaskConfig
from coldtune.diffusion.degradations.registry import build_degradation, degradation_config

ImageShape = tuple[int, int, int]

# Far below the pixel grid a kernel is the identity. Far above its own size a kernel is flat.
_SMALLEST_SIGMA = 1e-2
_LARGEST_SIGMA_IN_KERNELS = 1e3
# A mask of a hundredth of a pixel takes only the centre pixel. A mask of a hundred image sides leaves nothing.
_SMALLEST_BETA = 1e-2
_LARGEST_BETA_IN_IMAGES = 1e2
# A kernel wider than the image wraps around it, and its flattest form may leave more than a narrower form. The least is
# looked for among so many starts.
_STARTS_TRIED = 200
# Bisection stops here, well below the 6 significant digits of the result.
_RELATIVE_WIDTH = 1e-8
# Brent's method finds the crossing as exactly as this. A start that lies farther from it than the certain width is on a
# known side.
_EXACT_WIDTH = 1e-13
_CERTAIN_WIDTH = 1e-10
_FARTHEST = 1e4  # below the target, so that Brent's method meets no infinite logarithm


class OutOfReachError(ValueError):
    """An error for a leftover that no start > 0 can produce, given the rest of a valid configuration."""


def start_for_leftover(
    config: DegradationConfig | Mapping[str, Any], image_shape: Sequence[int], leftover: float
) -> float:
    """Find the start of a degradation's schedule that leaves `leftover` of an image at t = T.

    The start is `sigma.start` for a blur and `beta.start` for a mask. A larger start degrades more, so it is found by
    bisection. Only a kernel that is wider than the image leaves more again beyond some start. The result is then the
    smallest such start. All other settings of `config` are kept. They change the path of the degradation, never its
    end.

    Args:
        config: The degradation. The start that it contains does not matter.
        image_shape: (C, H, W).
        leftover: What is left at T, between 0 and 1, as `leftover_of` measures it.

    Returns:
        The start, rounded to 6 significant digits.

    Raises:
        OutOfReachError: If no start > 0 leads to `leftover`. The message shows the range that can be reached. Its
            lower end exists because a few small kernels leave something even if they are flat. Its upper end exists
            because a schedule that grows by a fixed amount per step degrades the image even from a start of 0.
        ValueError: If the end of this degradation does not depend on a start: a kind other than blur and mask, a blur
            with `collapse_final`, a mask with `order = "reverse"`.
    """
    parsed = degradation_config(config)
    if parsed.kind not in STARTS:
        raise ValueError(
            f"degradation.kind = {parsed.kind!r}: its end does not follow from a start; allowed: {_kinds()}"
        )
    shape = check_image_shape(image_shape)
    if not 0 < leftover < 1:
        raise ValueError(f"leftover = {leftover}: must be between 0 and 1, both excluded")
    return STARTS[parsed.kind][1](parsed, shape, leftover)


def leftover_of(config: DegradationConfig | Mapping[str, Any], image_shape: Sequence[int]) -> float:
    """Return how much of an image a degradation leaves at t = T, as `Blur.leftover` and `Mask.leftover` measure it.

    Raises:
        ValueError: If this kind of degradation defines no leftover.
    """
    value = getattr(build_degradation(config, image_shape), "leftover", None)
    if value is None:
        raise ValueError(
            f"degradation.kind = {degradation_config(config).kind!r}: has no leftover; allowed: {_kinds()}"
        )
    return float(value)


def _kinds() -> str:
    return ", ".join(STARTS)


# --- blur


def _blur_start(config: BlurConfig, image_shape: ImageShape, leftover: float) -> float:
    if config.collapse_final:
        raise ValueError("degradation.collapse_final = True: nothing is left over at T, whatever sigma.start")
    setting = (
        f"T = {config.steps}, kernel_size = {config.kernel_size}, {config.sigma.schedule} rate = {config.sigma.rate} "
        f"at {image_shape[1]}x{image_shape[2]} px"
    )

    return _solve(log_leftover_by_start(config, image_shape), _sigma_bracket(config), leftover, setting)


def _sigma_bracket(config: BlurConfig) -> tuple[float, float]:
    """Return the smallest and the largest sigma.start worth trying, such that every sigma of the path is positive."""
    growth = (config.sigma.rate or 0.0) * (config.steps - 1)
    largest = _LARGEST_SIGMA_IN_KERNELS * config.kernel_size
    match config.sigma.schedule:
        case "linear":
            return max(-growth, 0.0) + _SMALLEST_SIGMA, largest + max(-growth, 0.0)
        case "exponential":
            return _SMALLEST_SIGMA * math.exp(-max(growth, 0.0)), largest * math.exp(-min(growth, 0.0))
        case "constant":
            return _SMALLEST_SIGMA, largest


# --- mask


def _mask_start(config: MaskConfig, image_shape: ImageShape, leftover: float) -> float:
    if config.order == "reverse":
        raise ValueError("degradation.order = 'reverse': nothing is left over at T, whatever beta.start")
    # Every beta must be positive, so masks that shrink have to start above the total that they shrink by.
    shrinking = max(-config.beta.step * (config.steps - 1), 0.0)
    bracket = (shrinking + _SMALLEST_BETA, shrinking + _LARGEST_BETA_IN_IMAGES * max(image_shape[1:]))
    setting = (
        f"T = {config.steps}, beta.step = {config.beta.step:g}, center = {config.center!r} "
        f"at {image_shape[1]}x{image_shape[2]} px"
    )

    def log_left(start: float) -> float:
        beta = config.beta.model_copy(update={"start": start})
        left = Mask(config.model_copy(update={"beta": beta}), image_shape).leftover
        return math.log(left) if left > 0 else -math.inf

    return _solve(log_left, bracket, leftover, setting)


STARTS: dict[str, tuple[str, Callable[[Any, ImageShape, float], float]]] = {
    "blur": ("sigma.start", _blur_start),
    "mask": ("beta.start", _mask_start),
}
"""For each kind whose end follows from a single number: the key of that number, and the function that solves for it."""


# --- bisection


def _solve(log_left: Callable[[float], float], bracket: tuple[float, float], leftover: float, setting: str) -> float:
    """Find the start at which `log_left` equals log(leftover), by bisection to 6 significant digits.

    Args:
        log_left: The logarithm of the leftover as a function of the start. It falls over `bracket`, or falls to its
            least value and rises behind it.
        bracket: The smallest and the largest start to try, both positive.
        leftover: The target.
        setting: What is kept fixed, for the message.

    Raises:
        OutOfReachError: If the target lies above the value at the lower end of `bracket`, or below the least value.
    """
    low, high = bracket
    target, most, least = math.log(leftover), log_left(low), log_left(high)
    if target < least:
        high = _lowest(log_left, low, high)
        least = log_left(high)
    if not least <= target <= most:
        raise OutOfReachError(
            f"leftover = {leftover:g}: out of reach of {setting}, whose reachable range is {math.exp(least):.3g} to "
            f"{math.exp(most):.3g}"
        )
    # The steps of the bisection decide the last digit, so they stay. Most of them need no evaluation.
    crossing = _crossing(log_left, low, high, target)
    certain = _certain_width(log_left, (low, high), crossing, target)
    while high / low > 1 + _RELATIVE_WIDTH:
        middle = math.sqrt(low * high)
        known = abs(middle / crossing - 1) > certain
        if middle < crossing if known else log_left(middle) > target:
            low = middle
        else:
            high = middle
    return float(f"{math.sqrt(low * high):.6g}")


def _crossing(log_left: Callable[[float], float], low: float, high: float, target: float) -> float:
    """Return the start between `low` and `high` at which `log_left` crosses `target`."""
    from scipy import optimize  # slow to import, and needed only here

    def above(log_start: float) -> float:
        return max(log_left(math.exp(log_start)) - target, -_FARTHEST)

    ends = math.log(low), math.log(high)
    if above(ends[0]) <= 0:  # the logarithm may round the end to the other side
        return low
    if above(ends[1]) >= 0:
        return high
    return math.exp(optimize.brentq(above, *ends, xtol=_EXACT_WIDTH))


def _certain_width(
    log_left: Callable[[float], float], bracket: tuple[float, float], crossing: float, target: float
) -> float:
    """Return how far from the crossing rounding errors of `log_left` no longer decide on which side a start lies."""
    low, high = bracket
    width = _CERTAIN_WIDTH
    while width < 1:
        before, behind = max(low, crossing * (1 - width)), min(high, crossing * (1 + width))
        if log_left(before) > target >= log_left(behind):
            return width
        width *= 100
    return math.inf


def _lowest(log_left: Callable[[float], float], low: float, high: float) -> float:
    """Return the start between `low` and `high` that leaves least, as far as it can be found."""
    from scipy import optimize  # slow to import, and rarely needed

    starts = np.geomspace(low, high, _STARTS_TRIED)
    lowest = int(np.argmin([log_left(float(start)) for start in starts]))
    around = (starts[max(lowest - 1, 0)], starts[min(lowest + 1, _STARTS_TRIED - 1)])
    found = optimize.minimize_scalar(log_left, bounds=around, method="bounded")
    return float(min(found.x, starts[lowest], key=log_left))
