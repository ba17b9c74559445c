from __future__ import annotations

import pytest
import torch

from coldtune.metrics import Reference, fid_infinity, fid_infinity_estimate, frechet_distance
from coldtune.metrics.fid_infinity import fid_at_sizes, intercept, part_count, shuffled_parts


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _weighted_frechet(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> float:
    """Return the Frechet distance with weights on x. Its cross term sums the singular values of the centred sets."""
    n, m = len(x), len(y)
    mean = weights @ x
    a = (weights * n / (n - 1)).sqrt()[:, None] * (x - mean)
    b = (y - y.mean(0)) / (m - 1) ** 0.5
    shift, cross = mean - y.mean(0), torch.linalg.svdvals(a @ b.T).sum()
    return float(shift @ shift + (a * a).sum() + (b * b).sum() - 2 * cross)


def _standard(dim: int) -> Reference:
    """Return the exact moments of N(0, 1), so that all bias comes from the judged set."""
    eye = torch.eye(dim, dtype=torch.float64)
    return Reference(torch.zeros(dim, dtype=torch.float64), eye, eye, n=10**9)


def test_intercept_points_on_a_line_is_exact() -> None:
    x = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
    assert intercept(x, 3 - 2 * x) == pytest.approx(3, rel=1e-12)


def test_intercept_equals_torch_lstsq() -> None:
    x, y = _random(9, seed=1).abs(), _random(9, seed=2)
    solved = torch.linalg.lstsq(torch.stack([torch.ones_like(x), x], 1), y[:, None]).solution
    assert intercept(x, y) == pytest.approx(float(solved[0]), rel=1e-10)


@pytest.mark.parametrize(("count", "dim", "expected"), [(4, 64, 2), (256, 64, 2), (384, 64, 3), (10**5, 64, 8)])
def test_part_count_keeps_two_vectors_per_dimension(count: int, dim: int, expected: int) -> None:
    assert part_count(count, dim) == expected


@pytest.mark.parametrize("place", range(24))
def test_fid_at_sizes_each_image_counts_once_per_size(place: int) -> None:
    # Against N(0, 0), the part with a 1 among n - 1 zeros has mean^2 + variance = 1/n^2 + 1/n. Other parts have 0.
    features, zero = torch.zeros(24, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    features[place] = 1
    sizes, values = fid_at_sizes(features, Reference(zero[0], zero, zero, n=10**9), seed=7)
    assert sizes.tolist() == [24 // k for k in range(1, 9)]
    for k in (1, 2, 3, 4, 6, 8):
        assert float(values[k - 1]) == pytest.approx((1 / (24 / k) ** 2 + 1 / (24 / k)) / k, rel=1e-9)


def test_fid_infinity_known_distance_is_less_biased_than_fid() -> None:
    # N(0.2, 1) against the exact N(0, 1) in 16 dimensions: the distance is 16 * 0.04 = 0.64.
    dim, count, runs = 16, 128, 60
    sets = [_random(count, dim, seed=seed) + 0.2 for seed in range(runs)]
    plain = torch.tensor([frechet_distance(_standard(dim), x) for x in sets])
    extrapolated = torch.tensor([fid_infinity(x, _standard(dim), seed=0) for x in sets])
    error = float(extrapolated.std()) / runs**0.5
    assert abs(float(extrapolated.mean()) - 0.64) < 0.1 * (float(plain.mean()) - 0.64) + 4 * error
    assert float(plain.mean()) > 0.64 + 4 * float(plain.std()) / runs**0.5


def test_fid_infinity_depends_only_on_seed() -> None:
    features, reference = _random(100, 4) + 0.1, _standard(4)
    assert fid_infinity(features, reference, 3) == fid_infinity(features, reference, 3)
    assert fid_infinity(features, reference, 3) != fid_infinity(features, reference, 4)


def test_fid_infinity_scale_squares() -> None:
    features = _random(100, 4)
    reference, doubled = Reference.of(_random(90, 4, seed=1)), Reference.of(2 * _random(90, 4, seed=1))
    assert fid_infinity(2 * features, doubled) == pytest.approx(4 * fid_infinity(features, reference), rel=1e-9)


@pytest.mark.parametrize(("count", "dim"), [(20, 2), (23, 3), (9, 6)])
def test_fid_infinity_influences_equal_numerical_derivative(count: int, dim: int) -> None:
    x, y = _random(count, dim) * 1.2 + 0.3, _random(40, dim, seed=1)
    reference, levels = Reference.of(y), shuffled_parts(count, dim, seed=3)
    inverse = 1 / torch.tensor([float(len(level[0])) for level in levels], dtype=torch.float64)

    def value(weights: torch.Tensor) -> float:
        means = [
            sum(_weighted_frechet(x[rows], y, weights[rows] / weights[rows].sum()) for rows in level) / len(level)
            for level in levels
        ]
        return intercept(inverse, torch.tensor(means, dtype=torch.float64))

    estimate, influences = fid_infinity_estimate(x, reference, seed=3)
    ones = torch.ones(count, dtype=torch.float64)
    assert estimate == pytest.approx(fid_infinity(x, reference, seed=3), rel=1e-9)
    assert estimate == pytest.approx(value(ones), rel=1e-7)
    for i in range(count):
        step = 1e-5 * torch.eye(count, dtype=torch.float64)[i]
        slope = (value(ones + step) - value(ones - step)) / 2e-5
        assert float(influences[i]) == pytest.approx(count * slope, rel=1e-4, abs=1e-4)
    assert float(influences.sum()) == pytest.approx(0, abs=1e-9 * float(influences.abs().sum()))


def test_fid_infinity_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="3 features: FID-infinity needs at least 4"):
        fid_infinity(_random(3, 4), _standard(4))
    with pytest.raises(ValueError, match=r"allowed are floating tensors \(B, 4\)"):
        fid_infinity(_random(30, 5), _standard(4))
