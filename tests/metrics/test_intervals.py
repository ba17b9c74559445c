from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, norm

from coldtune.metrics import (
    Interval,
    Reference,
    bootstrap_mean,
    estimates,
    frechet_distance,
    frechet_influences,
    jackknife_interval,
    kid,
    kid_influences,
    mind,
    mind_influences,
    share_interval,
)
from coldtune.metrics.intervals import resampled_means


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _sets(n: int, m: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    return _random(n, dim) @ (_random(dim, dim, seed=1) / 2) + 0.3, _random(m, dim, seed=2) + 0.1


def _fid_interval(reference: Reference, features: torch.Tensor) -> Interval:
    return estimates(features, None, reference, ["fid"])["fid"].interval


def _weighted(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Return the Frechet distance with weights on x. Its cross term sums the singular values of the centred sets."""
    n, m = len(x), len(y)
    mean = weights @ x
    a = np.sqrt(weights * n / (n - 1))[:, None] * (x - mean)
    b = (y - y.mean(0)) / math.sqrt(m - 1)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(((mean - y.mean(0)) ** 2).sum() + (a * a).sum() + (b * b).sum() - 2 * cross)


# More images than dimensions, fewer in the judged set, fewer in the reference, fewer in both.
RANKS = [(60, 80, 6), (7, 80, 12), (40, 7, 12), (8, 9, 20)]


@pytest.mark.parametrize(("n", "m", "dim"), RANKS)
def test_frechet_influences_equal_numerical_derivative(n: int, m: int, dim: int) -> None:
    x, y = _sets(n, m, dim)
    reference = Reference.of(y)
    assert _weighted(x.numpy(), y.numpy(), np.full(n, 1 / n)) == pytest.approx(frechet_distance(reference, x), rel=1e-8)
    influences = frechet_influences(reference, x)
    assert _fid_interval(reference, x).value == pytest.approx(frechet_distance(reference, x), rel=1e-8)
    for i in range(min(n, 12)):
        step = 1e-5 * (np.eye(n)[i] - 1 / n)
        above, below = (_weighted(x.numpy(), y.numpy(), 1 / n + sign * step) for sign in (1, -1))
        assert float(influences[i]) == pytest.approx((above - below) / 2e-5, rel=1e-4, abs=1e-5)
    assert float(influences.sum()) == pytest.approx(0, abs=1e-8 * float(influences.abs().sum()))


def test_frechet_influences_predict_leaving_an_image_out() -> None:
    x, y = _sets(2000, 3000, 4)
    reference = Reference.of(y)
    influences, whole = frechet_influences(reference, x), frechet_distance(reference, x)
    without = [frechet_distance(reference, torch.cat([x[:i], x[i + 1 :]])) for i in range(0, 2000, 50)]
    predicted, measured = influences[::50], (whole - torch.tensor(without, dtype=torch.float64)) * 1999
    torch.testing.assert_close(measured, predicted, rtol=0.02, atol=0.02 * float(influences.std()))


def test_frechet_influences_one_dimension_have_closed_form() -> None:
    x, y = _random(50, 1) * 2 + 1, _random(70, 1, seed=1)
    mean, sd = x.mean(), x.std()
    centred = x[:, 0] - mean
    # d of (m - r)^2 + (s - rho)^2, with s^2 = N/(N-1) sum w c^2.
    expected = 2 * (mean - y.mean()) * centred + (1 - y.std() / sd) * (centred**2 * 50 / 49 - sd**2)
    torch.testing.assert_close(frechet_influences(Reference.of(y), x), expected, rtol=1e-8, atol=1e-8)


def test_frechet_influences_follow_image_order_and_vanish_for_equal_sets() -> None:
    x, y = _sets(5000, 300, 5)
    reference = Reference.of(y)
    influences = frechet_influences(reference, x)
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(frechet_influences(reference, x[order]), influences[order], rtol=1e-7, atol=1e-7)
    # The distance has its minimum, 0, at equal sets, so all derivatives vanish.
    assert float(frechet_influences(reference, y).abs().max()) < 1e-6


@pytest.mark.parametrize("dead", [3, 300])
def test_frechet_influences_dead_features_change_nothing(dead: int) -> None:
    x, y = _sets(50, 60, 4)
    dead_x, dead_y = (torch.cat([torch.zeros(len(t), dead, dtype=torch.float64), t], 1) for t in (x, y))
    torch.testing.assert_close(
        frechet_influences(Reference.of(dead_y), dead_x), frechet_influences(Reference.of(y), x), rtol=1e-6, atol=1e-6
    )


def test_fid_interval_constant_images_has_no_width() -> None:
    reference = Reference.of(_random(50, 4))
    interval = _fid_interval(reference, torch.full((20, 4), 0.25, dtype=torch.float64))
    assert interval.low == pytest.approx(interval.value, rel=1e-9)
    assert interval.high == pytest.approx(interval.value, rel=1e-9)


def _coverage(dim: int, n: int, runs: int, shift: float, scale: float) -> tuple[int, float]:
    """Return how many intervals contain the mean FID of all runs, and the ratio of stated to true deviation."""
    mix = _random(dim, dim, seed=10**6) / dim**0.5
    reference = Reference.of(_random(20 * dim, dim, seed=10**6 + 1) @ mix)
    intervals = [
        _fid_interval(reference, scale * _random(n, dim, seed=s) @ mix + shift / dim**0.5) for s in range(runs)
    ]
    values = torch.tensor([interval.value for interval in intervals], dtype=torch.float64)
    stated = torch.tensor([(interval.high - interval.value) / norm.ppf(0.975) for interval in intervals])
    expected = float(values.mean())
    hits = sum(interval.low <= expected <= interval.high for interval in intervals)
    return hits, float((stated**2).mean().sqrt() / values.std())


def _enough(runs: int) -> int:
    """Return the number of hits that an interval of true level 95 % misses in only one of 1,000 simulations."""
    return int(binom.ppf(1e-3, runs, 0.95))


def test_fid_interval_few_dimensions_covers_nominally() -> None:
    # Far from the reference the distance is nearly linear in the weights, so the coverage is nominal: 95 %, not more.
    hits, ratio = _coverage(dim=4, n=400, runs=300, shift=2, scale=1.3)
    assert _enough(300) <= hits <= binom.ppf(1 - 1e-3, 300, 0.95)
    # A standard deviation of 300 runs is known to 1 / 600^(1/2) = 4 %.
    assert ratio == pytest.approx(1, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("n", [256, 640])
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (0.5, 1), (0.3, 0.8), (1, 1.2)])
def test_fid_interval_64_dimensions_covers(n: int, shift: float, scale: float) -> None:
    hits, ratio = _coverage(dim=64, n=n, runs=400, shift=shift, scale=scale)
    assert hits >= _enough(400)
    assert ratio < 2  # too wide at the reference itself (shift 0, scale 1), but useful


def _coverages(
    names: tuple[str, ...], dim: int, n: int, m: int, runs: int, shift: float, scale: float
) -> dict[str, tuple[int, float]]:
    """Return the numbers of `_coverage` for each distance."""
    mix = _random(dim, dim, seed=10**6) / dim**0.5
    y = _random(m, dim, seed=10**6 + 1) @ mix
    reference, found = Reference.of(y), {name: [] for name in names}
    for seed in range(runs):
        x = scale * _random(n, dim, seed=seed) @ mix + shift / dim**0.5
        for name, estimate in estimates(x, y, reference, names).items():
            found[name].append(estimate.interval)
    return {name: _hits(intervals) for name, intervals in found.items()}


def _hits(intervals: list[Interval]) -> tuple[int, float]:
    values = torch.tensor([interval.value for interval in intervals], dtype=torch.float64)
    stated = torch.tensor([(interval.high - interval.low) / 2 / norm.ppf(0.975) for interval in intervals])
    expected = float(values.mean())
    hits = sum(interval.low <= expected <= interval.high for interval in intervals)
    return hits, float((stated**2).mean().sqrt() / values.std())


# Intervals of recall are too wide, as Efron and Stein prove: 1.4 to 2 times in these simulations.
WIDEST = {"fid_infinity": 1.5, "precision": 1.3, "recall": 2.5}


@pytest.mark.parametrize(("shift", "scale"), [(2, 1.3), (0.5, 1)])
def test_intervals_of_other_distances_few_dimensions_cover(shift: float, scale: float) -> None:
    for name, (hits, ratio) in _coverages(tuple(WIDEST), 4, 400, 400, 100, shift, scale).items():
        assert hits >= _enough(100), name
        assert ratio < WIDEST[name], name


@pytest.mark.slow
@pytest.mark.parametrize("n", [256, 640])
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (0.5, 1), (0.3, 0.8), (1, 1.2)])
def test_intervals_of_other_distances_64_dimensions_cover(n: int, shift: float, scale: float) -> None:
    for name, (hits, ratio) in _coverages(tuple(WIDEST), 64, n, 1000, 100, shift, scale).items():
        assert hits >= _enough(100), name
        assert ratio < WIDEST[name], name


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (3, 10), (10, 10), (250, 363), (363, 363)])
def test_share_interval_equals_scipy_wilson(hits: int, count: int) -> None:
    interval = share_interval(hits / count, count)
    expected = binomtest(hits, count).proportion_ci(0.95, "wilson")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)
    assert interval.low <= interval.value <= interval.high


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (0.3, 0.8), (1, 1.2)])
@pytest.mark.parametrize("metric", ["kid", "mind"])
def test_kid_and_mind_intervals_64_dimensions_cover(metric: str, shift: float, scale: float) -> None:
    mix, runs = _random(64, 64, seed=10**6) / 8, 150
    y = _random(1000, 64, seed=10**6 + 1) @ mix
    intervals = []
    for seed in range(runs):
        x = scale * _random(256, 64, seed=seed) @ mix + shift / 8
        if metric == "kid":
            intervals.append(jackknife_interval(kid(x, y), kid_influences(x, y)))
        else:
            intervals.append(jackknife_interval(mind(x, y, 0, 100), mind_influences(x, y, 0, 100)))
    values = torch.tensor([interval.value for interval in intervals], dtype=torch.float64)
    expected = float(values.mean())
    assert sum(interval.low <= expected <= interval.high for interval in intervals) >= _enough(runs)
    stated = torch.tensor([(interval.high - interval.value) / norm.ppf(0.975) for interval in intervals])
    assert (
        float((stated**2).mean().sqrt() / values.std()) < 2**0.5 + 0.25
    )  # reached at equal distributions, with a noise of 8 %


def test_fid_bootstrap_would_exclude_own_estimate() -> None:
    # This is why FID has no bootstrap: at d = 64 and N = 256 every resample is farther away than the images.
    reference, x = Reference.of(_random(5000, 64)), _random(256, 64, seed=1)
    generator = torch.Generator().manual_seed(0)
    resampled = [frechet_distance(reference, x[torch.randint(256, (256,), generator=generator)]) for _ in range(30)]
    assert min(resampled) > frechet_distance(reference, x)
    interval = _fid_interval(reference, x)
    assert interval.low < interval.value < interval.high


def test_bootstrap_mean_normal_sample_equals_textbook() -> None:
    values = _random(4000) * 3 + 10
    interval, error = bootstrap_mean(values, seed=1), float(values.std()) / 4000**0.5
    assert interval.value == float(values.mean())
    # Quantiles of 2,000 resamples are known to about 0.06 standard errors.
    assert interval.low == pytest.approx(interval.value - 1.96 * error, abs=0.25 * error)
    assert interval.high == pytest.approx(interval.value + 1.96 * error, abs=0.25 * error)


def test_bootstrap_mean_skewed_sample_covers() -> None:
    # The values are skewed like losses: exponential with mean 1.
    hits = 0
    for seed in range(200):
        interval = bootstrap_mean(-torch.rand(100, generator=torch.Generator().manual_seed(seed)).log(), seed, 500)
        hits += interval.low <= 1 <= interval.high
    # At N = 100 the percentile interval of this law has a level near 93 %. Allow for that and for chance.
    assert binom.ppf(1e-3, 200, 0.92) <= hits < 200


def test_bootstrap_mean_repeats_by_seed_and_follows_linear_maps() -> None:
    values = _random(50).abs()
    interval = bootstrap_mean(values, seed=3)
    assert interval == bootstrap_mean(values, seed=3)
    assert interval != bootstrap_mean(values, seed=4)
    moved = bootstrap_mean(2 * values + 1, seed=3)
    assert (moved.low, moved.high) == pytest.approx((2 * interval.low + 1, 2 * interval.high + 1))
    constant = bootstrap_mean(torch.full((9,), 0.5), resamples=100)
    assert (constant.low, constant.value, constant.high) == (0.5, 0.5, 0.5)


def test_resampled_means_any_chunk_size_same_means(monkeypatch: pytest.MonkeyPatch) -> None:
    values = _random(40)
    whole = resampled_means(values, 5, 100)
    monkeypatch.setattr("coldtune.metrics.intervals._DRAWN", 120)
    torch.testing.assert_close(resampled_means(values, 5, 100), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(resampled_means(values, 5, 7), whole[:7], rtol=1e-12, atol=1e-12)


def test_interval_map_monotone_function_maps_bounds() -> None:
    interval = Interval(4.0, 1.0, 9.0)
    assert interval.map(math.sqrt) == Interval(2.0, 1.0, 3.0)
    assert interval.map(lambda x: -x) == Interval(-4.0, -9.0, -1.0)
    assert interval.excludes_zero
    assert Interval(-4.0, -5.0, -1.0).excludes_zero
    assert not Interval(0.0, -1.0, 1.0).excludes_zero


def test_jackknife_interval_mean_equals_textbook() -> None:
    values = _random(30)
    interval = jackknife_interval(float(values.mean()), values - values.mean())
    error = float(values.std()) / 30**0.5
    assert (interval.high - interval.low) / 2 == pytest.approx(norm.ppf(0.975) * error, rel=1e-12)


def test_intervals_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"values \(1,\): a bootstrap needs \(N,\) with N >= 2"):
        bootstrap_mean(torch.ones(1))
    with pytest.raises(ValueError, match="2 of 3 values are NaN or infinite"):
        bootstrap_mean(torch.tensor([1.0, torch.inf, torch.nan]))
    with pytest.raises(ValueError, match="resamples = 99"):
        bootstrap_mean(torch.ones(5), resamples=99)
    with pytest.raises(ValueError, match="1 influences: an interval needs at least 2 images"):
        jackknife_interval(1.0, torch.zeros(1))
    with pytest.raises(ValueError, match=r"share = 1\.5 of 3 images"):
        share_interval(1.5, 3)
    with pytest.raises(ValueError, match="features of 5 dimensions against a reference of 4"):
        frechet_influences(Reference.of(_random(20, 4)), _random(20, 5))
