"""Snow against scipy's zoom and correlation as A.5 describes them, and the law of its draws."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import correlate1d, zoom

from coldtune.diffusion import build_degradation, draws
from coldtune.diffusion.degradations import SnowDraw
from coldtune.testing import DegradationSuite

SEEDS = draws.derive(0, 0, torch.arange(256))


def snow(steps=12, threshold=(1.0, 0.5), motion_sigma=(0.05, 8.0), **rest):
    ends = {
        name: dict(zip(("start", "end"), value, strict=True))
        for name, value in (("threshold", threshold), ("motion_sigma", motion_sigma))
    }
    return {"kind": "snow", "steps": steps, **ends, **rest}


class TestSnow(DegradationSuite):
    settings: ClassVar = {
        "corner, cubic": snow(),
        "center, linear": snow(crop="center", zoom="linear", quantize=True),
        "shared": snow(shared=True),
    }
    image_shape = (3, 12, 12)
    tolerance = 5e-6


class TestSnowNotSquare(DegradationSuite):
    settings: ClassVar = {"corner, cubic": snow()}
    image_shape = (1, 9, 14)


def pattern(seed, threshold, sigma, vertical, crop, order):
    """Compute S of A.5 for an image with numpy and scipy."""
    grown = []
    for n in seed.shape:
        size = math.ceil(n / 2.5)
        grown.append((size, (n - size) // 2 if crop == "center" else 0))
    (rows, top), (columns, left) = grown
    zoomed = zoom(seed[top : top + rows, left : left + columns], 2.5, order=order)
    height, width = seed.shape
    trim = [(m - n) // 2 if crop == "center" else 0 for m, n in zip(zoomed.shape, seed.shape, strict=True)]
    zoomed = zoomed[trim[0] : trim[0] + height, trim[1] : trim[1] + width]
    flakes = np.clip(np.where(zoomed < threshold, 0, zoomed), 0, 1)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * sigma**2))
    return correlate1d(flakes, taps / taps.sum(), axis=0 if vertical else 1, mode="constant")


@pytest.mark.parametrize(("crop", "zoomed", "order"), [("corner", "cubic", 3), ("center", "linear", 1)])
@pytest.mark.parametrize("size", [(32, 32), (20, 27), (128, 128)])
def test_snow_equals_recipe_of_paper(crop, zoomed, order, size):
    d = build_degradation(snow(crop=crop, zoom=zoomed), (3, *size))
    drawn = d.draw(SEEDS[:2])
    draw = SnowDraw(drawn.seed.double(), torch.tensor([True, False]))
    x = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for t in (1, 7, 12):
        threshold, sigma = 1.0 - 0.5 * (t - 1) / 11, 0.05 + 7.95 * (t - 1) / 11
        for i in range(2):
            s = pattern(draw.seed[i].numpy(), threshold, sigma, bool(draw.vertical[i]), crop, order)
            expected = np.clip((x[i].numpy() + 1) / 2 + s + np.rot90(s, 2), 0, 1) * 2 - 1
            torch.testing.assert_close(d(x, t, draw)[i], torch.from_numpy(expected), rtol=0, atol=1e-9)


def test_snow_draw_is_gaussian_with_both_directions():
    draw = build_degradation(snow(mean=0.4, sd=0.2), (3, 12, 12)).draw(SEEDS)
    assert stats.kstest((draw.seed.flatten().numpy() - 0.4) / 0.2, "norm").pvalue > 1e-3
    assert draw.vertical.dtype == torch.bool
    assert 90 < int(draw.vertical.sum()) < 166  # 256 fair coins, 4.7 standard deviations


def test_snow_pattern_differs_per_image_unless_shared():
    own = build_degradation(snow(), (3, 12, 12)).draw(SEEDS[:4])
    assert len(own.seed.unique(dim=0)) == 4
    shared = build_degradation(snow(shared=True), (3, 12, 12)).draw(SEEDS[:4])
    assert torch.equal(shared.seed, own.seed[:1].expand(4, 12, 12))
    assert torch.equal(shared.vertical, own.vertical[:1].expand(4))


def test_snow_only_brightens_within_range():
    d = build_degradation(snow(), (3, 12, 12))
    x = torch.rand(64, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    out = d(x, 12, d.draw(SEEDS[:64]))
    assert (out >= x - 1e-6).all()
    assert (out <= 1).all()
    assert (out > x + 0.1).any()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (snow(threshold=(0.5, 1.0)), r"degradation.threshold: start = 0.5, end = 1.0: must not rise"),
        (snow(motion_sigma=(0.0, 1.0)), r"degradation.motion_sigma: start = 0.0, end = 1.0: both must be above 0"),
        (snow(sd=0), r"degradation.sd = 0: input should be greater than 0"),
        (snow(zoom="spline"), r"degradation.zoom = 'spline': input should be 'cubic' or 'linear'"),
    ],
)
def test_snow_invalid_config_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_degradation(config, (3, 12, 12))


def test_snow_invalid_direction_is_refused():
    d = build_degradation(snow(), (3, 12, 12))
    with pytest.raises(ValueError, match=r"draw.vertical of shape \(2, 1\): must be \(2,\)"):
        d(torch.zeros(2, 3, 12, 12), 1, SnowDraw(torch.zeros(2, 12, 12), torch.zeros(2, 1, dtype=torch.bool)))
