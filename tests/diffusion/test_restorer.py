"""The restorer: shapes, sizes, and the severity that it is told."""

from __future__ import annotations

import pytest
import torch

from coldtune.diffusion import build_restorer
from coldtune.diffusion.restorer import SIZES


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_restorer({"size": "tiny"}, (3, 8, 12), steps=20).eval()


@pytest.fixture
def x():
    return torch.randn(4, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def test_restorer_estimate_has_image_shape(tiny, x):
    assert tiny(x, torch.tensor([1, 2, 10, 20])).shape == x.shape


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_restorer_larger_sizes_run(size):
    restorer = build_restorer({"size": size}, (1, 16, 16), steps=20)
    assert restorer(torch.zeros(1, 1, 16, 16), torch.tensor([3])).shape == (1, 1, 16, 16)


def test_restorer_base_has_parameters_of_ddpm_cifar_network():
    """The paper takes the U-Net of Ho et al. (2020) for CIFAR-10. They state 35.7 million parameters."""
    restorer = build_restorer({"size": "base"}, (3, 32, 32), steps=50)
    assert sum(weight.numel() for weight in restorer.parameters()) / 1e6 == pytest.approx(35.7, abs=0.05)


@torch.no_grad()
def test_restorer_uses_severity_of_each_image(tiny, x):
    t = torch.tensor([1, 2, 10, 20])
    together = tiny(x, t)
    for i in range(4):
        torch.testing.assert_close(tiny(x[i : i + 1], t[i : i + 1]), together[i : i + 1], rtol=1e-4, atol=1e-5)
    assert (tiny(x, t + 1) - together).abs().amax((1, 2, 3)).min() > 1e-4


@torch.no_grad()
def test_restorer_index_t_minus_1_shifts_severity(tiny, x):
    torch.manual_seed(0)
    theirs = build_restorer({"size": "tiny", "index": "t-1"}, (3, 8, 12), steps=20).eval()
    t = torch.tensor([1, 2, 10, 20])
    assert torch.equal(theirs(x, t), tiny(x, t - 1))


def test_restorer_every_weight_gets_gradient(tiny, x):
    tiny(x, torch.tensor([1, 2, 10, 20])).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in tiny.parameters())
    tiny.zero_grad(set_to_none=True)


def test_restorer_weights_follow_torch_seed():
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        weights.append(build_restorer({"size": "tiny"}, (1, 8, 8), steps=5).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_build_restorer_indivisible_image_sides_are_refused():
    with pytest.raises(
        ValueError, match=r"needs image sides divisible by 8, not 12x16. Allowed here: micro, tiny, small"
    ):
        build_restorer({"size": "base"}, (1, 12, 16), steps=5)
    with pytest.raises(ValueError, match=r"divisible by 4, not 7x7\. No size fits them\. Choose sides such as 8 "):
        build_restorer({"size": "tiny"}, (1, 7, 7), steps=5)


def test_build_restorer_unknown_size_is_refused():
    with pytest.raises(ValueError, match=r"restorer.size = .huge.: input should be .micro., .tiny., .* .large."):
        build_restorer({"size": "huge"}, (1, 8, 8), steps=5)
    assert list(SIZES) == ["micro", "tiny", "small", "base", "large"]
