"""Downsampling against torch's interpolation, step after step."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch.nn.functional import interpolate

from coldtune.diffusion import build_degradation
from coldtune.testing import DegradationSuite


def downsample(steps=3, method="bicubic", **rest):
    return {"kind": "downsample", "steps": steps, "method": method, **rest}


class TestDownsample(DegradationSuite):
    settings: ClassVar = {"bicubic": downsample(), "area": downsample(method="area", quantize=True)}


class TestDownsampleNotSquare(DegradationSuite):
    settings: ClassVar = {"bicubic": downsample(steps=2)}
    image_shape = (1, 4, 12)


@pytest.mark.parametrize("method", ["bicubic", "area"])
@pytest.mark.parametrize(("size", "steps"), [((32, 32), 5), ((8, 24), 3), ((128, 128), 6)])
def test_downsample_next_severity_is_one_more_halving(method, size, steps):
    """The authors take x_{t-1} down to n / 2^t with their method, then up again with nearest."""
    d = build_degradation(downsample(steps, method), (2, *size))
    x = torch.rand(1, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    previous = x
    for t in range(1, steps + 1):
        small = d.low_resolution(t)
        assert small == (size[0] // 2**t, size[1] // 2**t)
        low = interpolate(previous, small, mode=method, **({"align_corners": False} if method == "bicubic" else {}))
        previous = interpolate(low, size, mode="nearest-exact")
        torch.testing.assert_close(d(x, t), previous, rtol=0, atol=1e-13)


def test_downsample_128_px_end_at_2_px():
    d = build_degradation(downsample(6, "area"), (3, 128, 128))
    assert d.low_resolution(6) == (2, 2)
    assert d(torch.rand(1, 3, 128, 128), 6)[0, 0].unique().numel() == 4


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (
            downsample(3),
            (1, 28, 28),
            r"degradation.steps = 3: 28 px can be halved 2 times. Take at most 2 steps, or .* by 8",
        ),
        (downsample(1), (1, 8, 9), r"degradation.steps = 1: 9 px can be halved 0 times"),
        (downsample(method="bilinear"), (1, 8, 8), r"degradation.method = 'bilinear': input should be"),
    ],
)
def test_downsample_invalid_config_is_refused(config, shape, message):
    with pytest.raises(ValueError, match=message):
        build_degradation(config, shape)
