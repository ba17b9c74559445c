"""Sampling: from a degraded image x_T back to x_0 (the paper's Algorithms 1 and 2, and direct restoration)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from coldtune.config import Config, parse
from coldtune.diffusion.degradations.base import Degradation, Draw

Restore = Callable[[Tensor, Tensor], Tensor]
"""A restorer R: (x (B,C,H,W), t int64 (B,), the same for all) -> the estimate of x_0, of the shape of x."""

StepCallback = Callable[[dict[str, Any]], object]


class SamplerConfig(Config):
    """How to sample; each key is a choice of its own.

    algorithm: direct is R(x_T, T); naive is Algorithm 1; tacos is Algorithm 2, the paper's, which forgives an imperfect
    restorer where D is smooth in t.
    draw: fixed uses the draw that was handed in for every D of the run.
    num_steps: a stride: about equal steps on the integer grid T..0, with so many evaluations of the network; None is
    every step, T of them. Fewer steps are cheaper, and closer to direct.
    """

    algorithm: Literal["direct", "naive", "tacos"] = "tacos"
    draw: Literal["fixed"] = "fixed"
    num_steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _direct_has_no_stride(self) -> Self:
        if self.algorithm == "direct" and self.num_steps is not None:
            raise ValueError(f"num_steps = {self.num_steps}: direct restoration is one evaluation; leave it out")
        return self

    def severities(self, steps: int) -> list[int]:
        """T, ..., 0 as the sampler visits them: the network sees all but the last. steps: T.

        ValueError where num_steps is more than T.
        """
        count = 1 if self.algorithm == "direct" else self.num_steps or steps
        if count > steps:
            raise ValueError(f"sampler.num_steps = {count}: at most the degradation's steps, {steps}")
        # Round half up in integers: strictly decreasing, since neighbours are at least 1 apart.
        return [(2 * steps * (count - i) + count) // (2 * count) for i in range(count + 1)]


def nfe(sampler: SamplerConfig | Mapping[str, Any], steps: int) -> int:
    """How many times `sample` evaluates the network for each image of a degradation with T = steps."""
    return len(parse(SamplerConfig, sampler, where="sampler").severities(steps)) - 1


@torch.no_grad()
def sample(
    restorer: Restore,
    d: Degradation,
    x_T: Tensor,
    sampler: SamplerConfig | Mapping[str, Any] | None = None,
    draw: Draw | None = None,
    callback: StepCallback | None = None,
) -> Tensor:
    """x_0 from x_T (B, C, H, W): a new tensor of its dtype and device; nothing is clamped, x_T is not written to.

    restorer: called as restorer(x_s, t) with t int64 (B,) on the device of x_T; put a network into eval mode first.
    draw: the draw with which x_T was made; None where the degradation is deterministic.
    callback: called after every step with {"step": 0, 1, ..., "s", "s_next": the severities it went between, "x_s",
    "x0_hat": R(x_s, s), "x_next"}; the first step's x0_hat is the direct restoration. It must not write to them.

    Runs without gradients, the restorer and the callback included (either may use torch.enable_grad() inside).
    ValueError for a wrong configuration, shape, dtype or device.
    """
    config = parse(SamplerConfig, {} if sampler is None else sampler, where="sampler")
    d.check_images("x_T", x_T)
    x = x_T
    for step, (s, s_next) in enumerate(pairwise(config.severities(d.steps))):
        x0_hat = restorer(x, torch.full((len(x),), s, dtype=torch.int64, device=x.device))
        if x0_hat.shape != x.shape:
            raise ValueError(
                f"restorer returned shape {tuple(x0_hat.shape)}: must be that of its input {tuple(x.shape)}"
            )
        x_next = _step(config, d, x, x0_hat, s, s_next, draw)
        if callback is not None:
            callback({"step": step, "s": s, "s_next": s_next, "x_s": x, "x0_hat": x0_hat, "x_next": x_next})
        x = x_next
    return x


def _step(
    config: SamplerConfig, d: Degradation, x: Tensor, x0_hat: Tensor, s: int, s_next: int, draw: Draw | None
) -> Tensor:
    """x_{s_next} from x_s."""
    degraded = d(x0_hat, s_next, draw)
    if config.algorithm != "tacos":
        return degraded
    # In the paper's order: where R is perfect, x_s - D(R(x_s), s) is exactly 0 and the iterates are exact.
    return x - d(x0_hat, s, draw) + degraded
