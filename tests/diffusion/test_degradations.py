"""The base class of all degradations, shown with a blur, and the errors of the registry."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from coldtune.diffusion import Degradation, Draw, build_degradation
from coldtune.diffusion.degradations import DEGRADATIONS, BlurConfig, degradation_config

BLUR = {
    "kind": "blur",
    "steps": 5,
    "kernel_size": 5,
    "padding": "reflect",
    "sigma": {"schedule": "linear", "start": 0.5, "rate": 0.1},
}
SHAPE = (2, 8, 6)


@pytest.fixture
def d() -> Degradation:
    return build_degradation(BLUR, SHAPE)


@pytest.fixture
def x():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_degradation_severity_0_returns_image_bit_for_bit(d, x, dtype):
    x = x.to(dtype)
    assert torch.equal(d(x, 0), x)
    assert torch.equal(d(x, torch.zeros(4, dtype=torch.int64)), x)
    assert torch.equal(d(x, torch.tensor([3, 0, 5, 0]))[1::2], x[1::2])
    assert d(x, 3).dtype == dtype


def test_degradation_severity_0_is_enforced_if_formula_misses_it(d, x):
    x[1, 0, 0, 0] = torch.inf  # a matrix product spreads it as nan
    t = torch.tensor([0, 0, 1, 2])
    assert torch.equal(d(x, t)[:2], x[:2])


def test_degradation_result_is_new_tensor(d, x):
    before = x.clone()
    for t in (0, 3, torch.tensor([0, 1, 2, 3]), torch.zeros(4, dtype=torch.int64)):
        d(x, t).zero_()
    assert torch.equal(x, before)


def test_degradation_attributes_and_repr(d):
    assert (d.kind, d.steps, d.image_shape) == ("blur", 5, SHAPE)
    assert d.config == degradation_config(BLUR) == BlurConfig(**BLUR)
    assert d.draw(torch.arange(4)) is None
    assert repr(d).startswith("Blur(BlurConfig(kind='blur', steps=5")


@dataclass(frozen=True)
class Centre(Draw):
    center: torch.Tensor


def test_degradation_deterministic_refuses_draw(d, x):
    with pytest.raises(ValueError, match=r"draw = Centre\(\.\.\.\): must be None, because blur is deterministic"):
        d(x, 1, Centre(torch.zeros(4, 2)))


def test_draw_to_moves_every_field():
    moved = Centre(torch.zeros(4, 2)).to("meta")
    assert isinstance(moved, Centre)
    assert moved.center.device.type == "meta"


def test_build_degradation_config_object_equals_mapping(d, x):
    assert torch.equal(build_degradation(BlurConfig(**BLUR), SHAPE)(x, 3), d(x, 3))


@pytest.mark.parametrize("t", [-1, 6, 2.0, True, "1", None])
def test_degradation_invalid_severity_is_refused(d, x, t):
    with pytest.raises(ValueError, match=rf"t = {t!r}: must be an integer or an int64 tensor, 0\.\.5"):
        d(x, t)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (torch.tensor([0, 1, 2, 6]), r"t with values 0\.\.6: must be in 0\.\.5"),
        (torch.tensor([-1, 1, 2, 5]), r"t with values -1\.\.5: must be in 0\.\.5"),
        (torch.tensor([0, 1, 2]), r"t of dtype torch.int64 and shape \(3,\): must be int64 \(4,\)"),
        (torch.tensor(1), r"t of dtype torch.int64 and shape \(\): must be int64 \(4,\)"),
        (torch.tensor([0.0, 1, 2, 3]), r"t of dtype torch.float32"),
        (torch.zeros(4, dtype=torch.int64, device="meta"), r"t on meta: must be on the device of x0, cpu"),
    ],
)
def test_degradation_invalid_severity_tensor_is_refused(d, x, t, message):
    with pytest.raises(ValueError, match=message):
        d(x, t)


def test_degradation_invalid_images_are_refused(d, x):
    with pytest.raises(ValueError, match=r"x0 of shape \(4, 2, 6, 8\): must be \(B, 2, 8, 6\)"):
        d(x.mT, 1)
    with pytest.raises(ValueError, match=r"x0 of shape \(2, 8, 6\): must be \(B, 2, 8, 6\)"):
        d(x[0], 1)
    with pytest.raises(ValueError, match=r"x0 of dtype torch.uint8: must be floating point, in \[-1, 1\]"):
        d(x.to(torch.uint8), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "blurr"}, r"degradation.kind = 'blurr': allowed: animorph, blur, "),
        ({"kind": None}, r"degradation.kind = None: allowed: animorph"),
        ({"steps": 0}, r"degradation.steps = 0: input should be greater than or equal to 1"),
        ({"kernel_size": 4}, r"degradation.kernel_size = 4: must be odd"),
        ({"kernel_size": 1}, r"degradation.kernel_size = 1: input should be greater than or equal to 3"),
        ({"kernel_size": 13}, r"degradation.kernel_size = 13: at most 11 for reflect padding .* 6 px"),
        ({"padding": "zero"}, r"degradation.padding = 'zero': input should be 'circular' or 'reflect'"),
        ({"sigma": {"schedule": "constant", "start": 0}}, r"degradation.sigma.start = 0: .* greater than 0"),
        (
            {"sigma": {"schedule": "constant", "start": 1, "rate": 0.1}},
            r"sigma: rate = 0.1: must be left out, because a constant schedule has no rate",
        ),
        ({"sigma": {"schedule": "exponential", "start": 1}}, r"sigma: rate: required by the exponential schedule"),
        ({"sigma": {"schedule": "linear", "start": 1, "rate": -0.3}}, r"sigma.rate = -0.3: makes sigma -0.2 at t = 5"),
        (
            {"sigma": {"schedule": "exponential", "start": 1, "rate": 200}},
            r"sigma.rate = 200.0: makes sigma inf at t = 5",
        ),
        ({"sigmas": 1}, r"degradation.sigmas = 1: unknown key; allowed: collapse_final, kernel_size, kind"),
    ],
)
def test_build_degradation_invalid_config_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build_degradation({**BLUR, **change}, SHAPE)


@pytest.mark.parametrize("shape", [(8, 8), (0, 8, 8), (1, 8.0, 8), (1, 1, 8, 8)])
def test_build_degradation_invalid_image_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"image_shape = .*: must be \(C, H, W\), three positive integers"):
        build_degradation(BLUR, shape)


def test_registry_kinds_match_config_defaults():
    for kind, degradation in DEGRADATIONS.items():
        assert degradation.config_type.model_fields["kind"].default == kind
