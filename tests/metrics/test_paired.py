from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, rankdata
from scipy.stats import norm as normal

from coldtune.metrics import (
    Comparison,
    Interval,
    Judgement,
    Protocol,
    Reference,
    Value,
    compare,
    frechet_distance,
    frechet_influences,
    wilcoxon,
)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _protocol(n: int, dim: int = 4, **changes: Any) -> Protocol:
    parts: dict[str, Any] = {
        "extractor": "digits", "extractor_sha256": "ab" * 32, "extractor_input": "as given", "dim": dim,
        "dataset": "digits", "dataset_fingerprint": "cd" * 32, "image_shape": (1, 16, 16), "resize": "bilinear",
        "split": "validation", "num_images": n, "reference_images": 10**6, "seed": 0,
    }  # fmt: skip
    return Protocol(**(parts | changes))


def _of_features(features: torch.Tensor, reference: Reference, **changes: Any) -> Judgement:
    protocol = _protocol(len(features), features.shape[1], **changes)
    value = Value("fid", frechet_distance(reference, features), len(features), protocol)
    return Judgement(protocol, {"fid": value}, {"fid": frechet_influences(reference, features)})


def _of_losses(mse: torch.Tensor, **changes: Any) -> Judgement:
    protocol = _protocol(len(mse), **changes)
    mean = float(mse.mean())
    values = {"rmse": mean**0.5, "psnr": -10 * float(np.log10(mean)), "ssim": 1 - mean}
    per_image = {"mse": mse, "ssim": 1 - mse}
    return Judgement(protocol, {k: Value(k, v, len(mse), protocol) for k, v in values.items()}, per_image=per_image)


def _comparison(metric: str, value: float, low: float, high: float, n: int = 10_000, **changes: Any) -> Comparison:
    return Comparison(metric, "A", "B", Interval(value, low, high), _protocol(n, 64), **changes)


@pytest.mark.parametrize(
    ("comparison", "sentence"),
    [
        (("fid", -1.44, -1.91, -0.83), "A is better than B: FID -1.4, 95 % CI [-1.9, -0.8], N = 10,000, same draws"),
        (("fid", 1.44, 0.83, 1.91), "A is worse than B: FID 1.4, 95 % CI [0.8, 1.9], N = 10,000, same draws"),
        (("ssim", 0.02, 0.01, 0.03), "A is better than B: SSIM 0.020, 95 % CI [0.010, 0.030], N = 10,000, same draws"),
        (("rmse", 0.02, 0.01, 0.03), "A is worse than B: RMSE 0.020, 95 % CI [0.010, 0.030], N = 10,000, same draws"),
        (
            ("fid", -0.2, -0.9, 0.6),
            "A and B cannot be told apart: FID -0.2, 95 % CI [-0.9, 0.6], N = 10,000, same draws",
        ),
        (
            ("fid_infinity", -0.4, -0.7, -0.1),
            "A is better than B: FID-INFINITY -0.4, 95 % CI [-0.7, -0.1], N = 10,000, same draws",
        ),
        (("fid", 0.0, 0.0, 0.0), "A and B cannot be told apart: FID 0, 95 % CI [0, 0], N = 10,000, same draws"),
    ],
)
def test_comparison_str_is_plain_sentence(comparison: tuple[str, float, float, float], sentence: str) -> None:
    assert str(_comparison(*comparison)) == sentence


def test_comparison_bound_that_excludes_zero_is_not_shown_as_zero() -> None:
    sentence = str(_comparison("fid", -2.0, -4.0, -0.04))
    assert re.search(r"is better .* \[-4\.00?, -0\.04\]", sentence)


def test_comparison_fid_below_4d_says_so() -> None:
    assert str(_comparison("fid", -1.4, -1.9, -0.8, n=255)).endswith(
        "N = 255, same draws (N < 4 d = 256: FID may prefer the over-smoothed one)"
    )
    assert "over-smoothed" not in str(_comparison("fid", -1.4, -1.9, -0.8, n=256))
    assert "over-smoothed" not in str(_comparison("rmse", -1.4, -1.9, -0.8, n=255))


def test_comparison_per_image_is_plain_sentence() -> None:
    comparison = _comparison("fid", -1.4, -1.9, -0.8, score="mse", p_value=2.3e-11, wins=6012)
    assert comparison.per_image() == "MSE is smaller for A on 6,012 of 10,000 images, Wilcoxon p = 2e-11"
    assert _comparison("fid", -1.4, -1.9, -0.8).per_image() == ""


def test_compare_distance_interval_follows_from_influences() -> None:
    reference = Reference.of(_random(500, 4))
    x, y = _random(300, 4, seed=1) + 0.3, _random(300, 4, seed=1) * 1.1
    a, b = _of_features(x, reference), _of_features(y, reference)
    comparison = compare(a, b, names=("blur", "mask"))
    differences = a.influences["fid"] - b.influences["fid"]
    error = float((differences**2).sum() / (300 * 299)) ** 0.5
    value = frechet_distance(reference, x) - frechet_distance(reference, y)
    assert comparison.difference.value == pytest.approx(value, rel=1e-9)
    assert comparison.difference.high - value == pytest.approx(normal.ppf(0.975) * error, rel=1e-9)
    assert str(comparison).startswith("blur is worse than mask" if value > 0 else "blur is better than mask")
    mirrored = compare(b, a, names=("mask", "blur"))
    assert mirrored.difference.low == pytest.approx(-comparison.difference.high, rel=1e-9)
    assert mirrored.better == comparison.better


def _paired_coverage(dim: int, n: int, runs: int) -> tuple[int, float]:
    """Return how many paired intervals contain the mean difference, and how much wider two separate intervals are."""
    reference = Reference.of(_random(20 * dim, dim, seed=10**6))
    comparisons, widths = [], []
    for seed in range(runs):
        easy, own = _random(n, dim, seed=2 * seed), _random(n, dim, seed=2 * seed + 1)
        a = _of_features(1.2 * easy + 0.5, reference)
        b = _of_features(1.3 * easy + 0.2 * own + 0.4, reference)
        comparisons.append(compare(a, b).difference)
        unpaired = (a.influences["fid"] ** 2 + b.influences["fid"] ** 2).sum() / (n * (n - 1))
        widths.append(2 * normal.ppf(0.975) * float(unpaired) ** 0.5 / (comparisons[-1].high - comparisons[-1].low))
    expected = sum(item.value for item in comparisons) / runs
    return sum(item.low <= expected <= item.high for item in comparisons), sum(widths) / runs


def test_compare_interval_covers_paired_difference() -> None:
    hits, wider = _paired_coverage(dim=4, n=400, runs=300)
    assert hits >= binom.ppf(1e-3, 300, 0.95)
    assert wider > 1.5


@pytest.mark.slow
@pytest.mark.parametrize("n", [256, 640])
def test_compare_interval_covers_paired_difference_in_64_dimensions(n: int) -> None:
    hits, wider = _paired_coverage(dim=64, n=n, runs=300)
    assert hits >= binom.ppf(1e-3, 300, 0.95)
    assert wider > 1.5


def test_compare_run_with_itself_has_no_difference() -> None:
    judgement = _of_losses(_random(50).abs())
    comparison = compare(judgement, judgement, "rmse")
    assert comparison.difference == Interval(0, 0, 0)
    assert (comparison.better, comparison.p_value, comparison.wins) == (None, 1, 0)


@pytest.mark.parametrize(("metric", "sign"), [("rmse", -1), ("ssim", 1), ("psnr", 1)])
def test_compare_image_scores_are_resampled_in_pairs(metric: str, sign: int) -> None:
    # Images differ by a factor of 100 in difficulty, models by 2 %. Only a paired comparison can tell them apart.
    mse = torch.exp(_random(400) * 1.5)
    a, b = _of_losses(0.01 * mse), _of_losses(0.0102 * mse * torch.exp(0.02 * _random(400, seed=1)))
    comparison = compare(a, b, metric)
    assert comparison.better == "A"
    assert comparison.difference.value * sign > 0
    assert comparison.p_value is not None
    assert comparison.p_value < 1e-6
    assert comparison.wins == int((a.per_image["mse"] < b.per_image["mse"]).sum())
    assert comparison.difference.low < comparison.difference.value < comparison.difference.high


def test_compare_ssim_interval_equals_textbook() -> None:
    a, b = (_of_losses(0.5 + 0.05 * _random(2000, seed=seed)) for seed in (0, 1))
    differences = a.per_image["ssim"] - b.per_image["ssim"]
    error = float(differences.std()) / 2000**0.5
    interval = compare(a, b, "ssim").difference
    assert interval.high - interval.value == pytest.approx(1.96 * error, abs=0.25 * error)
    assert interval.value - interval.low == pytest.approx(1.96 * error, abs=0.25 * error)


def test_wilcoxon_equals_normal_approximation() -> None:
    x, y = _random(200), _random(200, seed=1) + 0.2
    difference = (x - y).numpy()
    plus = rankdata(np.abs(difference))[difference > 0].sum()
    z = (plus - 200 * 201 / 4) / (200 * 201 * 401 / 24) ** 0.5
    assert wilcoxon(x, y) == pytest.approx(2 * normal.sf(abs(z)), rel=1e-6)
    assert wilcoxon(x, y) == pytest.approx(wilcoxon(y, x), rel=1e-12)
    assert wilcoxon(x, x) == 1
    with pytest.raises(ValueError, match=r"losses \(3,\) and \(4,\)"):
        wilcoxon(torch.zeros(3), torch.zeros(4))


@pytest.mark.parametrize(("part", "value"), [("seed", 1), ("split", "test"), ("num_images", 49), ("resize", "area")])
def test_compare_unequal_protocols_are_refused_by_part(part: str, value: object) -> None:
    a = _of_losses(_random(50).abs())
    b = dataclasses.replace(a, protocol=a.protocol.model_copy(update={part: value}))
    with pytest.raises(ValueError, match=f"cannot be compared; they differ in {part} "):
        compare(a, b, "rmse")


def test_compare_metric_without_interval_is_refused() -> None:
    a = _of_losses(_random(50).abs())
    with pytest.raises(ValueError, match=r"metric = 'recall': both have intervals of ssim, rmse, psnr"):
        compare(a, a, "recall")
    with pytest.raises(ValueError, match=r"metric = 'fid': both have intervals of nothing"):
        compare(Judgement(a.protocol, {}), Judgement(a.protocol, {}))
    perfect = dataclasses.replace(a, values=a.values | {"psnr": Value("psnr", float("inf"), 50, a.protocol)})
    with pytest.raises(ValueError, match="infinite for images without any error; compare by rmse"):
        compare(perfect, a, "psnr")
