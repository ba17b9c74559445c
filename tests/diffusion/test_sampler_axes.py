"""The sampler's draw (5.1, A.6, A.8) against the paper's algebra and diffusers' schedulers, and its other settings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coldtune.diffusion import SamplerConfig, build_degradation, draws, nfe, sample
from coldtune.diffusion.degradations import Noise, NoiseConfig, NoiseDraw

SHAPE = (1, 4, 4)
T = 20
NOISE = {"kind": "noise", "steps": T}
SEEDS = draws.derive(0, 0, torch.arange(3))
IMAGE = arrays(np.float64, (1, *SHAPE), elements=st.floats(-4, 4, width=32))
BLUR = {
    "kind": "blur",
    "steps": 6,
    "kernel_size": 3,
    "padding": "circular",
    "sigma": {"schedule": "constant", "start": 1},
}
MASK = {"kind": "mask", "steps": 6, "beta": {"start": 0.5, "step": 0.3}, "center": "random"}


class GivenNoise(Noise):
    """Noise that takes its new draws from a list in turn, so that another implementation can get the same draws."""

    def __init__(self, noises=(), steps=T):
        super().__init__(NoiseConfig(steps=steps), SHAPE)
        self.noises = list(noises)

    def draw(self, seeds):
        return NoiseDraw(self.noises.pop(0))


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def restorer(x, t):
    """Return some function of x and t that never restores."""
    return torch.tanh(x * (0.3 + t[:, None, None, None] / T)) + 0.1


def assert_near(actual, expected, tolerance=1e-11):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


# --- A.6 and A.8: the algebra


@given(IMAGE, arrays(np.float64, (T, 1, *SHAPE), elements=st.floats(-4, 4, width=32)), st.integers(1, T))
@settings(max_examples=40, deadline=None)
def test_sampler_estimated_noise_is_equation_1_for_both_algorithms(x_T, guesses, num_steps):
    """A.6: x_{t-1} = sqrt(abar_{t-1}) x0_hat + sqrt(1 - abar_{t-1}) z_hat, for any R, at any stride."""
    x_T, guesses = torch.from_numpy(x_T), torch.from_numpy(guesses)
    d = build_degradation(NOISE, SHAPE)
    for algorithm in ("tacos", "naive"):
        sampler = {"algorithm": algorithm, "draw": "estimated", "num_steps": num_steps}
        steps = []
        sample(lambda x, t: guesses[t[0] - 1], d, x_T, sampler, callback=steps.append)
        for step in steps:
            alpha, alpha_next = (float(d.alpha_bar[s]) for s in (step["s"], step["s_next"]))
            z = (step["x_s"] - math.sqrt(alpha) * step["x0_hat"]) / math.sqrt(1 - alpha)
            expected = math.sqrt(alpha_next) * step["x0_hat"] + math.sqrt(1 - alpha_next) * z
            torch.testing.assert_close(step["x_next"], expected, rtol=1e-9, atol=1e-9)


@given(st.integers(2, 200), st.data(), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_noise_blend_keeps_variance_for_any_eta(steps, data, eta):
    """A.8: the weights of z_hat and new noise, sqrt(1 - abar' - sigma^2) and sigma, make sqrt(1 - abar') together."""
    s = data.draw(st.integers(2, steps))
    s_next = data.draw(st.integers(1, s - 1))
    d = build_degradation({"kind": "noise", "steps": steps}, (1, 1, 1))
    one, zero = (NoiseDraw(torch.full((1, 1, 1, 1), value, dtype=torch.float64)) for value in (1.0, 0.0))
    kept, new = (float(d.blend(*pair, s, s_next, eta).z) for pair in ((one, zero), (zero, one)))
    alpha, alpha_next = float(d.alpha_bar[s]), float(d.alpha_bar[s_next])
    sigma = eta * math.sqrt((1 - alpha_next) / (1 - alpha)) * math.sqrt(1 - alpha / alpha_next)
    assert kept**2 + new**2 == pytest.approx(1)
    assert math.sqrt(1 - alpha_next) * new == pytest.approx(sigma, rel=1e-9, abs=1e-12)


# --- A.6 and A.8: diffusers


def scheduler(kind, d, num_steps, **options):
    """Make a scheduler of diffusers with the same abar and our strides."""
    import diffusers

    made = getattr(diffusers, kind)(
        num_train_timesteps=d.steps, prediction_type="sample", timestep_spacing="trailing", **options
    )
    made.alphas_cumprod = d.alpha_bar[1:]
    made.set_timesteps(num_steps)
    return made


@pytest.mark.parametrize("algorithm", ["tacos", "naive"])
@pytest.mark.parametrize("num_steps", [T, 10, 4, 1])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("clamp", [False, True])
def test_sampler_estimated_noise_is_ddim(algorithm, num_steps, eta, clamp):
    noises = [randn(3, *SHAPE, seed=1 + i) for i in range(num_steps - 1)]
    d, x_T = GivenNoise(noises), randn(3, *SHAPE)
    sampler = {"algorithm": algorithm, "draw": "estimated", "eta": eta, "num_steps": num_steps, "clamp": clamp}
    ours = sample(restorer, d, x_T, sampler, seeds=SEEDS)
    assert len(d.noises) == (0 if eta else num_steps - 1)

    ddim, x = scheduler("DDIMScheduler", d, num_steps, clip_sample=clamp), x_T
    for t, noise in zip(ddim.timesteps, [*noises, torch.zeros_like(x_T)], strict=True):
        guess = restorer(x, torch.full((3,), int(t) + 1))
        options = {"variance_noise": noise} if eta else {}
        x = ddim.step(guess, int(t), x, eta=eta, use_clipped_model_output=True, **options).prev_sample
    assert_near(ours, x, 1e-9)


@pytest.mark.parametrize("num_steps", [T, 5])
def test_sampler_eta_1_is_ddpm(num_steps):
    generator = torch.Generator().manual_seed(5)
    noises = [torch.randn(3, *SHAPE, dtype=torch.float64, generator=generator) for _ in range(num_steps - 1)]
    d, x_T = GivenNoise(noises), randn(3, *SHAPE)
    ours = sample(restorer, d, x_T, {"draw": "estimated", "eta": 1.0, "num_steps": num_steps}, seeds=SEEDS)

    generator.manual_seed(5)
    ddpm, x = scheduler("DDPMScheduler", d, num_steps, clip_sample=False), x_T
    for t in ddpm.timesteps:
        x = ddpm.step(restorer(x, torch.full((3,), int(t) + 1)), int(t), x, generator=generator).prev_sample
    assert_near(ours, x, 1e-9)


# --- resampled


@pytest.mark.parametrize("algorithm", ["tacos", "naive"])
def test_sampler_resampled_draws_anew_for_each_degradation(algorithm):
    count = 2 * 4 - 1 if algorithm == "tacos" else 4 - 1  # D(., 0) needs no draw
    noises = [randn(3, *SHAPE, seed=1 + i) for i in range(count)]
    d, x = GivenNoise(noises, steps=4), randn(3, *SHAPE)
    ours = sample(restorer, d, x, {"algorithm": algorithm, "draw": "resampled"}, seeds=SEEDS)
    assert not d.noises
    new = iter(NoiseDraw(noise) for noise in noises)
    for s in (4, 3, 2, 1):
        guess = restorer(x, torch.full((3,), s))
        kept = x - d(guess, s, next(new)) if algorithm == "tacos" else 0
        x = kept + (d(guess, s - 1, next(new)) if s > 1 else guess)
    assert_near(ours, x)


@pytest.mark.parametrize("sampler", [{"draw": "resampled"}, {"draw": "estimated", "eta": 1.0}])
def test_sampler_new_draws_depend_only_on_seed_of_image(sampler):
    """Equal seeds lead to equal images in any batch, and other seeds to other images."""
    d, x_T = build_degradation(NOISE, SHAPE), randn(3, *SHAPE)
    together = sample(restorer, d, x_T, sampler, seeds=SEEDS)
    assert_near(sample(restorer, d, x_T[1:2], sampler, seeds=SEEDS[1:2]), together[1:2])
    other = sample(restorer, d, x_T, sampler, seeds=SEEDS + 1)
    assert (other - together).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_sampler_resampled_works_with_masks():
    d, x0 = build_degradation(MASK, SHAPE), randn(3, *SHAPE)
    x_T = d(x0, 6, d.draw(SEEDS))
    out = sample(lambda x, t: x0, d, x_T, {"algorithm": "naive", "draw": "resampled"}, seeds=SEEDS)
    assert torch.equal(out, x0)


# --- the result, clamping, the authors' loop


@pytest.mark.parametrize("algorithm", ["direct", "naive", "tacos"])
def test_sampler_returns_estimate_of_last_step(algorithm):
    """The authors' "sampled" is R(x_1, 1). For Algorithm 1 and direct restoration it is the result itself."""
    d, steps = build_degradation(BLUR, SHAPE), []
    sampler = {"algorithm": algorithm, "returns": "estimate"}
    out = sample(restorer, d, randn(3, *SHAPE), sampler, callback=steps.append)
    assert torch.equal(out, steps[-1]["x0_hat"])
    assert nfe(sampler, 6) == len(steps)
    plain = sample(restorer, d, randn(3, *SHAPE), {"algorithm": algorithm})
    assert torch.equal(out, plain) == (algorithm != "tacos")


def test_sampler_clamp_limits_estimates():
    d, x_T = build_degradation(BLUR, SHAPE), randn(3, *SHAPE)
    clamped = sample(lambda x, t: 3 * restorer(x, t), d, x_T, {"clamp": True})
    assert torch.equal(clamped, sample(lambda x, t: (3 * restorer(x, t)).clamp(-1, 1), d, x_T))
    assert not torch.equal(clamped, sample(lambda x, t: 3 * restorer(x, t), d, x_T))


@pytest.mark.parametrize("algorithm", ["naive", "tacos"])
def test_sampler_off_by_one_ends_beside_x0(algorithm):
    """With a perfect restorer, Algorithm 2 then ends at x_0 + D(x_0, T) - D(x_0, T-1)."""
    d, x0 = build_degradation({"kind": "desaturate", "steps": 20}, (3, 4, 4)), randn(2, 3, 4, 4)
    steps = []
    out = sample(lambda x, t: x0, d, d(x0, 20), {"algorithm": algorithm, "off_by_one": True}, callback=steps.append)
    assert_near(out, x0 + d(x0, 20) - d(x0, 19) if algorithm == "tacos" else x0)
    assert torch.equal(steps[-1]["x_s"], steps[-1]["x_next"]), "the last step changes nothing"
    if algorithm == "naive":
        assert all(torch.equal(step["x_next"], d(x0, max(step["s_next"] - 1, 0))) for step in steps)


def test_sampler_half_precision_restorer_keeps_dtype_of_iterates():
    d, x_T = build_degradation(BLUR, SHAPE), randn(3, *SHAPE).float()
    steps = []
    out = sample(lambda x, t: (0.5 * x).to(torch.bfloat16), d, x_T, callback=steps.append)
    assert {out.dtype} == {step["x_s"].dtype for step in steps} == {torch.float32}


def test_sampler_steps_without_8_bit_truncation():
    """Only training and x_T see 8-bit truncation, so a perfect restorer still ends at x_0."""
    d, x0 = build_degradation(BLUR | {"quantize": True}, SHAPE), randn(3, *SHAPE)
    steps = []
    out = sample(lambda x, t: x0, d, d(x0, 6), callback=steps.append)
    assert_near(out, x0 + d(x0, 6) - d.exact(x0, 6))
    assert_near(steps[0]["x_next"] - steps[0]["x_s"], d.exact(x0, 5) - d.exact(x0, 6))


# --- errors


@pytest.mark.parametrize(
    ("config", "sampler", "message"),
    [
        (BLUR, {"draw": "resampled"}, r"sampler.draw = 'resampled': this blur is deterministic, so only fixed"),
        (BLUR, {"draw": "estimated"}, r"sampler.draw = 'estimated': this blur is deterministic, so only fixed"),
        (
            MASK,
            {"draw": "estimated"},
            r"a draw of mask cannot be computed from x_s and x0_hat. Allowed: fixed, resampled",
        ),
        (
            {"kind": "animorph", "steps": 4, "source": "digits"},
            {"draw": "estimated", "eta": 0.5},
            r"sampler.eta = 0.5: must be 0, because a draw of animorph is not Gaussian",
        ),
        (NOISE, {"draw": "resampled"}, r"seeds: required by sampler.draw = 'resampled'"),
        (NOISE, {"draw": "estimated", "eta": 1.0}, r"seeds: required by sampler.eta = 1.0"),
        (NOISE, {"eta": 0.5}, r"eta = 0.5: needs draw = 'estimated', because a fixed draw cannot be renewed in part"),
        (NOISE, {"draw": "estimated", "eta": 1.5}, r"sampler.eta = 1.5: input should be less than or equal to 1"),
        (NOISE, {"algorithm": "direct", "draw": "estimated"}, r"draw, off_by_one: must be left out, because direct"),
        (NOISE, {"draw": "estimated", "off_by_one": True}, r"off_by_one = True: an estimated draw belongs to s"),
        (NOISE, {}, r"draw = None: must be a NoiseDraw, because this noise is random"),
    ],
)
def test_sampler_setting_unfit_for_degradation_is_refused(config, sampler, message):
    with pytest.raises(ValueError, match=message):
        sample(restorer, build_degradation(config, SHAPE), randn(3, *SHAPE), sampler)


@pytest.mark.parametrize("seeds", [SEEDS[:2], SEEDS.int(), SEEDS.to("meta")])
def test_sampler_invalid_seeds_are_refused(seeds):
    d = build_degradation(NOISE, SHAPE)
    with pytest.raises(ValueError, match=r"seeds of dtype .*must be int64 \(3,\) on cpu"):
        sample(restorer, d, randn(3, *SHAPE), {"draw": "resampled"}, seeds=seeds)


def test_sampler_config_defaults_equal_explicit_values():
    assert SamplerConfig(algorithm="tacos", draw="fixed", num_steps=None) == SamplerConfig()
