"""Masks against their formula, pixel by pixel, with their leftover at T, centres and colours."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch

from coldtune.diffusion import OutOfReachError, build_degradation, draws, leftover_of, start_for_leftover
from coldtune.diffusion.degradations import MaskDraw
from coldtune.testing import DegradationSuite

FAR = {"start": 1.0, "step": 0.5}  # a forward mask leaves little at T, so the first step of a reversed mask is small
SEEDS = draws.derive(0, 0, torch.arange(2000))


def mask(steps=10, start=0.5, step=0.2, **rest):
    return {"kind": "mask", "steps": steps, "beta": {"start": start, "step": step}, **rest}


def images(*shape, dtype=torch.float64):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 2 - 1


class TestMask(DegradationSuite):
    settings: ClassVar = {
        "fixed": mask(),
        "random": mask(center="random", quantize=True),
        "color": mask(fill="color"),
        "both": mask(center="random", fill="color", color_range=[-0.5, 0.5], order="reverse", **FAR),
    }


class TestMaskNotSquare(DegradationSuite):
    settings: ClassVar = {"random": mask(center="random"), "reverse": mask(order="reverse", **FAR)}
    image_shape = (1, 7, 12)


def weight(t, row, column, center, start=0.5, step=0.2):
    """Return prod_{i<=t} z_i for a pixel, as section 4.2 writes it."""
    distance = (row - center[0]) ** 2 + (column - center[1]) ** 2
    return math.prod(1 - math.exp(-distance / (2 * (start + step * i) ** 2)) for i in range(t))


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize(("size", "center"), [((8, 8), (3, 3)), ((7, 12), (3, 5)), ((9, 9), (4, 4))])
def test_mask_fixed_centre_equals_formula(order, size, center):
    d, x = build_degradation(mask(order=order), (2, *size)), images(1, 2, *size)
    for t in (1, 4, 10):
        expected = torch.tensor([[weight(t, r, c, center) for c in range(size[1])] for r in range(size[0])])
        if order == "reverse":
            expected = torch.tensor(
                [[1 - weight(10 - t, r, c, center) for c in range(size[1])] for r in range(size[0])]
            )
        torch.testing.assert_close(d(x, t), x * expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("center", [(-1, -1), (0, 11), (6, -1), (3, 5)])
def test_mask_any_centre_and_colour_equal_formula(center):
    d, x = build_degradation(mask(center="random", fill="color"), (2, 7, 12)), images(3, 2, 7, 12)
    color, t = images(3, 2), torch.tensor([1, 5, 10])
    out = d(x, t, MaskDraw(torch.tensor([center] * 3), color))
    for i in range(3):
        w = torch.tensor([[weight(int(t[i]), r, c, center) for c in range(12)] for r in range(7)])
        torch.testing.assert_close(out[i], w * x[i] + (1 - w) * color[i][:, None, None], rtol=0, atol=1e-6)


def test_mask_fixed_centre_of_128_px_is_authors_centre():
    """The first mask is 0 only at the authors' centre, (63, 63)."""
    d = build_degradation(mask(steps=1), (1, 128, 128))
    hole = (d(torch.ones(1, 1, 128, 128), 1)[0, 0] == 0).nonzero()
    assert hole.tolist() == [[63, 63]]


def test_mask_random_centres_are_uniform():
    center = build_degradation(mask(center="random"), (1, 4, 9)).draw(SEEDS).center
    for axis, n in ((0, 4), (1, 9)):
        counts = torch.bincount(center[:, axis] + 1, minlength=n + 1)
        assert len(counts) == n + 1
        expected = 2000 / (n + 1)
        assert ((counts - expected) ** 2 / expected).sum() < 3 * n + 10  # chi^2 with n degrees of freedom
    assert abs(float(torch.corrcoef(center.T.double())[0, 1])) < 0.1


@pytest.mark.parametrize("bounds", [[-1.0, 1.0], [-0.5, 0.5]])
def test_mask_random_colours_fill_color_range(bounds):
    color = build_degradation(mask(fill="color", color_range=bounds), (3, 4, 4)).draw(SEEDS).color
    assert color.shape == (2000, 3)
    assert bounds[0] <= float(color.min()) < bounds[0] + 0.01
    assert bounds[1] - 0.01 < float(color.max()) <= bounds[1]


def test_mask_reverse_leaves_nothing_at_last_step():
    d = build_degradation(mask(steps=10, fill="color", order="reverse"), (3, 8, 8))
    draw = d.draw(SEEDS[:4])
    color = draw.color[:, :, None, None].expand(4, 3, 8, 8)
    assert torch.equal(d(images(4, 3, 8, 8, dtype=torch.float32), 10, draw), color)
    assert d.leftover == 0
    assert d.lost(10) == 1


@pytest.mark.parametrize("center", ["fixed", "random"])
def test_mask_leftover_is_mean_remaining_weight(center):
    d = build_degradation(mask(center=center), (1, 6, 9))
    centers = torch.cartesian_prod(torch.arange(-1, 6), torch.arange(-1, 9)) if center == "random" else None
    draw = None if centers is None else MaskDraw(center=centers)
    count = 1 if centers is None else len(centers)
    remaining = d(torch.ones(count, 1, 6, 9, dtype=torch.float64), 10, draw)
    assert d.leftover == pytest.approx(float(remaining.mean()), rel=1e-12)
    assert float(d.lost(10, draw).mean()) == pytest.approx(1 - d.leftover, rel=1e-12)


@pytest.mark.parametrize(
    ("center", "message"),
    [
        (torch.tensor([[0, 8]]), r"draw.center with values 8..8: must be in -1..7"),
        (torch.tensor([[-2, 0]]), r"draw.center with values -2..-2: must be in -1..7"),
        (torch.tensor([[1.0, 2.0]]), r"draw.center of dtype torch.float32: must be torch.int64"),
        (None, r"draw.center = None: must be \(B, \*\(2,\)\)"),
    ],
)
def test_mask_invalid_centre_is_refused(center, message):
    with pytest.raises(ValueError, match=message):
        build_degradation(mask(center="random"), (1, 8, 8))(torch.zeros(1, 1, 8, 8), 1, MaskDraw(center=center))


def test_mask_centre_set_by_config_is_refused():
    d = build_degradation(mask(fill="color"), (1, 8, 8))
    with pytest.raises(ValueError, match=r"draw.center = Tensor: must be None, because the configuration sets it"):
        d(torch.zeros(1, 1, 8, 8), 1, MaskDraw(torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 1)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (mask(start=0), r"degradation.beta.start = 0: input should be greater than 0"),
        (mask(start=1, step=-0.2), r"beta.step = -0.2: makes beta -0.8 at t = 10"),
        (
            mask(color_range=[-0.5, 0.5]),
            r"color_range = \[-0.5, 0.5\]: must be left out, because fill = 'zero' has no colour",
        ),
        (mask(fill="color", color_range=[1, -1]), r"degradation.color_range = .*: must be \[low, high\]"),
        (mask(center="left"), r"degradation.center = 'left': input should be 'fixed' or 'random'"),
    ],
)
def test_mask_invalid_config_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_degradation(config, (1, 8, 8))


@pytest.mark.parametrize("center", ["fixed", "random"])
@pytest.mark.parametrize("value", [0.02, 0.2, 0.6])
def test_mask_start_for_leftover_reaches_leftover(center, value):
    config, shape = mask(steps=7, step=0.05, center=center), (1, 12, 16)
    start = start_for_leftover(config, shape, value)
    reached = build_degradation({**config, "beta": {"start": start, "step": 0.05}}, shape).leftover
    assert reached == pytest.approx(value, rel=1e-4)
    assert reached == leftover_of({**config, "beta": {"start": start, "step": 0.05}}, shape)


def test_mask_start_for_leftover_inverts_leftover():
    config, shape = mask(steps=9, start=1.3, step=-0.1), (1, 16, 16)
    elsewhere = {**config, "beta": {"start": 8.0, "step": -0.1}}
    assert start_for_leftover(elsewhere, shape, leftover_of(config, shape)) == pytest.approx(1.3, rel=1e-4)


def test_mask_start_for_leftover_out_of_reach_is_refused():
    """Growing masks take their share for any width of the first mask. Here the last mask alone takes more than 5 %."""
    config = mask(steps=10, step=1.0)
    most = build_degradation(mask(steps=10, start=1e-2, step=1.0), (1, 16, 16)).leftover
    with pytest.raises(OutOfReachError, match=rf"leftover = 0\.95: out of reach of T = 10.* to {most:.3g}"):
        start_for_leftover(config, (1, 16, 16), 0.95)
    with pytest.raises(ValueError, match=r"degradation\.order = 'reverse': nothing is left"):
        start_for_leftover(mask(order="reverse", **FAR), (1, 16, 16), 0.5)
    with pytest.raises(ValueError, match=r"leftover = 1: must be between"):
        start_for_leftover(config, (1, 16, 16), 1)
    with pytest.raises(ValueError, match=r"degradation\.kind = 'noise': its end does not follow"):
        start_for_leftover({"kind": "noise", "steps": 5}, (1, 16, 16), 0.5)
    with pytest.raises(ValueError, match=r"degradation\.kind = 'desaturate': has no leftover; allowed: blur, mask"):
        leftover_of({"kind": "desaturate", "steps": 5}, (3, 16, 16))
