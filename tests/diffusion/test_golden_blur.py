"""Blur and its samplers against the numbers of the authors' implementation (tests/golden/README.md)."""

from __future__ import annotations

import pytest
import torch

from coldtune.diffusion import build_degradation, sample
from coldtune.diffusion.degradations.gaussian import kernel_1d

# The authors' variants: CIFAR starts at .35 where the paper's formula, .01 t + .35, gives .36 at t = 1.
SETTINGS = {
    "blur_mnist": {
        "kind": "blur",
        "steps": 40,
        "kernel_size": 11,
        "padding": "circular",
        "sigma": {"schedule": "constant", "start": 7.0},
    },
    "blur_cifar": {
        "kind": "blur",
        "steps": 50,
        "kernel_size": 11,
        "padding": "reflect",
        "sigma": {"schedule": "linear", "start": 0.35, "rate": 0.01},
    },
}


@pytest.fixture(params=SETTINGS)
def case(request, golden):
    numbers = golden(request.param)
    return numbers, build_degradation(SETTINGS[request.param], numbers["x0"].shape[1:])


def assert_near(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def test_kernels_are_the_authors(case):
    numbers, d = case
    kernels = kernel_1d(d.config.sigma.values(d.steps), d.config.kernel_size)
    assert_near(kernels.float(), numbers["kernel_1d"], 2e-7)


def test_degraded_images(case):
    numbers, d = case
    for t, expected in zip(numbers["t"].tolist(), numbers["D"], strict=True):
        assert_near(d(numbers["x0"], t), expected, 2e-6)


def test_degraded_images_of_mixed_severity(case):
    numbers, d = case
    x0, t = numbers["x0"], numbers["t"]
    mixed = d(x0.repeat(len(t), 1, 1, 1), t.repeat_interleave(len(x0)))
    assert_near(mixed, numbers["D"].flatten(0, 1), 2e-6)


@pytest.mark.parametrize("restorer", ["affine", "conv"])
@pytest.mark.parametrize(("algorithm", "tolerance"), [("tacos", 1e-5), ("naive", 2e-4)])
def test_samplers(case, golden_restorer, restorer, algorithm, tolerance):
    numbers, d = case
    key = f"{algorithm}_{restorer}"
    steps = []
    x_T = d(numbers["x0"], d.steps)
    x_0 = sample(golden_restorer(restorer, d.steps), d, x_T, {"algorithm": algorithm}, callback=steps.append)

    assert [step["s"] for step in steps] == numbers[f"{key}_s"].tolist()
    for index, expected in zip(numbers[f"{key}_idx"].tolist(), numbers[f"{key}_x"], strict=True):
        assert_near(steps[index]["x_s"], expected, tolerance)
    assert_near(x_0, numbers[f"{key}_x0"], tolerance)


@pytest.mark.parametrize("restorer", ["affine", "conv"])
def test_direct(case, golden_restorer, restorer):
    numbers, d = case
    x_T = d(numbers["x0"], d.steps)
    direct = sample(golden_restorer(restorer, d.steps), d, x_T, {"algorithm": "direct"})
    assert_near(direct, numbers[f"direct_{restorer}"], 1e-5)
