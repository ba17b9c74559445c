"""Where a mask must start in order to end with a given leftover."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from coldtune.config import parse
from coldtune.diffusion.degradations.base import check_image_shape
from coldtune.diffusion.degradations.endpoint import check_leftover, solve_start
from coldtune.diffusion.degradations.mask import Mask, MaskConfig

# Of a hundredth of a pixel, a mask takes the centre alone; of a hundred times the image, it leaves nothing.
_SMALLEST_BETA = 1e-2
_LARGEST_BETA_IN_IMAGES = 1e2


def mask_start_for_leftover(
    config: MaskConfig | Mapping[str, Any], image_shape: Sequence[int], leftover: float
) -> float:
    """The beta.start, to 6 significant digits, with which the masks of `config` leave the mean weight `leftover`.

    config: any start; its step, T, centre and fill are kept. leftover: in (0, 1), as `Mask.leftover`. A wider first
    mask takes more. So step and T change the path of a search's trials, never how much of an image its end has left.
    OutOfReachError with the reachable range where no start > 0 leads there: growing by `step` for T steps, the masks
    take their share whatever the first one's width. ValueError for order = "reverse", which leaves nothing.
    """
    config = parse(MaskConfig, config, where="degradation")
    shape = check_image_shape(image_shape)
    check_leftover(leftover)
    if config.order == "reverse":
        raise ValueError("degradation.order = 'reverse': nothing is left over at T, whatever beta.start")
    # Every beta must be positive: masks that shrink start above what they lose on the way.
    shrinking = max(-config.beta.step * (config.steps - 1), 0.0)
    bracket = (shrinking + _SMALLEST_BETA, shrinking + _LARGEST_BETA_IN_IMAGES * max(shape[1:]))
    what = (
        f"T = {config.steps}, beta.step = {config.beta.step:g}, center = {config.center!r} at {shape[1]}x{shape[2]} px"
    )
    return solve_start(lambda start: _log_leftover(config, start, shape), bracket, leftover, what)


def _log_leftover(config: MaskConfig, start: float, image_shape: tuple[int, int, int]) -> float:
    beta = config.beta.model_copy(update={"start": start})
    left = Mask(config.model_copy(update={"beta": beta}), image_shape).leftover
    return math.log(left) if left > 0 else -math.inf
