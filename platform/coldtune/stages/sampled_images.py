"""Sampling a set of images batch by batch, and the path of the first few from x_T to x_0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from coldtune.data import to_uint8
from coldtune.diffusion import Degradation, Draw, SamplerConfig, nfe, sample
from coldtune.diffusion.samplers import Restore
from coldtune.memory import Batches

STRIP_IMAGES, STRIP_STEPS = 8, 10
"""The images whose path is kept, and the largest number of iterates of a path."""

Start = Callable[[Tensor], tuple[Tensor, Tensor, Draw | None]]
"""Maps image numbers (B,) to their seeds (B,), their x_T (B, C, H, W) and their draws, if D has any."""


def degraded_images(indices: Tensor, start: Start, batch_size: int = 256) -> Tensor:
    """Return x_T of images, uint8 (N, C, H, W).

    Args:
        indices: The numbers of the images, (N,).
        start: Makes x_T.
        batch_size: The number of images in a batch. It affects only the memory used.
    """
    return torch.cat(Batches(batch_size, "sampling").run(indices, lambda chunk: to_uint8(start(chunk)[1]).cpu()))


def sampled_images(
    indices: Tensor,
    start: Start,
    restorer: Restore,
    degradation: Degradation,
    sampler: SamplerConfig,
    progress: Callable[[float], None],
    batch_size: int = 256,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Sample images, in smaller batches if the memory is exhausted.

    Args:
        indices, start, batch_size: As in `degraded_images`.
        restorer: R, with the weights of the sampler.
        degradation: D.
        sampler: The sampler.
        progress: Called with the share of the evaluations that is done, up to 1.

    Returns:
        The images, uint8 (N, C, H, W), and by s the iterates x_s of the first `STRIP_IMAGES`, at most `STRIP_STEPS`.
    """
    total = len(indices) * nfe(sampler, degradation.steps)
    finished = 0
    strip: dict[int, Tensor] = {}

    def make(chunk: Tensor) -> Tensor:
        nonlocal finished
        # A batch that does not fit into memory is begun again in halves, so its evaluations count only at its end.
        done, first = finished, finished == 0
        seeds, x, draw = start(chunk)

        def on_step(step: Mapping[str, Any]) -> None:
            nonlocal done
            done += len(chunk) * sampler.evaluations_per_step
            progress(done / total)
            if first:
                strip[int(step["s"])] = to_uint8(step["x_s"][:STRIP_IMAGES]).cpu()

        rule = sampler.without_weights()
        out = sample(restorer, degradation, x, sampler=rule, draw=draw, callback=on_step, seeds=seeds)
        if first:
            strip[0] = to_uint8(out[:STRIP_IMAGES]).cpu()
        finished = done
        return to_uint8(out).cpu()

    parts = Batches(batch_size, "sampling").run(indices, make)
    return torch.cat(parts), _spread(strip)


def _spread(strip: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return at most STRIP_STEPS of the iterates, evenly spread, with the first and the last among them."""
    steps = sorted(strip, reverse=True)
    if len(steps) > STRIP_STEPS:
        steps = [steps[round(i * (len(steps) - 1) / (STRIP_STEPS - 1))] for i in range(STRIP_STEPS)]
    return {s: strip[s] for s in steps}
