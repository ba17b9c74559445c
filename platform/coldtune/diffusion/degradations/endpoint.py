"""Solving for the start of a schedule: bisection on a quantity that falls as the start grows."""

from __future__ import annotations

import math
from collections.abc import Callable

_RELATIVE_WIDTH = 1e-8


class OutOfReachError(ValueError):
    """No start > 0 leads to the leftover asked for, however the rest of a valid configuration is."""


def check_leftover(leftover: float) -> None:
    """ValueError unless 0 < leftover < 1."""
    if not 0 < leftover < 1:
        raise ValueError(f"leftover = {leftover}: must be between 0 and 1, both excluded")


def solve_start(
    log_leftover: Callable[[float], float], bracket: tuple[float, float], leftover: float, what: str
) -> float:
    """The start, to 6 significant digits, at which exp(log_leftover(start)) is `leftover`.

    log_leftover: falls as its argument grows over `bracket`, positive. OutOfReachError with the reachable range, of
    `what`, where the bracket's ends do not enclose it.
    """
    low, high = bracket
    target, most, least = math.log(leftover), log_leftover(low), log_leftover(high)
    if not least <= target <= most:
        raise OutOfReachError(
            f"leftover = {leftover:g}: out of reach of {what}, whose reachable range is {math.exp(least):.3g} to "
            f"{math.exp(most):.3g}"
        )
    while high / low > 1 + _RELATIVE_WIDTH:
        middle = math.sqrt(low * high)
        if log_leftover(middle) > target:
            low = middle
        else:
            high = middle
    return float(f"{math.sqrt(low * high):.6g}")
