"""Blur against torch's convolution, linear algebra and its own identities."""

from __future__ import annotations

import contextlib
import math
import pickle
import random
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d, pad

from coldtune.diffusion import OutOfReachError, build_degradation, leftover, start_for_leftover
from coldtune.diffusion.degradations import endpoint
from coldtune.testing import DegradationSuite


def blur(steps=6, kernel_size=5, padding="circular", schedule="exponential", start=0.6, rate=0.1, **rest):
    sigma = {"schedule": schedule, "start": start, **({} if schedule == "constant" else {"rate": rate})}
    return {"kind": "blur", "steps": steps, "kernel_size": kernel_size, "padding": padding, "sigma": sigma, **rest}


def images(*shape, dtype=torch.float32, seed=0):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def convolve(x, sigma, size, padding):
    """Take one step as the paper writes it: G_t * x, with a 2-D Gaussian normalised over its own taps."""
    r = (size - 1) // 2
    grid = torch.arange(-r, r + 1, dtype=x.dtype)
    kernel = torch.exp(-(grid[:, None] ** 2 + grid**2) / (2 * sigma**2))
    channels = x.shape[1]
    weights = (kernel / kernel.sum()).expand(channels, 1, size, size)
    return conv2d(pad(x, (r, r, r, r), mode=padding), weights, groups=channels)


class TestBlur(DegradationSuite):
    settings: ClassVar = {
        "circular": blur(steps=8, padding="circular"),
        "reflect": blur(steps=8, padding="reflect", schedule="linear", start=0.3, rate=0.04),
        "collapsed": blur(steps=8, collapse_final=True, quantize=True),
    }
    largest_step = 0.6


SIGMA = {
    "constant": lambda t, start, rate: start,
    "linear": lambda t, start, rate: start + rate * (t - 1),
    "exponential": lambda t, start, rate: start * math.exp(rate * (t - 1)),
}


@pytest.mark.parametrize("padding", ["circular", "reflect"])
@pytest.mark.parametrize("schedule", SIGMA)
@pytest.mark.parametrize("size", [(3, 9, 9), (1, 8, 12), (2, 13, 7)])
def test_blur_next_severity_is_one_more_convolution(padding, schedule, size):
    config = blur(padding=padding, schedule=schedule, kernel_size=7)
    d, x = build_degradation(config, size), images(2, *size, dtype=torch.float64)
    for t in range(1, d.steps + 1):
        expected = convolve(d(x, t - 1), SIGMA[schedule](t, 0.6, 0.1), 7, padding)
        torch.testing.assert_close(d(x, t), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("padding", "size"), [("circular", 17), ("reflect", 15)])
def test_blur_kernel_larger_than_padding_is_refused(padding, size):
    d, x = build_degradation(blur(padding=padding, kernel_size=size, start=9.0), (1, 8, 8)), images(1, 1, 8, 8)
    torch.testing.assert_close(d(x, 1), convolve(x, 9.0, size, padding), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=rf"kernel_size = {size + 2}: at most {size} for {padding} padding .* 8 px"):
        build_degradation(blur(padding=padding, kernel_size=size + 2), (1, 8, 20))


def test_blur_circular_padding_keeps_channel_means():
    d, x = build_degradation(blur(steps=40, start=2.0), (3, 9, 9)), images(2, 3, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(d(x, 40).mean((2, 3)), x.mean((2, 3)), rtol=0, atol=1e-13)


def test_blur_collapse_final_is_channel_mean_only_at_last_step():
    plain = build_degradation(blur(padding="reflect"), (2, 8, 12))
    collapsed = build_degradation(blur(padding="reflect", collapse_final=True), (2, 8, 12))
    x = images(3, 2, 8, 12)
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(collapsed(x, 6), mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(collapsed(x, torch.tensor([6, 5, 0])), torch.stack((mean[0], plain(x, 5)[1], x[2])))
    assert collapsed.leftover == 0


def test_blur_float32_is_float64_rounded():
    d = build_degradation(blur(steps=50, padding="reflect"), (2, 16, 16))
    x = images(3, 2, 16, 16)
    torch.testing.assert_close(d(x, 50).double(), d(x.double(), 50), rtol=0, atol=5e-7)


def test_blur_autocast_keeps_precision():
    d, x = build_degradation(blur(), (2, 8, 8)), images(3, 2, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(
            d(x, torch.tensor([2, 3, 4])), build_degradation(blur(), (2, 8, 8))(x, torch.tensor([2, 3, 4]))
        )
        inside = d(x, 4)
    assert torch.equal(inside, d(x, 4))
    assert inside.dtype == torch.float32


def test_blur_gradient_is_transpose():
    """<D(x), y> = <x, grad> for linear D. Finite differences check it at mixed severities."""
    d = build_degradation(blur(padding="reflect"), (2, 5, 6))
    x = images(3, 2, 5, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: d(x, torch.tensor([0, 3, 6])), (x,))


def test_blur_tables_from_inference_mode_serve_training():
    d, x = build_degradation(blur(), (1, 8, 8)), images(1, 1, 8, 8)
    with torch.inference_mode():
        expected = d(x, 3)
    y = x.clone().requires_grad_()
    out = d(y, 3)
    out.sum().backward()
    assert torch.equal(out.detach(), expected)
    assert y.grad is not None


def test_blur_pickle_excludes_tables():
    d, x = build_degradation(blur(steps=200), (1, 32, 32)), images(1, 1, 32, 32)
    expected = d(x, 100)
    state = pickle.dumps(d)
    assert len(state) < 2_000
    assert torch.equal(pickle.loads(state)(x, 100), expected)


def test_blur_compiled_graph_checks_severity():
    d, x = build_degradation(blur(), (1, 8, 8)), images(4, 1, 8, 8)
    compiled = torch.compile(d, fullgraph=True, backend="eager")
    for t in (torch.tensor([1, 2, 3, 4]), torch.tensor([0, 6, 5, 0])):
        assert torch.equal(compiled(x, t), d(x, t))
    with pytest.raises(RuntimeError, match=r"t must be in 0\.\.6"):
        compiled(x, torch.tensor([1, 2, 3, 7]))


# --- leftover


@st.composite
def blurs(draw):
    """Draw a configuration, and an image shape whose padding can supply its kernel."""
    shape = (1, draw(st.integers(6, 24)), draw(st.integers(6, 24)))
    config = blur(
        steps=draw(st.integers(1, 60)),
        kernel_size=draw(st.sampled_from([3, 5, 7, 9, 11])),
        padding=draw(st.sampled_from(["circular", "reflect"])),
        schedule=draw(st.sampled_from(sorted(SIGMA))),
        start=draw(st.floats(0.3, 4.0)),
        rate=draw(st.floats(0.0, 0.1)),
    )
    return config, shape


@given(blurs())
@settings(max_examples=25, deadline=None)
def test_blur_leftover_is_second_largest_eigenvalue(case):
    config, shape = case
    d = build_degradation(config, shape)
    second = [sorted(np.abs(np.linalg.eigvals(d.matrices(n, "cpu", torch.float64)[-1].numpy())))[-2] for n in shape[1:]]
    assert d.leftover == pytest.approx(max(second), rel=1e-7, abs=1e-13)
    assert leftover(config, shape) == d.leftover


@pytest.mark.parametrize(
    ("padding", "mode"),
    [("circular", lambda i, n: 2 * math.pi * i / n), ("reflect", lambda i, n: math.pi * i / (n - 1))],
)
def test_blur_leftover_is_amplitude_of_slowest_wave(padding, mode):
    n, config = 16, blur(steps=30, padding=padding, kernel_size=7)
    wave = torch.cos(mode(torch.arange(n, dtype=torch.float64), n)).expand(1, 1, n, n)
    d = build_degradation(config, (1, n, n))
    torch.testing.assert_close(d(wave, 30), d.leftover * wave, rtol=0, atol=1e-12)


def test_blur_leftover_bounds_images_of_zero_mean():
    d = build_degradation(blur(steps=30, kernel_size=7), (1, 16, 16))
    x = images(64, 1, 16, 16, dtype=torch.float64)
    x = x - x.mean((2, 3), keepdim=True)
    assert (d(x, 30).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).max() <= d.leftover * (1 + 1e-12)


@pytest.mark.parametrize("padding", ["circular", "reflect"])
def test_blur_leftover_counts_negative_eigenvalues(padding):
    """With three flat taps on two pixels, 2/3 comes from the other pixel. Their difference becomes -1/3 of itself."""
    d = build_degradation(blur(steps=1, kernel_size=3, schedule="constant", start=1e6, padding=padding), (1, 2, 2))
    assert np.linalg.eigvals(d.matrices(2, "cpu", torch.float64)[1].numpy()).min() == pytest.approx(-1 / 3)
    assert d.leftover == pytest.approx(1 / 3, rel=1e-9)


@given(blurs())
@example((blur(steps=1, kernel_size=7, schedule="constant", start=2.0), (1, 6, 6)))  # wider than the image
@settings(max_examples=25, deadline=None)
def test_blur_start_for_leftover_reaches_leftover(case):
    config, shape = case
    target = leftover(config, shape)
    assume(1e-12 < target < 0.9999)
    start = start_for_leftover(config, shape, target)
    reached = leftover({**config, "sigma": {**config["sigma"], "start": start}}, shape)
    assert reached == pytest.approx(target, rel=1e-4)
    assert start == float(f"{start:.6g}")


def test_blur_start_for_leftover_equals_plain_bisection_in_every_digit(monkeypatch):
    rng = random.Random(0)
    configs = [
        blur(
            steps=rng.choice([1, 10, 40]),
            kernel_size=rng.choice([3, 5, 11]),
            padding=rng.choice(["circular", "reflect"]),
            schedule=rng.choice(["constant", "linear", "exponential"]),
            rate=rng.uniform(-0.01, 0.2),
        )
        for _ in range(40)
    ]
    targets = [rng.choice([0.01, 0.3, 0.9, 1 - 1e-9]) for _ in configs]

    def starts():
        for config, target in zip(configs, targets, strict=True):
            with contextlib.suppress(OutOfReachError):
                yield start_for_leftover(config, (1, 16, 12), target)

    fast = list(starts())
    monkeypatch.setattr(endpoint, "_certain_width", lambda *_: math.inf)  # then each step of the bisection evaluates
    assert fast == list(starts())
    assert len(fast) > 20


def test_blur_start_for_leftover_inverts_leftover():
    config = blur(steps=20, kernel_size=7, start=0.5, rate=0.05)
    target = leftover(config, (1, 16, 16))
    elsewhere = {**config, "sigma": {**config["sigma"], "start": 3.0}}
    assert start_for_leftover(elsewhere, (1, 16, 16), target) == pytest.approx(0.5, rel=1e-5)


def test_blur_start_for_leftover_wide_kernel_has_least_between_its_ends():
    """Seven taps around a circle of six pixels. The first and last taps meet, so the flattest kernel is not flat.

    All its eigenvalues but one are 1/7. A narrower kernel gives less weight to the two taps that meet.
    """
    config = blur(steps=1, kernel_size=7, schedule="constant", start=1e6)
    assert leftover(config, (1, 6, 6)) == pytest.approx(1 / 7, rel=1e-6)
    start = start_for_leftover(config, (1, 6, 6), 0.1355)
    reached = leftover(blur(steps=1, kernel_size=7, schedule="constant", start=start), (1, 6, 6))
    assert reached == pytest.approx(0.1355, rel=1e-4)


def test_blur_start_for_leftover_below_flat_kernels_is_out_of_reach():
    """Two steps of three flat taps on a circle of 16 pixels leave at least ((1 + 2 cos(2 pi / 16)) / 3)^2."""
    config = blur(steps=2, kernel_size=3, schedule="constant")
    least = ((1 + 2 * math.cos(2 * math.pi / 16)) / 3) ** 2
    with pytest.raises(ValueError, match=rf"leftover = 0.5: out of reach .* range is {least:.3g} to 1"):
        start_for_leftover(config, (1, 16, 16), 0.5)
    assert start_for_leftover(config, (1, 16, 16), least * 1.001) > 1


def test_blur_start_for_leftover_above_linear_growth_is_out_of_reach():
    config = blur(steps=20, kernel_size=7, schedule="linear", rate=1.0)
    most = leftover({**config, "sigma": {**config["sigma"], "start": 0.01}}, (1, 16, 16))
    assert most < 0.5
    with pytest.raises(ValueError, match=rf"out of reach .* to {most:.3g}"):
        start_for_leftover(config, (1, 16, 16), 0.9)


def test_blur_start_for_leftover_with_negative_rate_keeps_sigma_positive():
    """A negative rate shrinks the kernel, so the start must keep every sigma positive."""
    config = blur(steps=20, kernel_size=7, schedule="linear", start=1.5, rate=-0.05)
    assert start_for_leftover(config, (1, 16, 16), leftover(config, (1, 16, 16))) == pytest.approx(1.5, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, math.nan])
def test_blur_start_for_leftover_not_a_fraction_is_refused(value):
    with pytest.raises(ValueError, match="between 0 and 1"):
        start_for_leftover(blur(), (1, 16, 16), value)


def test_blur_start_for_leftover_with_collapse_final_is_refused():
    with pytest.raises(ValueError, match="collapse_final = True: nothing is left over"):
        start_for_leftover(blur(collapse_final=True), (1, 16, 16), 0.3)
