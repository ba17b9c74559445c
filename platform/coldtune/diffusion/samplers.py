"""Sampling: from a degraded image x_T back to x_0 (the paper's Algorithms 1 and 2, and direct restoration)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from coldtune.config import Config, Neutral, parse, plain
from coldtune.diffusion import draws
from coldtune.diffusion.degradations.base import Degradation, Draw

Restore = Callable[[Tensor, Tensor], Tensor]
"""A restorer R: (x (B, C, H, W), t int64 (B,) with equal entries) -> the estimate of x_0, of the shape of x."""

StepCallback = Callable[[dict[str, Any]], object]

_RHO = 7.0  # of Karras et al.
_UNIFORM_STD = 12**-0.5  # relative standard deviation of an average over all steps with equal weights
_NEW_DRAW = draws.stream("sampler/new draw")


class SamplerConfig(Config):
    """The settings of a sampler. Each key is an independent choice.

    Attributes:
        algorithm: "direct" is R(x_T, T). "naive" is Algorithm 1. "tacos" is Algorithm 2, the paper's own, which
            forgives an imperfect restorer if D is smooth in t.
        draw: What happens to the draw (5.1). "fixed" uses the draw that was passed in for every D of the run.
            "estimated" computes the draw at each step from x_s and R(x_s, s), for noise and animorph. Both algorithms
            are then the same, and with noise they are DDIM (A.6). "resampled" takes a new draw for each application of
            D, so that a single start leads to many images.
        eta: The share of new noise in an estimated noise, at each step. 0 is DDIM and 1 is DDPM (A.8).
        num_steps: The number of evaluations of the network. None takes every step, T of them. Fewer steps are cheaper
            and closer to "direct".
        schedule: The severities at which the network is evaluated, if there are fewer than T. "uniform" takes about
            equal steps on the integer grid T..0. "cosine" takes small steps near T, where most is still missing, and
            large steps near 0. "rho" takes large steps near T and small steps near 0, as Karras et al. (2206.00364,
            equation 5) with `rho`. A list names the severities, from T downwards. Its length is the number of
            evaluations.
        rho: The exponent of the schedule "rho". 1 is uniform. Larger values take smaller steps near 0.
        returns: "x0" is the result of the algorithm. "estimate" is R(x_s, s) of its last step, which has s = 1 if every
            step is made. The authors' tables, except those of blur, call this estimate "sampled". For "naive" and
            "direct" both are equal.
        clamp: Clamp the estimates of R to [-1, 1] before they are used. This is steadier if a weak restorer overshoots,
            but then Algorithm 2 is no longer exact for every R.
        off_by_one: Step with D(., s-1) and D(., s-2), like the authors' loop for snow and desaturation. Even a perfect
            restorer then ends at x_0 + D(x_0, T) - D(x_0, T-1). Use it only to reproduce their numbers.
        at_step: Sample with the restorer of an earlier step of the training. None takes the last step. The training
            must keep that step (`training.snapshot_every`).
        ema_std: The length of the average of the weights, relative to the training up to that step. It is the standard
            deviation of the steps in the average, and replaces the average of `training.ema_decay` (see
            `coldtune.training.power_averages`). Larger values average over more steps. None keeps the training's own
            average. It needs `training.ema_stds`.
        guidance: The weight w of R against an earlier step G of the same training. The estimate of x_0 is
            G + w (R - G), as in autoguidance (Karras et al., 2406.02507). 1 is R itself, without evaluating
            G. Values above 1 move the estimate away from G, and each step costs two evaluations. None: no guidance.
        guidance_step: The step of the training that guides.
    """

    AFTER_TRAINING: ClassVar[tuple[str, ...]] = ("at_step", "ema_std", "guidance", "guidance_step")
    """The settings that choose the weights of R. They need no training of their own, but `sample` is given its R."""

    algorithm: Literal["direct", "naive", "tacos"] = "tacos"
    draw: Literal["fixed", "estimated", "resampled"] = "fixed"
    eta: float = Field(default=0.0, ge=0, le=1)
    num_steps: int | None = Field(default=None, ge=1)
    schedule: Annotated[
        Literal["uniform", "cosine", "rho"] | Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)],
        Neutral("uniform"),
    ] = "uniform"
    rho: Annotated[float, Field(ge=1, le=100), Neutral(_RHO)] = _RHO
    returns: Literal["x0", "estimate"] = "x0"
    clamp: bool = False
    off_by_one: bool = False
    at_step: Annotated[Annotated[int, Field(ge=1)] | None, Neutral(None)] = None
    ema_std: Annotated[Annotated[float, Field(gt=0, lt=_UNIFORM_STD)] | None, Neutral(None)] = None
    guidance: Annotated[Annotated[float, Field(ge=0, le=100)] | None, Neutral(None)] = None
    guidance_step: Annotated[Annotated[int, Field(ge=1)] | None, Neutral(None)] = None

    @model_validator(mode="after")
    def _no_setting_is_ignored(self) -> Self:
        if self.algorithm == "direct":
            if self.num_steps is not None:
                raise ValueError(
                    f"num_steps = {self.num_steps}: must be left out, because direct restoration is one evaluation"
                )
            if self.schedule != "uniform":
                raise ValueError(f"schedule = {plain(self.schedule)!r}: must be left out, as direct has one step")
            if self.draw != "fixed" or self.off_by_one:
                raise ValueError("draw, off_by_one: must be left out, because direct restoration degrades nothing")
        if isinstance(self.schedule, tuple):
            if any(later >= earlier for earlier, later in pairwise(self.schedule)):
                raise ValueError(f"schedule = {list(self.schedule)}: must fall from T downwards, each severity once")
            if self.num_steps is not None:
                raise ValueError(
                    f"num_steps = {self.num_steps}: must be left out, because the schedule lists its severities"
                )
        elif self.schedule != "uniform" and self.num_steps is None:
            raise ValueError(f"schedule = {self.schedule!r}: needs num_steps, because without it every step is taken")
        if self.rho != _RHO and self.schedule != "rho":
            raise ValueError(f"rho = {self.rho}: must be left out, unless schedule = 'rho'")
        if self.eta and self.draw != "estimated":
            raise ValueError(
                f"eta = {self.eta}: needs draw = 'estimated', because a {self.draw} draw cannot be renewed in part"
            )
        if self.off_by_one and self.draw == "estimated":
            raise ValueError("off_by_one = True: an estimated draw belongs to s, not to s - 1")
        if (self.guidance is None) != (self.guidance_step is None):
            raise ValueError(
                f"guidance = {self.guidance}, guidance_step = {self.guidance_step}: must be given together, the weight "
                "and the step of the training that guides, or both left out"
            )
        if self.guidance_step is not None and self.at_step is not None and self.guidance_step >= self.at_step:
            raise ValueError(f"guidance_step = {self.guidance_step}: must be below at_step = {self.at_step}")
        return self

    @property
    def guided(self) -> bool:
        """True if each step evaluates two networks."""
        return self.guidance not in (None, 1.0)

    @property
    def evaluations_per_step(self) -> int:
        """The number of networks that each step evaluates."""
        return 2 if self.guided else 1

    def without_weights(self) -> Self:
        """Return these settings without those that choose the weights of R, as `sample` takes them."""
        return self.model_copy(update=dict.fromkeys(self.AFTER_TRAINING))

    @property
    def needs_seeds(self) -> bool:
        """True if sampling itself draws random numbers."""
        return self.draw == "resampled" or self.eta > 0

    def check(self, d: Degradation) -> None:
        """Raise ValueError if this sampler cannot work with `d`.

        It cannot if `num_steps` is more than T, or if the draw of `d` does not allow these values of `draw` and `eta`.
        """
        self.severities(d.steps)
        if self.draw != "fixed" and not d.random:
            raise ValueError(f"sampler.draw = {self.draw!r}: this {d.kind} is deterministic, so only fixed is allowed")
        if self.draw == "estimated" and not d.estimable:
            raise ValueError(
                f"sampler.draw = 'estimated': a draw of {d.kind} cannot be computed from x_s and x0_hat. "
                "Allowed: fixed, resampled"
            )
        if self.eta and not d.gaussian:
            raise ValueError(f"sampler.eta = {self.eta}: must be 0, because a draw of {d.kind} is not Gaussian")

    def severities(self, steps: int) -> list[int]:
        """Return the severities T, ..., 0 that the sampler visits. The network sees all but the last.

        Args:
            steps: T.

        Raises:
            ValueError: If `num_steps` is more than T, or a listed schedule does not begin with T.
        """
        if isinstance(self.schedule, tuple):
            if self.schedule[0] != steps:
                raise ValueError(
                    f"sampler.schedule = {list(self.schedule)}: must begin with T = {steps}, because sampling begins "
                    "with an image of severity T"
                )
            return [*self.schedule, 0]
        count = 1 if self.algorithm == "direct" else self.num_steps or steps
        if count > steps:
            raise ValueError(f"sampler.num_steps = {count}: at most the degradation's steps, {steps}")
        # Rounding half up in integers keeps the list strictly decreasing, because neighbours are at least 1 apart.
        uniform = [(2 * steps * (count - i) + count) // (2 * count) for i in range(count + 1)]
        if self.schedule == "uniform":
            return uniform
        shares = [i / count for i in range(count)]
        if self.schedule == "cosine":
            wanted = [steps * math.cos(math.pi / 2 * share) for share in shares]
        else:
            high = steps ** (1 / self.rho)
            # The last evaluation is at severity 1, as the last noise level is the smallest one.
            wanted = [(high + i / max(count - 1, 1) * (1 - high)) ** self.rho for i in range(count)]
        return [*_distinct(wanted), 0]


def _distinct(wanted: list[float]) -> list[int]:
    """Round falling numbers to integers that fall too, down to 1 or more. There must be room for that."""
    rounded: list[int] = []
    for index, value in enumerate(wanted):
        below = rounded[-1] - 1 if rounded else math.floor(value + 0.5)
        rounded.append(max(min(math.floor(value + 0.5), below), len(wanted) - index))
    return rounded


def nfe(sampler: SamplerConfig | Mapping[str, Any], steps: int) -> int:
    """Return how many times `sample` evaluates the network for each image (NFE), if the degradation has T = steps."""
    config = parse(SamplerConfig, sampler, where="sampler")
    return (len(config.severities(steps)) - 1) * config.evaluations_per_step


def guide(restorer: Restore, weaker: Restore, weight: float) -> Restore:
    """Return the restorer whose estimate is G + w (R - G), for `sample` (autoguidance, 2406.02507).

    Args:
        restorer: R.
        weaker: G, a weaker restorer of the same kind, such as an earlier step of the same training.
        weight: w. 1 returns R itself. Larger values move the estimate away from that of G.
    """
    if weight == 1:
        return restorer
    return lambda x, t: torch.lerp(weaker(x, t), restorer(x, t), weight)


def _check_weights_left_out(config: SamplerConfig) -> None:
    """Raise ValueError if a setting would choose the weights of R, which `sample` is given."""
    for name in config.AFTER_TRAINING:
        if (value := getattr(config, name)) is not None:
            raise ValueError(
                f"sampler.{name} = {value}: must be left out, because `sample` is given its restorer. Load the weights "
                "of that setting, or combine two restorers by `guide`."
            )


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
    """Restore images: alternate the restorer and the degradation from x_T back to x_0.

    Runs without gradients, also in the restorer and the callback. Either may use torch.enable_grad() inside.

    Example:
        Degrade four images with noise and restore them in 20 steps.

        >>> import coldtune, torch
        >>> d = coldtune.build_degradation({"kind": "noise", "steps": 200}, image_shape=(3, 32, 32))
        >>> restorer = coldtune.build_restorer({"size": "micro"}, (3, 32, 32), steps=d.steps).eval()  # untrained
        >>> x0 = torch.zeros(4, 3, 32, 32)
        >>> draw = d.draw(seeds=torch.arange(4))
        >>> x_T = d(x0, d.steps, draw)
        >>> images = coldtune.sample(restorer, d, x_T, sampler={"algorithm": "tacos", "num_steps": 20}, draw=draw)
        >>> images.shape
        torch.Size([4, 3, 32, 32])

        Look at every step. The first estimate is the direct restoration.

        >>> steps = []
        >>> images = coldtune.sample(restorer, d, x_T, {"num_steps": 4}, draw=draw, callback=steps.append)
        >>> [(step["s"], step["s_next"]) for step in steps]
        [(200, 150), (150, 100), (100, 50), (50, 0)]
        >>> direct = steps[0]["x0_hat"]

    Args:
        restorer: R, called as restorer(x_s, t) with t int64 (B,) on the device of x_T. Put a network into eval mode
            first.
        d: The degradation that made x_T.
        x_T: (B, C, H, W). It is not written to.
        sampler: The settings, as a mapping or a `SamplerConfig`. None takes the defaults: TACoS with every step.
        draw: The draw with which x_T was made. `draw: fixed`, the default, needs it unless the degradation is
            deterministic.
        callback: Called after every step with a dict. "step" counts from 0. "s" and "s_next" are the severities before
            and after the step, and "x_s" and "x_next" the images. "x0_hat" is R(x_s, s). "draw" is the draw of D(.,
            s_next), or None. The callback must not write to these tensors.
        seeds: int64 (B,), a seed for each image, on the device of x_T. `draw: resampled` and `eta` draw from
            them.

    Returns:
        The restored images, a new tensor of the dtype and device of x_T.

    Raises:
        ValueError: If the configuration, a shape, a dtype or a device is wrong, or if the sampler cannot work with `d`.
    """
    config = parse(SamplerConfig, {} if sampler is None else sampler, where="sampler")
    config.check(d)
    _check_weights_left_out(config)
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
    """Return the draws of D(., s) and of D(., s_next)."""
    if config.draw == "fixed" or config.algorithm == "direct":
        return draw, draw

    def new(which: int) -> Draw | None:
        # The severity numbers the new draws. So samplers with other strides use the same draws at shared severities.
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
    """Return x_{s_next}, given x_s."""
    if config.off_by_one:
        s, s_next = max(s - 1, 0), max(s_next - 1, 0)
    degraded = _degrade(d, x0_hat, s_next, there)
    if config.algorithm != "tacos":
        return degraded
    # The order is the paper's. If R is perfect, x_s - D(R(x_s), s) is exactly 0 and the iterates are exact.
    return x - _degrade(d, x0_hat, s, here) + degraded


def _degrade(d: Degradation, x0: Tensor, s: int, draw: Draw | None) -> Tensor:
    """Compute D(x0, s) without truncation. D(x0, 0) = x0 needs no draw."""
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
