from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coldtune.metrics import mse, psnr, rmse, ssim

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics.npz"


def _pair(n: int = 9, channels: int = 1, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(n, channels, size, size, generator=generator)
    return a, (a + 0.2 * torch.rand(a.shape, generator=generator)).clamp(0, 1)


def test_image_scores_equal_golden_values() -> None:
    golden = np.load(GOLDEN)
    a, b = torch.from_numpy(golden["a"]), torch.from_numpy(golden["b"])
    np.testing.assert_allclose(ssim(a, b), golden["ssim_per_image"], rtol=2e-6)
    assert float(ssim(a, b).mean()) == pytest.approx(float(golden["ssim"]), rel=2e-6)
    assert rmse(a, b) == pytest.approx(float(golden["rmse"]), rel=1e-6)


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_ssim_constant_images_equal_luminance_term(a: float, b: float) -> None:
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    got = ssim(*(torch.full((2, 3, 11, 13), value, dtype=torch.float64) for value in (a, b)))
    np.testing.assert_allclose(got, [expected] * 2, rtol=1e-9)


def test_ssim_single_window_equals_formula() -> None:
    # An 11x11 image has a single window, so the means are sums over it with the normalised 2-D Gaussian.
    a, b = (image.double() for image in _pair(1, size=11))
    axis = torch.arange(11).double() - 5
    weight = torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    weight /= weight.sum()
    mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
    var_a, var_b = (weight * (a - mean_a) ** 2).sum(), (weight * (b - mean_b) ** 2).sum()
    cov = (weight * (a - mean_a) * (b - mean_b)).sum()
    expected = (
        (2 * mean_a * mean_b + 1e-4) * (2 * cov + 9e-4) / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
    )
    assert float(ssim(a, b)) == pytest.approx(float(expected), rel=1e-10)


def test_image_scores_equal_images_are_perfect() -> None:
    a, b = _pair(channels=3)
    torch.testing.assert_close(ssim(a, a), torch.ones(9).double())
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    assert rmse(a, a) == 0
    assert psnr(a, a).isinf().all()
    assert float(ssim(a, 1 - a).max()) < 0


def test_psnr_shift_of_a_tenth_is_20_db() -> None:
    a = torch.full((3, 1, 12, 12), 0.25, dtype=torch.float64)
    assert rmse(a, a + 0.1) == pytest.approx(0.1, rel=1e-12)
    torch.testing.assert_close(psnr(a, a + 0.1), torch.full((3,), 20.0).double())


def test_rmse_takes_root_over_all_images() -> None:
    a = torch.zeros(2, 1, 12, 12)
    b = a.clone()
    b[1] = 0.8
    assert rmse(a, b) == pytest.approx(math.sqrt(0.64 / 2), rel=1e-6)
    np.testing.assert_allclose(mse(a, b), [0, 0.64], rtol=1e-6)


def test_ssim_images_smaller_than_window_are_refused() -> None:
    small = torch.zeros(2, 1, 10, 16)
    with pytest.raises(ValueError, match="at least 11 pixels, its window; got 10x16"):
        ssim(small, small)
    assert rmse(small, small) == 0


def test_image_scores_not_finite_images_are_counted() -> None:
    a, b = _pair()
    broken = b.clone()
    broken[[1, 4, 8], 0, 3, 3] = torch.tensor([float("nan"), float("inf"), float("nan")])
    for score in (ssim, mse, psnr, rmse):
        with pytest.raises(ValueError, match="3 of 9 second images hold NaN or infinity"):
            score(a, broken)
        with pytest.raises(ValueError, match="3 of 9 first images"):
            score(broken, b)


def test_image_scores_wrong_range_dtype_or_shape_is_refused() -> None:
    a, b = _pair()
    with pytest.raises(ValueError, match=r"lie in \[-1, 1\].*allowed is \[0, 1\]"):
        rmse(a.round() * 2 - 1, b)
    with pytest.raises(ValueError, match="uint8: allowed are floating"):
        rmse((a * 255).to(torch.uint8), b)
    with pytest.raises(ValueError, match="two equal shapes"):
        ssim(a, b[:3])
