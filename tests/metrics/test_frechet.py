from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coldtune.metrics import FeatureMoments, Reference, estimates, frechet_distance
from coldtune.metrics.reference import covariance_factor

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics.npz"
Matrix = torch.Tensor


def _random(*shape: int, seed: int = 0) -> Matrix:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _spd(dim: int, seed: int) -> Matrix:
    factor = _random(dim, dim, seed=seed)
    return factor @ factor.T + 0.1 * torch.eye(dim, dtype=torch.float64)


def _sample(mean: Matrix, factor: Matrix, seed: int = 0) -> Matrix:
    """Return features whose sample mean and (n - 1) covariance are exactly `mean` and factor factor^T."""
    noise = _random(4 * len(mean) + 5, len(mean), seed=seed)
    orthogonal = torch.linalg.qr(noise - noise.mean(0))[0] * (len(noise) - 1) ** 0.5
    return orthogonal @ factor.T + mean


def _distance(a: Matrix, b: Matrix) -> float:
    return frechet_distance(Reference.of(a), b)


def _sqrtm_distance(a: Matrix, b: Matrix) -> float:
    x, y = a.numpy(), b.numpy()
    s, r = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    cross = np.trace(scipy.linalg.sqrtm(s @ r)).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(r) - 2 * cross)


def test_fid_equals_golden_value() -> None:
    golden = np.load(GOLDEN)
    a, b = torch.from_numpy(golden["feat1"]), torch.from_numpy(golden["feat2"])
    assert _distance(a, b) == pytest.approx(float(golden["frechet"]), rel=1e-9)


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 4), st.floats(0, 4))
@settings(max_examples=40, deadline=None)
def test_fid_one_dimension_has_closed_form(mean_a: float, mean_b: float, sd_a: float, sd_b: float) -> None:
    a = _sample(torch.tensor([mean_a], dtype=torch.float64), torch.tensor([[sd_a]], dtype=torch.float64))
    b = _sample(torch.tensor([mean_b], dtype=torch.float64), torch.tensor([[sd_b]], dtype=torch.float64), seed=1)
    assert _distance(a, b) == pytest.approx((mean_a - mean_b) ** 2 + (sd_a - sd_b) ** 2, rel=1e-9, abs=1e-12)


def test_fid_commuting_covariances_have_closed_form() -> None:
    # With a common eigenbasis, the distance is that of the means plus that of the standard deviations.
    basis = torch.linalg.qr(_random(7, 7))[0]
    sd_a, sd_b = torch.linspace(0.1, 3, 7).double(), torch.linspace(2, 0, 7).double()
    a, b = _sample(_random(7, seed=1), basis * sd_a), _sample(_random(7, seed=2), basis * sd_b, seed=3)
    shift = _random(7, seed=1) - _random(7, seed=2)
    assert _distance(a, b) == pytest.approx(float(shift @ shift + (sd_a - sd_b) @ (sd_a - sd_b)), rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_fid_linear_map_between_gaussians_has_closed_form(seed: int) -> None:
    # For positive definite A, x -> A x is the optimal map from N(0, S) to N(0, A S A): E|x - A x|^2 is the distance.
    s, a = _spd(6, seed), _spd(6, seed + 100) / 3
    factor = torch.linalg.cholesky(s)
    shift = _random(6, seed=seed)
    eye = torch.eye(6, dtype=torch.float64)
    expected = float(((eye - a) @ s @ (eye - a)).trace() + shift @ shift)
    assert _distance(_sample(torch.zeros_like(shift), factor), _sample(shift, a @ factor, 1)) == pytest.approx(
        expected, rel=1e-9
    )


@pytest.mark.parametrize(("n", "m", "dim"), [(300, 200, 24), (64, 65, 16), (400, 50, 32), (700, 650, 300)])
def test_fid_equals_scipy_sqrtm(n: int, m: int, dim: int) -> None:
    a, b = _random(n, dim) @ _spd(dim, 2), _random(m, dim, seed=1) @ _spd(dim, 3) + 0.3
    assert _distance(a, b) == pytest.approx(_sqrtm_distance(a, b), rel=1e-8)
    assert _distance(a, b) == pytest.approx(_distance(b, a), rel=1e-9)


@pytest.mark.parametrize(("n", "dim"), [(500, 16), (17, 16), (10, 64), (2, 8), (300, 256)])
def test_fid_identical_sets_of_any_rank_is_zero(n: int, dim: int) -> None:
    a = _random(n, dim) @ _spd(dim, 1)
    assert 0 <= _distance(a, a) <= 1e-9 * float(a.var(0).sum())


def test_fid_rank_one_sets_have_closed_form() -> None:
    # Both covariances have rank 1, and the cross term of a a^T and b b^T is |a . b|.
    a, b = _random(12, seed=1), _random(12, seed=2)
    sign = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) / 2**0.5
    expected = float(a @ a + b @ b - 2 * (a @ b).abs())
    assert _distance(sign * a, sign * b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [5, 20, 40])
def test_fid_low_rank_equals_fid_in_subspace(n: int) -> None:
    # Both sets lie in 6 of 48 dimensions. An isometry into these dimensions changes no distance.
    isometry = torch.linalg.qr(_random(48, 6))[0].T
    a, b = _random(n, 6, seed=1) @ _spd(6, 1), _random(n, 6, seed=2) + 0.5
    assert _distance(a @ isometry, b @ isometry) == pytest.approx(_distance(a, b), rel=1e-7)


def test_fid_constant_sets_have_closed_form() -> None:
    a, b = torch.full((9, 4), 0.1, dtype=torch.float64), torch.full((5, 4), 0.4, dtype=torch.float64)
    assert _distance(a, a) == 0
    assert _distance(a, b) == pytest.approx(4 * 0.09, rel=1e-12)
    spread = _sample(torch.full((4,), 0.1, dtype=torch.float64), _spd(4, 0))
    assert _distance(a, spread) == pytest.approx(float((_spd(4, 0) @ _spd(4, 0)).trace()), rel=1e-10)


def test_fid_rotation_keeps_and_scale_squares() -> None:
    a, b = _random(80, 9) @ _spd(9, 1), _random(70, 9, seed=5) + 1
    rotation = torch.linalg.qr(_random(9, 9, seed=6))[0]
    assert _distance(a @ rotation, b @ rotation) == pytest.approx(_distance(a, b), rel=1e-10)
    assert _distance(3 * a, 3 * b) == pytest.approx(9 * _distance(a, b), rel=1e-10)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_fid_streamed_moments_equal_features(batch_size: int) -> None:
    a, b = _random(150, 10) @ _spd(10, 1), _random(130, 10, seed=4)
    moments = FeatureMoments(10)
    for batch in b.flip(0).split(batch_size):
        moments.update(batch)
    assert frechet_distance(Reference.of(a), moments) == pytest.approx(_distance(a, b), rel=1e-9)


@pytest.mark.parametrize("rank", [0, 1, 5, 8])
def test_covariance_factor_any_rank_is_orthogonal_and_descending(rank: int) -> None:
    columns = _random(8, 8)[:, :rank]
    matrix = columns @ columns.T
    made = covariance_factor(matrix)
    torch.testing.assert_close(made @ made.T, matrix, rtol=1e-10, atol=1e-12)
    squares = made.T @ made
    torch.testing.assert_close(squares, squares.diagonal().diag(), rtol=1e-10, atol=1e-12)
    assert squares.diagonal().tolist() == sorted(squares.diagonal().tolist(), reverse=True)


def test_fid_small_eigenvalues_keep_digits() -> None:
    # The cross term is the sum of singular values of the sets' triangular factors, which never squares a spread.
    spread, basis = torch.arange(1, 301).double() ** -2, torch.linalg.qr(_random(300, 300))[0]
    a, b = (_random(2000, 300, seed=seed) * spread @ basis for seed in (1, 2))
    factors = [torch.linalg.qr(x - x.mean(0), mode="r").R / (len(x) - 1) ** 0.5 for x in (a, b)]
    shift, cross = a.mean(0) - b.mean(0), torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    expected = float(shift @ shift + sum((x * x).sum() for x in factors) - 2 * cross)
    assert _distance(a, b) == pytest.approx(expected, rel=1e-10)
    assert estimates(b, None, Reference.of(a), ["fid"])["fid"].interval.value == pytest.approx(expected, rel=1e-10)


def test_fid_wrong_input_is_refused() -> None:
    reference = Reference.of(_random(20, 4))
    with pytest.raises(ValueError, match="features of 5 dimensions against a reference of 4"):
        frechet_distance(reference, _random(20, 5))
    with pytest.raises(ValueError, match="at least 2 feature vectors, got 1"):
        frechet_distance(reference, _random(1, 4))
    broken = _random(20, 4)
    broken[3:5] = float("nan")
    with pytest.raises(ValueError, match="2 of 20 feature vectors"):
        frechet_distance(reference, broken)
