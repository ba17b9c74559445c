from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coldtune.metrics import FeatureMoments

DIM = 5


def _features(n: int, offset: float = 0.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)
    return torch.randn(n, DIM, generator=generator, dtype=torch.float64) @ mix + offset


def _streamed(features: torch.Tensor, sizes: list[int]) -> FeatureMoments:
    moments = FeatureMoments(features.shape[1])
    for batch in features.split(sizes):
        moments.update(batch)
    return moments


@given(cuts=st.lists(st.integers(0, 97), max_size=12), order=st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_moments_any_batches_and_order_equal_numpy(cuts: list[int], order: object) -> None:
    features = _features(97, offset=1e4)
    edges = [0, *sorted(cuts), 97]
    rows = list(range(97))
    order.shuffle(rows)  # type: ignore[attr-defined]
    moments = _streamed(features[rows], [b - a for a, b in pairwise(edges)])
    expected = np.cov(features.numpy(), rowvar=False)
    assert moments.n == 97
    np.testing.assert_allclose(moments.mean, features.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_moments_mean_far_above_spread_keeps_digits() -> None:
    # E[x^2] - E[x]^2 would be off by about 1e14 * 1e-16.
    integers = torch.arange(100, dtype=torch.float64)[:, None] % 2 + 1e7
    moments = _streamed(integers, [7] * 14 + [2])
    assert float(moments.covariance) == pytest.approx(100 * 0.25 / 99, rel=1e-9)


def test_moments_float32_features_are_summed_in_float64() -> None:
    features = _features(2000, offset=100.0).float()
    expected = np.cov(features.double().numpy(), rowvar=False)
    np.testing.assert_allclose(_streamed(features, [16] * 125).covariance, expected, rtol=1e-10, atol=1e-10)


def test_moments_constant_features_have_zero_covariance() -> None:
    moments = _streamed(torch.full((30, DIM), 0.1, dtype=torch.float64), [7, 7, 7, 9])
    assert float(moments.covariance.abs().max()) < 1e-30


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_moments_not_finite_features_are_counted_and_refused(wrong: float) -> None:
    features = _features(10)
    features[[2, 5, 7], [0, 1, 1]] = wrong
    features[2] = wrong
    moments = FeatureMoments(DIM)
    with pytest.raises(ValueError, match="3 of 10 feature vectors hold NaN or infinity"):
        moments.update(features)
    assert moments.n == 0


@pytest.mark.parametrize("features", [torch.zeros(4, 3), torch.zeros(4), torch.zeros(4, DIM, dtype=torch.int64)])
def test_moments_wrong_shape_or_dtype_is_refused(features: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"allowed are floating tensors \(B, 5\)"):
        FeatureMoments(DIM).update(features)


def test_moments_too_few_vectors_are_refused() -> None:
    moments = FeatureMoments(DIM)
    with pytest.raises(ValueError, match="0 feature vectors"):
        _ = moments.mean
    moments.update(_features(1))
    with pytest.raises(ValueError, match="at least 2 feature vectors, got 1"):
        _ = moments.covariance
