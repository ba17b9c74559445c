"""Each prior against the law that it states, and against the moments of its training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from scipy import stats

from coldtune.diffusion import build_degradation, build_prior, draws, sample
from coldtune.diffusion.priors import PRIORS, prior_config

SHAPE = (3, 8, 8)
SEEDS = draws.derive(0, 0, torch.arange(4000))
BLUR = {
    "kind": "blur",
    "steps": 4,
    "kernel_size": 5,
    "padding": "circular",
    "sigma": {"schedule": "constant", "start": 2},
    "collapse_final": True,
}
MASK = {"kind": "mask", "steps": 6, "beta": {"start": 0.5, "step": 0.5}, "fill": "color", "order": "reverse"}
NOISE = {"kind": "noise", "steps": 6}
DOWNSAMPLE = {"kind": "downsample", "steps": 2, "method": "area"}
ANIMORPH = {"kind": "animorph", "steps": 6, "source": "others"}


def images(count=300, seed=0):
    """Return uint8 images whose colours and blocks are correlated."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(count, 3, 1, 1, generator=generator) * 120
    return (base + base.flip(1) / 2 + torch.rand(count, *SHAPE, generator=generator) * 60).to(torch.uint8)


def to_range(uint8):
    return uint8.double() / 127.5 - 1


def prior(config, degradation, **rest):
    return build_prior(config, build_degradation(degradation, SHAPE, **rest))


CASES = {
    "gmm": ({"kind": "gmm", "components": 2}, BLUR),
    "gaussian": ({"kind": "gaussian", "noise_scale": 0.01}, DOWNSAMPLE),
    "color": ({"kind": "color"}, MASK | {"center": "random"}),
    "empirical": ({"kind": "color", "colors": "empirical"}, MASK),
    "normal": ({"kind": "normal"}, NOISE),
    "dataset": ({"kind": "dataset"}, ANIMORPH),
    "data": ({"kind": "data"}, MASK),
}


@pytest.fixture(params=CASES)
def case(request):
    config, degradation = CASES[request.param]
    rest = {"source": images(20, seed=5)} if degradation is ANIMORPH else {}
    return prior(config, degradation, **rest)


# --- every prior


def test_prior_state_survives_file(case):
    state = case.fit(images())
    assert bool(state) == case.learns
    assert all(value.dtype == torch.float64 for value in state.values())
    again = case.fit(images())
    assert all(torch.equal(state[name], again[name]) for name in state)
    loaded = load(save(dict(state)))
    clean = images(5) if case.takes_images else None
    assert torch.equal(case.start(SEEDS[:5], state, clean).x_T, case.start(SEEDS[:5], loaded, clean).x_T)


def test_prior_start_depends_only_on_seed_of_image(case):
    state, clean = case.fit(images()), images(6)
    some = [4, 1]
    x_T, draw = case.start(SEEDS[:6], state, clean if case.takes_images else None)
    part, part_draw = case.start(SEEDS[some], state, clean[some] if case.takes_images else None)
    assert x_T.dtype == torch.float32
    torch.testing.assert_close(part, x_T[some], rtol=0, atol=1e-6)
    out = sample(lambda x, t: 0.9 * x, case.d, x_T, draw=draw)
    some_out = sample(lambda x, t: 0.9 * x, case.d, part, draw=part_draw)
    torch.testing.assert_close(some_out, out[some], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 0.05])
def test_prior_noise_scale_is_standard_deviation_of_added_noise(scale):
    """After the mean of a flat image is subtracted, only the noise is left."""
    gmm = prior({"kind": "gmm", "noise_scale": scale}, BLUR)
    x_T = gmm.start(SEEDS[:500], gmm.fit(images())).x_T
    residual = x_T - x_T.mean(dim=(2, 3), keepdim=True)
    expected = scale * (1 - 1 / 64) ** 0.5
    assert float(residual.std()) == pytest.approx(expected, rel=0.02, abs=1e-6)
    if scale:
        assert stats.kstest((residual / expected).flatten().numpy(), "norm").pvalue > 1e-3


def test_prior_defaults_are_of_paper():
    assert prior_config({"kind": "gmm"}).noise_scale == 0.002
    assert prior_config({"kind": "gmm"}).components == 1
    assert prior_config({"kind": "normal"}).noise_scale == 0


# --- the law of each prior


def test_gmm_one_component_is_gaussian_of_channel_means():
    gmm = prior({"kind": "gmm", "noise_scale": 0}, BLUR)
    state, means = gmm.fit(images()), to_range(images()).mean((2, 3)).numpy()
    covariance = np.cov(means.T, ddof=0) + 1e-6 * np.eye(3)  # scikit-learn regularises by 1e-6
    np.testing.assert_allclose(state["means"][0], means.mean(0), atol=1e-6)
    np.testing.assert_allclose(state["factors"][0] @ state["factors"][0].T, covariance, atol=1e-6)

    x_T, draw = gmm.start(SEEDS, state)
    color = x_T[:, :, 0, 0].double().numpy()
    assert draw is None
    assert torch.equal(x_T, x_T[:, :, :1, :1].expand_as(x_T))
    np.testing.assert_allclose(color.mean(0), means.mean(0), atol=5 * means.std(0).max() / 4000**0.5)
    np.testing.assert_allclose(np.cov(color.T), covariance, atol=0.08 * covariance.max())


def test_gmm_components_are_drawn_by_weight():
    """Three quarters of the images are dark and a quarter is bright."""
    brightness = torch.tensor([40] * 225 + [210] * 75)[:, None, None, None]
    clusters = (brightness + images() // 20).to(torch.uint8)
    gmm = prior({"kind": "gmm", "components": 2}, BLUR)
    color = gmm.start(SEEDS, gmm.fit(clusters)).x_T.mean(dim=(1, 2, 3))
    assert float((color < 0).double().mean()) == pytest.approx(0.75, abs=0.03)
    assert float((color - to_range(clusters).mean()).abs().min()) > 0.2


def test_gaussian_prior_has_moments_of_training_blocks():
    gaussian = prior({"kind": "gaussian"}, DOWNSAMPLE)
    assert gaussian.small == (3, 2, 2)
    blocks = to_range(images()).unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean((3, 5)).flatten(1).numpy()
    state = gaussian.fit(images())
    np.testing.assert_allclose(state["mean"], blocks.mean(0), atol=1e-6)
    np.testing.assert_allclose(state["factor"] @ state["factor"].T, np.cov(blocks.T), atol=1e-7)

    x_T, _ = gaussian.start(SEEDS, state)
    assert torch.equal(x_T, gaussian.d(x_T, 2)), "x_T is made of blocks"
    drawn = x_T[:, :, ::4, ::4].flatten(1).double().numpy()
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(blocks.T), atol=0.08 * np.cov(blocks.T).max())


def test_gaussian_prior_constant_pixels_stay_constant():
    still = images()
    still[:, :, :4, :4] = 0
    gaussian = prior({"kind": "gaussian"}, DOWNSAMPLE)
    x_T, _ = gaussian.start(SEEDS[:50], gaussian.fit(still))
    torch.testing.assert_close(x_T[:, :, :4, :4], torch.full((50, 3, 4, 4), -1.0))
    assert x_T[:, :, 4:, 4:].std() > 0.05


def test_color_prior_uniform_starts_at_end_of_degradation():
    color = prior({"kind": "color"}, MASK | {"center": "random", "color_range": [-0.5, 0.5]})
    x_T, draw = color.start(SEEDS, {})
    assert torch.equal(x_T[:9], color.d(torch.zeros(9, *SHAPE), 6, draw[:9]))
    for channel in draw.color.T:
        assert stats.kstest(channel.numpy() + 0.5, "uniform").pvalue > 1e-3


def test_color_prior_empirical_takes_means_of_training_images():
    color = prior({"kind": "color", "colors": "empirical"}, MASK)
    means = to_range(images(10)).mean((2, 3)).float()
    _, draw = color.start(SEEDS[:200], color.fit(images(10)))
    distance = (draw.color[:, None] - means).abs().amax(2)
    assert distance.amin(1).max() < 1e-6
    assert len(distance.argmin(1).unique()) == 10


@pytest.mark.parametrize("kind", ["normal", "dataset"])
def test_drawn_prior_starts_at_draw(kind):
    others = images(20, seed=5)
    drawn = prior({"kind": "dataset"}, ANIMORPH, source=others) if kind == "dataset" else prior({"kind": kind}, NOISE)
    x_T, draw = drawn.start(SEEDS[:100])
    assert torch.equal(x_T, draw.z)
    if kind == "normal":
        assert stats.kstest(x_T.flatten().numpy(), "norm").pvalue > 1e-3
    else:
        levels = ((x_T + 1) * 127.5).round().to(torch.uint8)
        assert (levels[:, None] == others).flatten(2).all(2).any(1).all()


def test_data_prior_degrades_like_training():
    data = prior({"kind": "data"}, MASK | {"quantize": True, "center": "random", "order": "forward"})
    x_T, draw = data.start(SEEDS[:7], images=images(7))
    assert torch.equal(x_T, data.d(to_range(images(7)).float(), 6, draw))
    levels = (x_T + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)


# --- errors


@pytest.mark.parametrize(
    ("config", "degradation", "message"),
    [
        ({"kind": "uniform"}, BLUR, r"prior.kind = 'uniform': allowed: color, data, dataset, gaussian, gmm, normal"),
        ({"kind": "gmm", "components": 0}, BLUR, r"prior.components = 0: input should be greater than or equal to 1"),
        ({"kind": "gmm", "noise_scale": -1}, BLUR, r"prior.noise_scale = -1: input should be greater"),
        ({"kind": "normal", "components": 1}, NOISE, r"prior.components = 1: unknown key; allowed: kind, noise_scale"),
        ({"kind": "gmm"}, NOISE, r"prior.kind = 'gmm': models .* this noise is random"),
        ({"kind": "gaussian"}, BLUR, r"prior.kind = 'gaussian': models the end of downsample, not of blur"),
        ({"kind": "color"}, MASK | {"fill": "zero"}, r"prior.kind = 'color': needs a mask with fill = 'color'"),
        ({"kind": "normal"}, BLUR, r"prior.kind = 'normal': needs noise, not blur"),
        ({"kind": "dataset"}, NOISE, r"prior.kind = 'dataset': needs animorph, not noise"),
    ],
)
def test_build_prior_invalid_config_is_refused(config, degradation, message):
    with pytest.raises(ValueError, match=message):
        prior(config, degradation)


def test_prior_invalid_use_is_refused():
    gmm, data = prior({"kind": "gmm", "components": 5}, BLUR), prior({"kind": "data"}, MASK)
    with pytest.raises(ValueError, match=r"prior.kind = 'gmm': learns from images, so start needs the state from fit"):
        gmm.start(SEEDS[:2])
    with pytest.raises(
        ValueError, match=r"prior.components = 5: needs at least as many training images, and at least 2, not 4"
    ):
        gmm.fit(images(4))
    with pytest.raises(ValueError, match=r"training images: images of shape \(300, 3, 8, 4\): must be \(N, \*"):
        gmm.fit(images()[..., :4])
    with pytest.raises(ValueError, match=r"images: the prior 'data' degrades images, so start needs them"):
        data.start(SEEDS[:2])
    with pytest.raises(ValueError, match=r"images: the prior 'gmm' takes no images"):
        gmm.start(SEEDS[:2], gmm.fit(images()), images(2))
    with pytest.raises(ValueError, match=r"images: 3 for 2 seeds, but there must be one image per seed"):
        data.start(SEEDS[:2], images=images(3))


def test_prior_registry_kinds_match_config_defaults():
    for kind, each in PRIORS.items():
        assert each.config_type.model_fields["kind"].default == kind
