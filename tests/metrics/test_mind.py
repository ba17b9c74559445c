from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from coldtune.metrics import mind, mind_influences
from coldtune.metrics.mind import mind_estimate, squared_wasserstein, unit_vectors

module = sys.modules["coldtune.metrics.mind"]  # `coldtune.metrics.mind` is the function


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_wasserstein_one_dimension_equals_optimal_assignment(n: int, m: int, seed: int) -> None:
    # Repeat the points until both sets have lcm(n, m) points of equal mass. Then the transport is an assignment.
    x, y = _random(n, 1, seed=seed), _random(m, 1, seed=seed + 1000)
    least = math.lcm(n, m)
    costs = (x.repeat_interleave(least // n, 0) - y.repeat_interleave(least // m, 0).T) ** 2
    rows, columns = linear_sum_assignment(costs.numpy())
    assert float(squared_wasserstein(x, y)) == pytest.approx(float(costs[rows, columns].mean()), rel=1e-10)


def test_mind_shifted_set_has_closed_form() -> None:
    x, shift = _random(50, 8), torch.linspace(-1, 2, 8).double()
    # A shift moves all sorted projections equally, so the value is exactly 3 d mean (u . shift)^2 for any directions.
    exact = 3 * 8 * float(((unit_vectors(5, 1000, 8) @ shift) ** 2).mean())
    assert mind(x, x + shift, seed=5) == pytest.approx(exact, rel=1e-10)
    # (u . shift)^2 has a relative standard deviation below 2^(1/2). Allow five of them for 20,000 directions.
    assert mind(x, x + shift, directions=20_000) == pytest.approx(3 * float(shift @ shift), rel=5 * 0.01)


def test_mind_shifted_gaussians_near_three_squared_shifts() -> None:
    shift = torch.full((4,), 2.0, dtype=torch.float64)
    value = mind(_random(2000, 4), _random(2000, 4, seed=1) + shift, directions=2000)
    assert value == pytest.approx(3 * 16, rel=0.15)  # noise of the directions 3 %, of the means 2 %


def test_mind_scaled_set_has_closed_form() -> None:
    # u . (s x) = s u . x, so the distance of x and s x is (s - 1)^2 times the mean square of the projections.
    x = _random(60, 5)
    projected = x @ unit_vectors(0, 1000, 5).T
    assert mind(x, 3 * x) == pytest.approx(3 * 5 * 4 * float((projected**2).mean()), rel=1e-10)


def test_unit_vectors_are_uniform() -> None:
    units = unit_vectors(0, 20_000, 6)
    torch.testing.assert_close(units.norm(dim=1), torch.ones(20_000, dtype=torch.float64))
    # The covariance is 1/6. Its entries have a standard deviation below 1/6 / 20000^(1/2) * 2 = 0.0024.
    torch.testing.assert_close(units.T @ units / 20_000, torch.eye(6, dtype=torch.float64) / 6, rtol=0, atol=0.012)
    assert float(units.mean(0).abs().max()) < 5 * (1 / 6 / 20_000) ** 0.5
    # More directions continue fewer.
    assert torch.equal(unit_vectors(0, 100, 6), units[:100])
    assert not torch.equal(unit_vectors(1, 100, 6), units[:100])


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 27)])
def test_mind_swapped_reordered_or_chunked_same_value(n: int, m: int) -> None:
    x, y = _random(n, 3), _random(m, 3, seed=1) + 1
    assert mind(x, y) == pytest.approx(mind(y, x), rel=1e-12)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(2))
    assert mind(x[order], y) == pytest.approx(mind(x, y), rel=1e-12)
    assert mind(x, x[order]) == 0
    # The value is a mean over directions, so it is the mean of 130 single directions, whatever the chunks.
    units = unit_vectors(0, 130, 3)
    single = torch.stack([squared_wasserstein(x @ unit[:, None], y @ unit[:, None]) for unit in units])
    assert mind(x, y, directions=130) == pytest.approx(9 * float(single.mean()), rel=1e-12)


def test_mind_repeated_set_same_value() -> None:
    x, y = _random(12, 4), _random(12, 4, seed=1)
    assert mind(x.repeat(3, 1), y) == pytest.approx(mind(x, y), rel=1e-10)
    assert mind(x.repeat(2, 1), x) == 0


def _mean_mind(n: int, spread: float) -> float:
    """Return the mean MIND of 40 pairs, N(0, spread^2) and N(0, 1) in 4 dimensions: 3 d (spread - 1)^2 without bias."""
    values = [mind(spread * _random(n, 4, seed=s), _random(n, 4, seed=500 + s), directions=50) for s in range(40)]
    return sum(values) / 40


def test_mind_bias_falls_with_n() -> None:
    assert _mean_mind(50, 1.0) > 4 * _mean_mind(400, 1.0) > 0


def test_mind_bias_grows_with_spread() -> None:
    # Both models are 12 * 0.4^2 from the reference, with less spread and with more. At small N the first looks nearer.
    assert 1.92 < _mean_mind(30, 0.6) < 0.9 * _mean_mind(30, 1.4)
    assert _mean_mind(3000, 0.6) == pytest.approx(1.92, rel=0.05)
    assert _mean_mind(3000, 1.4) == pytest.approx(1.92, rel=0.05)


def _weighted(x: torch.Tensor, weights: torch.Tensor, y: torch.Tensor) -> float:
    """Return the squared 2-Wasserstein distance on a line of x (N,) with weights and y (M,) with equal weights."""
    order = x.argsort()
    ends_x, ends_y = weights[order].cumsum(0), torch.arange(1, len(y) + 1) / torch.tensor(len(y), dtype=torch.float64)
    ends = torch.cat([ends_x, ends_y]).clamp(max=1).sort().values
    starts = torch.cat([torch.zeros(1, dtype=torch.float64), ends[:-1]])
    middle = (starts + ends) / 2
    of_x = x[order][torch.searchsorted(ends_x, middle).clamp(max=len(x) - 1)]
    of_y = y.sort().values[torch.searchsorted(ends_y, middle).clamp(max=len(y) - 1)]
    return float(((ends - starts) * (of_x - of_y) ** 2).sum())


@pytest.mark.parametrize(("n", "m"), [(9, 9), (9, 14), (15, 6)])
def test_mind_influences_equal_numerical_derivative(n: int, m: int) -> None:
    x, y = _random(n, 3), _random(m, 3, seed=1) + 0.5
    influences = mind_influences(x, y, seed=2, directions=20)
    units = unit_vectors(2, 20, 3)

    def value(weights: torch.Tensor) -> float:
        return 9 * sum(_weighted(x @ unit, weights, y @ unit) for unit in units) / 20

    equal = torch.full((n,), 1 / n, dtype=torch.float64)
    assert value(equal) == pytest.approx(mind(x, y, 2, 20), rel=1e-9)
    assert mind_estimate(x, y, 2, 20)[0] == pytest.approx(mind(x, y, 2, 20), rel=1e-12)
    for i in range(n):
        step = 1e-6 * (torch.eye(n, dtype=torch.float64)[i] - equal)
        assert float(influences[i]) == pytest.approx((value(equal + step) - value(equal - step)) / 2e-6, rel=1e-5)
    assert float(influences.sum()) == pytest.approx(0, abs=1e-9)


def test_mind_influences_variance_equals_variance_over_draws() -> None:
    y = _random(500, 4, seed=9)
    values, variances = [], []
    for seed in range(200):
        x = _random(100, 4, seed=100 + seed) * 1.2 + 0.8
        values.append(mind(x, y, directions=50))
        variances.append(float((mind_influences(x, y, directions=50) ** 2).sum()) / (100 * 99))
    # The sample variance of 200 nearly normal values has a relative standard deviation of (2/199)^(1/2) = 10 %.
    assert sum(variances) / 200 == pytest.approx(float(torch.tensor(values).var()), rel=0.4)


def test_mind_influences_follow_image_order() -> None:
    x, y = _random(60, 3), _random(50, 3, seed=1) + 1
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(mind_influences(x[order], y), mind_influences(x, y)[order], rtol=1e-9, atol=1e-9)


def test_mind_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="directions = 0: allowed are integers of at least 1"):
        mind(_random(5, 3), _random(5, 3), directions=0)
    with pytest.raises(ValueError, match="1 features: this distance needs at least 2"):
        mind(_random(1, 3), _random(5, 3))


def test_mind_of_a_reference_seen_before_is_equal_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, other = _random(20, 4), _random(30, 4, seed=1), _random(30, 4, seed=2)
    found = []
    for kept in (0, module._MOST_KEPT):
        monkeypatch.setattr(module, "_kept", None)
        monkeypatch.setattr(module, "_MOST_KEPT", kept)
        found.append([module._estimate(*given, 20) for given in ((x, y, 0), (x, y, 0), (x, other, 0), (x, y, 1))])
        assert (module._kept is None) == (kept == 0)
        before = y.clone()
        y[0] += 1  # would change the reference that is kept too, if it were not a copy
        found[-1].append(module._estimate(x, y, 1, 20))
        y.copy_(before)
    for anew, again in zip(*found, strict=True):
        assert anew[0] == again[0]
        assert torch.equal(anew[1], again[1])
        assert torch.equal(anew[2], again[2])
