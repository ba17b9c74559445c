"""Noise and animorphosis: the schedule, the law of the draws, the estimate of z, and the source of animorphosis."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from scipy import stats

from coldtune.diffusion import build_degradation, draws, source_of
from coldtune.diffusion.degradations import AnimorphDraw, NoiseDraw
from coldtune.diffusion.schedules import cosine_alpha_bar
from coldtune.testing import DegradationSuite

NOISE = {"kind": "noise", "steps": 12, "schedule": "cosine"}
ANIMORPH = {"kind": "animorph", "steps": 12, "schedule": "cosine", "source": "digits"}
SHAPE = (3, 8, 8)
SEEDS = draws.derive(0, 0, torch.arange(64))


def images(count, dtype=torch.float32, seed=0):
    return torch.rand(count, *SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def source(count=20):
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class TestNoise(DegradationSuite):
    settings: ClassVar = {
        "cosine": NOISE,
        "two steps": {"kind": "noise", "steps": 2},
        "8 bit": NOISE | {"quantize": True},
    }
    largest_step = 0.9  # with two steps, the larger step makes most of the change
    tolerance = 5e-6


class TestAnimorph(DegradationSuite):
    settings: ClassVar = {"cosine": ANIMORPH}

    def build(self, config):
        return build_degradation(config, self.image_shape, source=source())


# --- the schedule


@pytest.mark.parametrize("steps", [1, 12, 1000])
def test_alpha_bar_is_cosine_up_to_bound_on_beta(steps):
    alpha_bar = cosine_alpha_bar(steps)
    f = [math.cos((j / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for j in range(steps)]
    assert alpha_bar[:-1].tolist() == pytest.approx([value / f[0] for value in f], rel=1e-12)
    assert float(alpha_bar[-1] / alpha_bar[-2]) == pytest.approx(0.001)


def test_alpha_bar_equals_diffusers():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=200, beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(cosine_alpha_bar(200)[1:].float(), scheduler.alphas_cumprod, rtol=1e-4, atol=1e-9)


# --- the blend


@pytest.mark.parametrize("config", [NOISE, ANIMORPH], ids=["noise", "animorph"])
def test_interpolation_equals_formula(config):
    d, x = build_degradation(config, SHAPE), images(4, torch.float64)
    draw = d.draw_type(images(4, torch.float64, seed=2))
    for t in range(1, 13):
        alpha = float(d.alpha_bar[t])
        torch.testing.assert_close(d(x, t, draw), math.sqrt(alpha) * x + math.sqrt(1 - alpha) * draw.z)


@pytest.mark.parametrize("config", [NOISE, ANIMORPH], ids=["noise", "animorph"])
def test_interpolation_estimate_inverts_degradation(config):
    """D(x0_hat, s, estimate(x_s, x0_hat, s)) = x_s for any x0_hat. With the true x0 it is the draw itself."""
    d, x, guess = build_degradation(config, SHAPE), images(4, torch.float64), images(4, torch.float64, seed=3)
    draw = d.draw_type(images(4, torch.float64, seed=2))
    for s in (1, 5, 12):
        x_s = d(x, s, draw)
        torch.testing.assert_close(d(guess, s, d.estimate(x_s, guess, s)), x_s)
        torch.testing.assert_close(d.estimate(x_s, x, s).z, draw.z)


def test_noise_draw_is_standard_gaussian():
    z = build_degradation(NOISE, SHAPE).draw(SEEDS).z
    assert (z.dtype, z.shape) == (torch.float32, (64, *SHAPE))
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3


def test_noise_lost_is_share_of_energy():
    """If the image has unit energy, D(x, t) has unit energy on average, and the image's share of it is 1 - lost(t)."""
    d = build_degradation(NOISE, SHAPE)
    x = images(64).sign().double()
    for t in (3, 9):
        share = (d(x, t, d.draw(SEEDS)) * x).mean() ** 2
        assert float(share) == pytest.approx(1 - float(d.lost(t)), abs=0.03)


# --- the other dataset


def test_animorph_ends_at_image_of_source():
    d = build_degradation(ANIMORPH, SHAPE, source=source())
    draw = d.draw(SEEDS)
    levels = ((draw.z + 1) * 127.5).round().to(torch.uint8)
    found = (levels[:, None] == source()).flatten(2).all(dim=2)
    assert found.any(dim=1).all()
    assert len(found.int().argmax(dim=1).unique()) > 15  # 64 picks out of 20
    assert (d(images(64), 12, draw) - draw.z).abs().max() < 1e-2


def test_animorph_floating_source_is_not_scaled():
    d = build_degradation(ANIMORPH, SHAPE, source=images(1, torch.float64))
    assert torch.equal(d.draw(SEEDS[:3]).z, images(1, torch.float64).float().expand(3, -1, -1, -1))


def test_animorph_without_source_degrades_but_refuses_draw():
    d = build_degradation(ANIMORPH, SHAPE)
    assert d(images(2), 12, AnimorphDraw(images(2))).shape == (2, *SHAPE)
    with pytest.raises(ValueError, match=r"degradation.source = 'digits': its images are needed"):
        d.draw(SEEDS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (source()[:, :1], r"source of digits: images of shape \(20, 1, 8, 8\): must be \(N, \*\(3, 8, 8\)\)"),
        (source()[:0], r"source of digits: .* N at least 1"),
        (source().long(), r"source of digits: images of dtype torch.int64: must be uint8, or floating"),
    ],
)
def test_animorph_invalid_source_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        build_degradation(ANIMORPH, SHAPE, source=wrong)


def test_source_of_returns_name_from_config():
    assert source_of(ANIMORPH) == "digits"
    assert source_of(NOISE) is None


def test_build_degradation_unneeded_source_is_refused():
    with pytest.raises(ValueError, match="source: must be None, because noise has no source dataset"):
        build_degradation(NOISE, SHAPE, source=source())


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            AnimorphDraw(torch.zeros(4, *SHAPE)),
            r"draw = AnimorphDraw\(...\): must be a NoiseDraw, because this noise is random",
        ),
        (NoiseDraw(torch.zeros(4, 1, 8, 8)), r"draw.z of shape \(4, 1, 8, 8\): must be \(4, 3, 8, 8\)"),
        (NoiseDraw(torch.zeros(3, *SHAPE)), r"draw.z of shape \(3, 3, 8, 8\): must be \(4, 3, 8, 8\)"),
        (None, r"draw = None: must be a NoiseDraw, because this noise is random. draw\(seeds\) makes it"),
    ],
)
def test_noise_invalid_draw_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        build_degradation(NOISE, SHAPE)(images(4), 1, draw)
