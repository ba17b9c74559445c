"""Algorithms 1 and 2 against the paper's proofs (3.3, A.9), strides, and the rights of a sampler over its inputs."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from coldtune.diffusion import Degradation, DegradationConfig, SamplerConfig, build_degradation, nfe, sample

BLUR = {
    "kind": "blur",
    "steps": 12,
    "kernel_size": 5,
    "padding": "circular",
    "sigma": {"schedule": "exponential", "start": 0.5, "rate": 0.1},
}
SHAPE = (1, 4, 4)
IMAGE = arrays(np.float64, (1, *SHAPE), elements=st.floats(-4, 4, width=32))


class Shift(Degradation):
    """D(x, s) = x + s e with a constant e, the paper's ansatz in 3.3."""

    config_type: ClassVar[type[DegradationConfig]] = DegradationConfig

    def __init__(self, steps, e):
        super().__init__(DegradationConfig(kind="shift", steps=steps), e.shape[1:])
        self.e = e

    def _degrade(self, x0, t, draw):
        return x0 + t * self.e


class LowPass(Degradation):
    """The blur of A.9: step t removes the t-th highest of T + 1 frequencies, and only the constant is left at T."""

    config_type: ClassVar[type[DegradationConfig]] = DegradationConfig

    def __init__(self, steps, image_shape, of):
        super().__init__(DegradationConfig(kind="low-pass", steps=steps), image_shape)
        self.of = of

    def _degrade(self, x0, t, draw):
        modes = torch.fft.rfft(x0.flatten(-2))
        kept = torch.arange(modes.shape[-1]) <= self.of - t
        return torch.fft.irfft(modes * kept, n=x0[0, 0].numel()).view_as(x0)


@pytest.fixture
def d():
    return build_degradation(BLUR, (2, 9, 9))


@pytest.fixture
def x0():
    return torch.rand(3, 2, 9, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1


def halving(x, t):
    return 0.5 * x


# --- the proofs of the paper


@given(IMAGE, IMAGE, arrays(np.float64, (6, 1, *SHAPE), elements=st.floats(-4, 4, width=32)))
@settings(max_examples=50, deadline=None)
def test_sampler_tacos_is_exact_if_degradation_is_linear_in_t(x0, e, guesses):
    """3.3: x_s = D(x0, s) for every s and any R. Algorithm 1 ends at the last guess of R instead."""
    x0, e, guesses = (torch.from_numpy(array) for array in (x0, e, guesses))
    d = Shift(6, e)

    def restorer(x, t):
        return guesses[t[0] - 1]

    steps = []
    out = sample(restorer, d, d(x0, 6), {"algorithm": "tacos"}, callback=steps.append)
    for step in steps:
        torch.testing.assert_close(step["x_s"], d(x0, step["s"]), rtol=0, atol=1e-12)
    torch.testing.assert_close(out, x0, rtol=0, atol=1e-12)
    assert torch.equal(sample(restorer, d, d(x0, 6), {"algorithm": "naive"}), guesses[0])


@given(IMAGE, IMAGE, st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_sampler_tacos_step_errs_no_more_than_naive_step(x, guess, t):
    """A.9: this holds for any estimate. TACoS errs only in the frequency that the step restores."""
    x, guess = torch.from_numpy(x), torch.from_numpy(guess)
    blur = LowPass(t, SHAPE, of=8)
    x_t, before = blur(x, t), blur(x, t - 1)
    errors = {}
    for algorithm in ("naive", "tacos"):
        steps = []
        sample(lambda x, t: guess, blur, x_t, {"algorithm": algorithm}, callback=steps.append)
        errors[algorithm] = float((steps[0]["x_next"] - before).norm())
    assert errors["tacos"] <= errors["naive"] + 1e-12

    band = torch.fft.rfft((guess - x).flatten(-2))
    band[..., torch.arange(9) != 9 - t] = 0
    restored = torch.fft.irfft(band, n=16)
    assert errors["tacos"] == pytest.approx(float(restored.norm()), abs=1e-11)


@pytest.mark.parametrize("algorithm", ["direct", "naive", "tacos"])
@pytest.mark.parametrize("num_steps", [None, 1, 5])
def test_sampler_perfect_restorer_is_exact(d, x0, algorithm, num_steps):
    if algorithm == "direct":
        num_steps = None
    steps = []
    sampler = {"algorithm": algorithm, "num_steps": num_steps}
    out = sample(lambda x, t: x0, d, d(x0, d.steps), sampler, callback=steps.append)
    assert torch.equal(out, x0)
    assert all(torch.equal(step["x_s"], d(x0, step["s"])) for step in steps)


def test_sampler_algorithms_equal_printed_rules(d, x0):
    """The two update rules are written out again, with a restorer that depends on x and t."""

    def restorer(x, t):
        return torch.tanh(x * (1 + t[:, None, None, None] / 10))

    x = {"naive": d(x0, d.steps), "tacos": d(x0, d.steps)}
    for s in range(d.steps, 0, -1):
        t = torch.full((3,), s)
        x["naive"] = d(restorer(x["naive"], t), s - 1)
        guess = restorer(x["tacos"], t)
        x["tacos"] = x["tacos"] - d(guess, s) + d(guess, s - 1)
    for algorithm, expected in x.items():
        torch.testing.assert_close(sample(restorer, d, d(x0, d.steps), {"algorithm": algorithm}), expected)
    direct = sample(restorer, d, d(x0, d.steps), {"algorithm": "direct"})
    torch.testing.assert_close(direct, restorer(d(x0, d.steps), torch.full((3,), d.steps)))
    assert torch.equal(direct, sample(restorer, d, d(x0, d.steps), {"algorithm": "naive", "num_steps": 1}))


# --- strides


@given(st.integers(1, 1000), st.data())
@settings(max_examples=200, deadline=None)
def test_severities_with_stride_fall_in_equal_steps(steps, data):
    count = data.draw(st.integers(1, steps))
    grid = SamplerConfig(num_steps=count).severities(steps)
    gaps = -np.diff(grid)
    assert (grid[0], grid[-1], len(grid)) == (steps, 0, count + 1)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
    assert nfe({"num_steps": count}, steps) == count


def test_severities_default_is_every_step():
    assert SamplerConfig().severities(5) == SamplerConfig(num_steps=5).severities(5) == [5, 4, 3, 2, 1, 0]
    assert SamplerConfig(algorithm="direct").severities(5) == [5, 0]
    assert (nfe({}, 5), nfe({"algorithm": "direct"}, 5)) == (5, 1)


@pytest.mark.parametrize("sampler", [{}, {"num_steps": 5}, {"algorithm": "naive"}, {"algorithm": "direct"}])
def test_nfe_counts_restorer_calls(d, x0, sampler):
    severities, steps = [], []

    def restorer(x, t):
        assert t.dtype == torch.int64
        assert t.shape == (3,)
        severities.extend(t.unique().tolist())
        return 0.5 * x

    out = sample(restorer, d, d(x0, d.steps), sampler, callback=steps.append)
    assert len(severities) == nfe(sampler, d.steps) == len(steps)
    assert severities == [step["s"] for step in steps] == SamplerConfig(**sampler).severities(d.steps)[:-1]
    assert [step["step"] for step in steps] == list(range(len(steps)))
    assert [step["s_next"] for step in steps] == [*severities[1:], 0]
    for this, following in pairwise(steps):
        assert following["x_s"] is this["x_next"]
    assert torch.equal(steps[-1]["x_next"], out)


# --- inputs and outputs


@pytest.mark.parametrize("algorithm", ["direct", "naive", "tacos"])
def test_sampler_never_writes_to_callers_tensors(d, x0, algorithm):
    handed, copies = [], []

    def keep(tensor):
        handed.append(tensor)
        copies.append(tensor.clone())

    def restorer(x, t):
        keep(x)
        return x  # an alias of its input, as an untrained residual network might return

    x_T = d(x0, d.steps)
    keep(x_T)
    out = sample(restorer, d, x_T, {"algorithm": algorithm}, callback=lambda step: keep(step["x_next"]))
    assert out.data_ptr() != x_T.data_ptr()
    out.zero_()
    assert all(torch.equal(a, b) for a, b in zip(handed, copies, strict=True) if a.data_ptr() != out.data_ptr())


def test_sampler_keeps_no_gradients(d, x0):
    net = nn.Conv2d(2, 2, 3, padding=1)
    out = sample(lambda x, t: net(x), d, d(x0, d.steps).requires_grad_())
    assert not out.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sampler_result_has_dtype_of_start(d, x0, dtype):
    assert sample(halving, d, d(x0, d.steps).to(dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"algorithm": "ddim"}, r"sampler.algorithm = 'ddim': input should be 'direct', 'naive' or 'tacos'"),
        ({"num_steps": 0}, r"sampler.num_steps = 0: input should be greater than or equal to 1"),
        ({"num_steps": 13}, r"sampler.num_steps = 13: at most the degradation's steps, 12"),
        (
            {"algorithm": "direct", "num_steps": 3},
            r"num_steps = 3: must be left out, because direct restoration is one",
        ),
        ({"stride": 3}, r"sampler.stride = 3: unknown key; allowed: algorithm, at_step, .*num_steps"),
    ],
)
def test_sampler_invalid_setting_is_refused(d, x0, sampler, message):
    with pytest.raises(ValueError, match=message):
        sample(halving, d, x0, sampler)
    with pytest.raises(ValueError, match=message):
        nfe(sampler, 12)


def test_sampler_invalid_images_are_refused(d, x0):
    with pytest.raises(ValueError, match=r"x_T of shape \(3, 1, 9, 9\): must be \(B, 2, 9, 9\)"):
        sample(halving, d, x0[:, :1])
    with pytest.raises(ValueError, match=r"restorer returned shape \(3, 1, 9, 9\)"):
        sample(lambda x, t: x[:, :1], d, x0)
