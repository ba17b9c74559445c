from __future__ import annotations

from itertools import product

import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from coldtune.metrics import kid
from coldtune.metrics.kid import kid_influences


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kid_equals_definition_pair_by_pair() -> None:
    x, y = _random(5, 3), _random(4, 3, seed=1) + 0.5

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    xx = sum(k(a, b) for (i, a), (j, b) in product(enumerate(x), enumerate(x)) if i != j) / (5 * 4)
    yy = sum(k(a, b) for (i, a), (j, b) in product(enumerate(y), enumerate(y)) if i != j) / (4 * 3)
    xy = sum(k(a, b) for a, b in product(x, y)) / (5 * 4)
    assert kid(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-12)


@pytest.mark.parametrize("block", [1, 7, 50, 64, 1000])
def test_kid_any_block_size_equals_scikit_learn_kernel(block: int) -> None:
    x, y = _random(64, 20) + 0.3, _random(50, 20, seed=1)
    kernels = [polynomial_kernel(a, b, degree=3, gamma=1 / 20, coef0=1) for a, b in ((x, x), (y, y), (x, y))]
    within = [(matrix.sum() - matrix.trace()) / (len(matrix) * (len(matrix) - 1)) for matrix in kernels[:2]]
    assert kid(x, y, block) == pytest.approx(sum(within) - 2 * kernels[2].mean(), rel=1e-9)


def test_kid_swapped_or_reordered_sets_same_value() -> None:
    x, y = _random(40, 6), _random(33, 6, seed=1) * 1.5
    assert kid(x, y) == pytest.approx(kid(y, x), rel=1e-12)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    assert kid(x[order], y) == pytest.approx(kid(x, y), rel=1e-10)


def test_kid_any_size_is_unbiased() -> None:
    # In one dimension k = (xy + 1)^3 = 1 + 3xy + 3x^2y^2 + x^3y^3, so MMD^2 is a sum over moments:
    # 3 (m1 - m1')^2 + 3 (m2 - m2')^2 + (m3 - m3')^2. N(1, 1) has (1, 2, 4), N(0, 1) has (0, 1, 0): 3 + 3 + 16 = 22.
    for count, runs in ((4, 4000), (50, 400)):
        values = torch.tensor([kid(_random(count, 1, seed=s) + 1, _random(count, 1, seed=~s)) for s in range(runs)])
        assert abs(float(values.mean()) - 22) < 4 * float(values.std()) / runs**0.5


def test_kid_equal_distributions_is_zero_on_average() -> None:
    values = torch.tensor([kid(_random(20, 8, seed=s), _random(30, 8, seed=1000 + s)) for s in range(300)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 300**0.5
    assert float(values.min()) < 0 < float(values.max())


def test_kid_influences_predict_leaving_an_image_out() -> None:
    x, y = _random(300, 5) + 0.4, _random(200, 5, seed=1)
    influences = kid_influences(x, y, block=37)
    without = torch.tensor([kid(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(0, 300, 10)])
    # KID is a U-statistic of degree 2 in x: the difference is influence / (n - 1), up to a second order of 1 / n^2.
    torch.testing.assert_close((kid(x, y) - without) * 299, influences[::10].float(), rtol=0.02, atol=0.02)
    assert float(influences.sum()) == pytest.approx(0, abs=1e-9)


def test_kid_influences_variance_equals_variance_over_draws() -> None:
    y = _random(500, 4, seed=9)
    values, variances = [], []
    for seed in range(200):
        x = _random(100, 4, seed=100 + seed) + 0.5
        values.append(kid(x, y))
        variances.append(float((kid_influences(x, y) ** 2).sum()) / (100 * 99))
    # The sample variance of 200 nearly normal values has a relative standard deviation of (2/199)^(1/2) = 10 %.
    assert float(torch.tensor(variances).mean()) == pytest.approx(float(torch.tensor(values).var()), rel=0.4)


def test_kid_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="1 features: this distance needs at least 2"):
        kid(_random(1, 3), _random(5, 3))
    with pytest.raises(ValueError, match="1 reference features: this distance needs at least 2"):
        kid(_random(5, 3), _random(1, 3))
    with pytest.raises(ValueError, match=r"allowed are floating tensors \(B, 4\)"):
        kid(_random(5, 3), _random(5, 4))
    broken = _random(5, 3)
    broken[2] = torch.inf
    with pytest.raises(ValueError, match="1 of 5 feature vectors hold NaN or infinity"):
        kid(broken, _random(5, 3))
