from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from coldtune.metrics import precision_recall, precision_recall_influences
from coldtune.metrics.precision_recall import on_manifold, radii


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _brute(x: torch.Tensor, y: torch.Tensor, k: int) -> float:
    """Return the share of x within a ball of y, with scikit-learn's neighbours."""
    limits = NearestNeighbors(n_neighbors=k).fit(y.numpy()).kneighbors()[0][:, -1]
    inside = [any(float((a - b).norm()) <= limit for b, limit in zip(y, limits, strict=True)) for a in x]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("block", [1, 7, 40, 500])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_recall_any_block_size_equals_definition(k: int, block: int) -> None:
    x, y = _random(40, 4) * 0.8 + 1.2, _random(31, 4, seed=1)
    precision, recall = precision_recall(x, y, k, block)
    assert precision == pytest.approx(_brute(x, y, k))
    assert recall == pytest.approx(_brute(y, x, k))
    assert 0 < precision < 1
    assert 0 < recall < 1


def test_radii_points_on_a_line_are_exact() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    assert radii(x, 1).tolist() == [1, 1, 4, 16]
    assert radii(x, 2, block=3).tolist() == [9, 4, 9, 36]
    probes = torch.tensor([[-1.0], [-1.01], [5.0], [11.0], [11.01]], dtype=torch.float64)
    assert on_manifold(probes, x, radii(x, 1)).tolist() == [True, False, True, True, False]


def test_precision_recall_equal_and_separate_sets_are_one_and_zero() -> None:
    x = _random(50, 6)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x, x + 100) == (0, 0)
    swapped = precision_recall(x + 0.5, _random(60, 6, seed=1))[::-1]
    assert precision_recall(_random(60, 6, seed=1), x + 0.5) == swapped


def test_precision_recall_one_of_two_modes_recalls_half() -> None:
    far = torch.tensor([50.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    reference = torch.cat([_random(100, 4), _random(100, 4, seed=1) + far])
    precision, recall = precision_recall(_random(200, 4, seed=2), reference)
    assert precision > 0.9
    assert 0.4 < recall <= 0.5


def test_precision_recall_copies_lie_at_distance_zero() -> None:
    # 0.1 has no exact float64, and the product form of the distance rounds, but copies must be at distance 0.
    constant = torch.full((20, 64), 0.1, dtype=torch.float64)
    assert radii(constant, 3).tolist() == [0] * 20
    assert precision_recall(constant, constant) == (1, 1)
    assert precision_recall(constant, constant + 1e-3) == (0, 0)


@pytest.mark.parametrize(("n", "m", "k"), [(5, 9, 3), (30, 40, 3), (35, 20, 1), (24, 24, 2)])
@pytest.mark.parametrize("block", [1, 7, 500])
def test_precision_recall_influences_equal_leaving_each_image_out(n: int, m: int, k: int, block: int) -> None:
    x, y = _random(n, 3) * 0.8 + 0.5, _random(m, 3, seed=1)
    x[: n // 6] = x[0]  # copies tie in every order of neighbours
    precise, recalled = precision_recall(x, y, k)
    without = [precision_recall(torch.cat([x[:i], x[i + 1 :]]), y, k) for i in range(n)]
    of_precision, of_recall = precision_recall_influences(x, y, k, block)
    for influences, value, column in ((of_precision, precise, 0), (of_recall, recalled, 1)):
        expected = (n - 1) * (value - torch.tensor([pair[column] for pair in without], dtype=torch.float64))
        torch.testing.assert_close(influences, expected - expected.mean(), rtol=1e-9, atol=1e-9)
    if n >= 24:
        assert float(of_recall.abs().max()) > 0


def test_precision_influences_equal_sets_are_zero() -> None:
    x = _random(60, 3)
    assert float(precision_recall_influences(x, x)[0].abs().max()) == 0
    with pytest.raises(ValueError, match="4 features: this distance needs at least 5"):
        precision_recall_influences(x[:4], x)


def test_precision_recall_reordered_or_scaled_same_values() -> None:
    x, y = _random(45, 5), _random(50, 5, seed=1)
    order = torch.randperm(45, generator=torch.Generator().manual_seed(2))
    expected = precision_recall(x, y)
    assert precision_recall(x[order], y) == expected
    assert precision_recall(8 * x, 8 * y) == expected


def test_precision_recall_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="3 reference features: this distance needs at least 4"):
        precision_recall(_random(10, 2), _random(3, 2))
    with pytest.raises(ValueError, match="neighbours = 0"):
        precision_recall(_random(10, 2), _random(10, 2), neighbours=0)
