"""What becomes of the draw (5.1, A.6, A.8) against the paper's algebra and diffusers' schedulers; the other axes."""

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
    """Noise whose new draws are those of a list, in turn: to hand the same ones to another implementation."""

    def __init__(self, noises=(), steps=T):
        super().__init__(NoiseConfig(steps=steps), SHAPE)
        self.noises = list(noises)

    def draw(self, seeds):
        return NoiseDraw(self.noises.pop(0))


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def restorer(x, t):
    """Some function of x and t that never restores."""
    return torch.tanh(x * (0.3 + t[:, None, None, None] / T)) + 0.1


def assert_near(actual, expected, tolerance=1e-11):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


# --- A.6 and A.8: the algebra


@given(IMAGE, arrays(np.float64, (T, 1, *SHAPE), elements=st.floats(-4, 4, width=32)), st.integers(1, T))
@settings(max_examples=40, deadline=None)
def test_with_estimated_noise_both_algorithms_are_equation_1(x_T, guesses, num_steps):
    """A.6: x_{t-1} = sqrt(abar_{t-1}) x0_hat + sqrt(1 - abar_{t-1}) z_hat, whatever R returns, at any stride."""
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
def test_what_is_added_back_keeps_its_size_for_any_eta(steps, data, eta):
    """A.8: z_hat is weighted by sqrt(1 - abar' - sigma^2), new noise by sigma: together always sqrt(1 - abar')."""
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
    """One of diffusers' schedulers on the same abar, with our strides."""
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
def test_estimated_noise_is_ddim(algorithm, num_steps, eta, clamp):
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
def test_eta_1_is_ddpm(num_steps):
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
def test_resampled_takes_a_new_draw_for_each_application_of_d(algorithm):
    count = 2 * 4 - 1 if algorithm == "tacos" else 4 - 1  # D(., 0) needs none
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
def test_new_draws_belong_to_the_image(sampler):
    """Equal for equal seeds in any batch, other for other seeds."""
    d, x_T = build_degradation(NOISE, SHAPE), randn(3, *SHAPE)
    together = sample(restorer, d, x_T, sampler, seeds=SEEDS)
    assert_near(sample(restorer, d, x_T[1:2], sampler, seeds=SEEDS[1:2]), together[1:2])
    other = sample(restorer, d, x_T, sampler, seeds=SEEDS + 1)
    assert (other - together).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_masks_can_be_resampled():
    d, x0 = build_degradation(MASK, SHAPE), randn(3, *SHAPE)
    x_T = d(x0, 6, d.draw(SEEDS))
    out = sample(lambda x, t: x0, d, x_T, {"algorithm": "naive", "draw": "resampled"}, seeds=SEEDS)
    assert torch.equal(out, x0)


# --- what is returned, clamping, the authors' loop


@pytest.mark.parametrize("algorithm", ["direct", "naive", "tacos"])
def test_the_estimate_of_the_last_step(algorithm):
    """The authors' "sampled": R(x_1, 1); for Algorithm 1 and direct restoration the result itself."""
    d, steps = build_degradation(BLUR, SHAPE), []
    sampler = {"algorithm": algorithm, "returns": "estimate"}
    out = sample(restorer, d, randn(3, *SHAPE), sampler, callback=steps.append)
    assert torch.equal(out, steps[-1]["x0_hat"])
    assert nfe(sampler, 6) == len(steps)
    plain = sample(restorer, d, randn(3, *SHAPE), {"algorithm": algorithm})
    assert torch.equal(out, plain) == (algorithm != "tacos")


def test_clamped_estimates():
    d, x_T = build_degradation(BLUR, SHAPE), randn(3, *SHAPE)
    clamped = sample(lambda x, t: 3 * restorer(x, t), d, x_T, {"clamp": True})
    assert torch.equal(clamped, sample(lambda x, t: (3 * restorer(x, t)).clamp(-1, 1), d, x_T))
    assert not torch.equal(clamped, sample(lambda x, t: 3 * restorer(x, t), d, x_T))


@pytest.mark.parametrize("algorithm", ["naive", "tacos"])
def test_the_authors_loop_is_off_by_one(algorithm):
    """Algorithm 2 then ends, with a perfect restorer, at x_0 + D(x_0, T) - D(x_0, T-1)."""
    d, x0 = build_degradation({"kind": "desaturate", "steps": 20}, (3, 4, 4)), randn(2, 3, 4, 4)
    steps = []
    out = sample(lambda x, t: x0, d, d(x0, 20), {"algorithm": algorithm, "off_by_one": True}, callback=steps.append)
    assert_near(out, x0 + d(x0, 20) - d(x0, 19) if algorithm == "tacos" else x0)
    assert torch.equal(steps[-1]["x_s"], steps[-1]["x_next"]), "the last step changes nothing"
    if algorithm == "naive":
        assert all(torch.equal(step["x_next"], d(x0, max(step["s_next"] - 1, 0))) for step in steps)


def test_a_network_in_half_precision_does_not_change_the_iterates_precision():
    d, x_T = build_degradation(BLUR, SHAPE), randn(3, *SHAPE).float()
    steps = []
    out = sample(lambda x, t: (0.5 * x).to(torch.bfloat16), d, x_T, callback=steps.append)
    assert {out.dtype} == {step["x_s"].dtype for step in steps} == {torch.float32}


def test_samplers_step_with_the_exact_degradation():
    """8-bit truncation is for what training and x_T see: a perfect restorer still ends at x_0."""
    d, x0 = build_degradation(BLUR | {"quantize": True}, SHAPE), randn(3, *SHAPE)
    steps = []
    out = sample(lambda x, t: x0, d, d(x0, 6), callback=steps.append)
    assert_near(out, x0 + d(x0, 6) - d.exact(x0, 6))
    assert_near(steps[0]["x_next"] - steps[0]["x_s"], d.exact(x0, 5) - d.exact(x0, 6))


# --- errors


@pytest.mark.parametrize(
    ("config", "sampler", "message"),
    [
        (BLUR, {"draw": "resampled"}, r"sampler.draw = 'resampled': this blur is deterministic; allowed: fixed"),
        (BLUR, {"draw": "estimated"}, r"sampler.draw = 'estimated': this blur is deterministic; allowed: fixed"),
        (MASK, {"draw": "estimated"}, r"a draw of mask cannot be told from x_s and x0_hat; allowed: fixed, resampled"),
        (
            {"kind": "animorph", "steps": 4, "source": "digits"},
            {"draw": "estimated", "eta": 0.5},
            r"sampler.eta = 0.5: a draw of animorph is not Gaussian; allowed: 0",
        ),
        (NOISE, {"draw": "resampled"}, r"seeds: required by sampler.draw = 'resampled'"),
        (NOISE, {"draw": "estimated", "eta": 1.0}, r"seeds: required by sampler.eta = 1.0"),
        (NOISE, {"eta": 0.5}, r"eta = 0.5: only an estimated draw can be renewed in part, not a fixed one"),
        (NOISE, {"draw": "estimated", "eta": 1.5}, r"sampler.eta = 1.5: input should be less than or equal to 1"),
        (NOISE, {"algorithm": "direct", "draw": "estimated"}, r"draw, off_by_one: direct restoration degrades nothing"),
        (NOISE, {"draw": "estimated", "off_by_one": True}, r"off_by_one = True: an estimated draw belongs to s"),
        (NOISE, {}, r"draw = None: this noise is random; hand in draw\(seeds\)"),
    ],
)
def test_wrong_settings(config, sampler, message):
    with pytest.raises(ValueError, match=message):
        sample(restorer, build_degradation(config, SHAPE), randn(3, *SHAPE), sampler)


@pytest.mark.parametrize("seeds", [SEEDS[:2], SEEDS.int(), SEEDS.to("meta")])
def test_wrong_seeds(seeds):
    d = build_degradation(NOISE, SHAPE)
    with pytest.raises(ValueError, match=r"seeds of dtype .*must be int64 \(3,\) on cpu"):
        sample(restorer, d, randn(3, *SHAPE), {"draw": "resampled"}, seeds=seeds)


def test_old_configurations_are_valid():
    assert SamplerConfig(algorithm="tacos", draw="fixed", num_steps=None) == SamplerConfig()
