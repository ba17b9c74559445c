"""Sampling: from a degraded image x_T back to x_0 (the paper's Algorithms 1 and 2, and direct restoration)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from coldtune.config import Config, parse
from coldtune.diffusion import draws
from coldtune.diffusion.degradations.base import Degradation, Draw

Restore = Callable[[Tensor, Tensor], Tensor]
"""A restorer R: (x (B,C,H,W), t int64 (B,), the same for all) -> the estimate of x_0, of the shape of x."""

StepCallback = Callable[[dict[str, Any]], object]

_NEW_DRAW = draws.stream("sampler/new draw")


class SamplerConfig(Config):
    """How to sample; each key is a choice of its own.

    algorithm: direct is R(x_T, T); naive is Algorithm 1; tacos is Algorithm 2, the paper's, which forgives an imperfect
    restorer where D is smooth in t.
    draw (5.1): fixed uses the draw that was handed in for every D of the run; estimated computes it anew at each step
    from x_s and R(x_s, s), for noise and animorph (then both algorithms are one, and with noise they are DDIM, A.6);
    resampled takes a new one for each application of D, so that one start leads to many images.
    eta: of an estimated noise, how much is replaced by new noise at each step: 0 is DDIM, 1 is DDPM (A.8).
    num_steps: a stride: about equal steps on the integer grid T..0, with so many evaluations of the network; None is
    every step, T of them. Fewer steps are cheaper, and closer to direct.
    returns: x0 is the algorithm's result; estimate is R(x_s, s) of its last step, s = 1 where every step is made, which
    is what the authors' tables call sampled, save for blur. For naive and direct the two are one.
    clamp: R's estimates are clamped to [-1, 1] before they are used. Steadier where a weak restorer overshoots, but
    then Algorithm 2 is no longer exact for every R.
    off_by_one: the authors' loop for snow and desaturation steps with D(., s-1) and D(., s-2): even a perfect restorer
    ends at x_0 + D(x_0, T) - D(x_0, T-1). Only to reproduce their numbers.
    """

    algorithm: Literal["direct", "naive", "tacos"] = "tacos"
    draw: Literal["fixed", "estimated", "resampled"] = "fixed"
    eta: float = Field(default=0.0, ge=0, le=1)
    num_steps: int | None = Field(default=None, ge=1)
    returns: Literal["x0", "estimate"] = "x0"
    clamp: bool = False
    off_by_one: bool = False

    @model_validator(mode="after")
    def _no_setting_is_ignored(self) -> Self:
        if self.algorithm == "direct":
            if self.num_steps is not None:
                raise ValueError(f"num_steps = {self.num_steps}: direct restoration is one evaluation; leave it out")
            if self.draw != "fixed" or self.off_by_one:
                raise ValueError("draw, off_by_one: direct restoration degrades nothing; leave them out")
        if self.eta and self.draw != "estimated":
            raise ValueError(f"eta = {self.eta}: only an estimated draw can be renewed in part, not a {self.draw} one")
        if self.off_by_one and self.draw == "estimated":
            raise ValueError("off_by_one = True: an estimated draw belongs to s, not to s - 1")
        return self

    @property
    def needs_seeds(self) -> bool:
        """Whether sampling draws anything itself."""
        return self.draw == "resampled" or self.eta > 0

    def check(self, d: Degradation) -> None:
        """ValueError where this cannot sample with `d`: too many steps, or a draw that is not there to be changed."""
        self.severities(d.steps)
        if self.draw != "fixed" and not d.random:
            raise ValueError(f"sampler.draw = {self.draw!r}: this {d.kind} is deterministic; allowed: fixed")
        if self.draw == "estimated" and not d.estimable:
            raise ValueError(
                f"sampler.draw = 'estimated': a draw of {d.kind} cannot be told from x_s and x0_hat; "
                "allowed: fixed, resampled"
            )
        if self.eta and not d.gaussian:
            raise ValueError(f"sampler.eta = {self.eta}: a draw of {d.kind} is not Gaussian; allowed: 0")

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
    seeds: Tensor | None = None,
) -> Tensor:
    """x_0 from x_T (B, C, H, W): a new tensor of its dtype and device; x_T is not written to.

    restorer: called as restorer(x_s, t) with t int64 (B,) on the device of x_T; put a network into eval mode first.
    draw: the draw with which x_T was made, for `draw: fixed`; None where the degradation is deterministic.
    callback: called after every step with {"step": 0, 1, ..., "s", "s_next": the severities it went between, "x_s",
    "x0_hat": R(x_s, s), "x_next", "draw": the draw of D(., s_next), if any}; the first step's x0_hat is the direct
    restoration. It must not write to them.
    seeds: int64 (B,), one for each image, on the device of x_T: what `draw: resampled` and `eta` draw from.

    Runs without gradients, the restorer and the callback included (either may use torch.enable_grad() inside).
    ValueError for a wrong configuration, shape, dtype or device, and for a sampler that cannot work with `d`.
    """
    config = parse(SamplerConfig, {} if sampler is None else sampler, where="sampler")
    config.check(d)
    d.check_images("x_T", x_T)
    _check_seeds(config, x_T, seeds)
    x = x0_hat = x_T
    for step, (s, s_next) in enumerate(pairwise(config.severities(d.steps))):
        x0_hat = _restore(config, restorer, x, s)
        here, there = _draws(config, d, x, x0_hat, s, s_next, draw, seeds)
        x_next = _step(config, d, x, x0_hat, s, s_next, here, there)
        if callback is not None:
            callback(
                {"step": step, "s": s, "s_next": s_next, "x_s": x, "x0_hat": x0_hat, "x_next": x_next, "draw": there}
            )
        x = x_next
    return x0_hat.clone() if config.returns == "estimate" else x


def _restore(config: SamplerConfig, restorer: Restore, x: Tensor, s: int) -> Tensor:
    x0_hat = restorer(x, torch.full((len(x),), s, dtype=torch.int64, device=x.device))
    if x0_hat.shape != x.shape:
        raise ValueError(f"restorer returned shape {tuple(x0_hat.shape)}: must be that of its input {tuple(x.shape)}")
    x0_hat = x0_hat.to(x.dtype)
    return x0_hat.clamp(-1, 1) if config.clamp else x0_hat


def _draws(
    config: SamplerConfig,
    d: Degradation,
    x: Tensor,
    x0_hat: Tensor,
    s: int,
    s_next: int,
    draw: Draw | None,
    seeds: Tensor | None,
) -> tuple[Draw | None, Draw | None]:
    """The draws of D(., s) and of D(., s_next)."""
    if config.draw == "fixed" or config.algorithm == "direct":
        return draw, draw

    def new(which: int) -> Draw | None:
        # Numbered by severity: samplers with other strides meet the same new draws where they meet.
        assert seeds is not None
        return d.draw(draws.fold(seeds, _NEW_DRAW + 2 * s + which))

    if config.draw == "resampled":
        return new(0) if config.algorithm == "tacos" else None, new(1) if s_next else None
    estimated = d.estimate(x, x0_hat, s)
    if config.eta == 0 or s_next == 0:
        return estimated, estimated
    renewed = new(1)
    assert renewed is not None
    return estimated, d.blend(estimated, renewed, s, s_next, config.eta)


def _step(
    config: SamplerConfig,
    d: Degradation,
    x: Tensor,
    x0_hat: Tensor,
    s: int,
    s_next: int,
    here: Draw | None,
    there: Draw | None,
) -> Tensor:
    """x_{s_next} from x_s."""
    if config.off_by_one:
        s, s_next = max(s - 1, 0), max(s_next - 1, 0)
    degraded = _degrade(d, x0_hat, s_next, there)
    if config.algorithm != "tacos":
        return degraded
    # In the paper's order: where R is perfect, x_s - D(R(x_s), s) is exactly 0 and the iterates are exact.
    return x - _degrade(d, x0_hat, s, here) + degraded


def _degrade(d: Degradation, x0: Tensor, s: int, draw: Draw | None) -> Tensor:
    """D(x0, s), untruncated; D(x0, 0) = x0 needs no draw."""
    return x0.clone() if s == 0 else d.exact(x0, s, draw)


def _check_seeds(config: SamplerConfig, x_T: Tensor, seeds: Tensor | None) -> None:
    if not config.needs_seeds:
        return
    why = f"sampler.eta = {config.eta}" if config.eta else f"sampler.draw = {config.draw!r}"
    if seeds is None:
        raise ValueError(f"seeds: required by {why}, int64 (B,), one for each image")
    if seeds.shape != x_T.shape[:1] or seeds.dtype != torch.int64 or seeds.device != x_T.device:
        raise ValueError(
            f"seeds of dtype {seeds.dtype} and shape {tuple(seeds.shape)} on {seeds.device}: "
            f"must be int64 ({len(x_T)},) on {x_T.device}, for {why}"
        )
