"""Trainings made from judgements, against the paired comparison of two judgements."""

from __future__ import annotations

import pytest
import torch

from coldtune.metrics import Judgement, Protocol, Value
from coldtune.metrics import compare as compare_images
from coldtune.metrics.judgement import score_intervals
from coldtune.verdicts import Setting, Training, compare

N = 60


def judgement(seed: int, reference: str = "same") -> Judgement:
    protocol = Protocol(
        extractor="digits", extractor_sha256="ab" * 32, extractor_input="as given", dim=4, dataset="digits",
        dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="validation", num_images=N,
        reference_images=N, seed=0, reference=reference, eligible_images=None if reference == "same" else N,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    a, b, errors = torch.randn(3, N, generator=generator, dtype=torch.float64)
    per_image = {"mse": 0.01 + 0.001 * errors**2, "ssim": 0.9 + 0.01 * errors}
    scores = score_intervals(per_image, 0)
    values = {name: Value(name, interval.value, N, protocol) for name, interval in scores.items()}
    values["fid"] = Value("fid", 1.0 + seed, N, protocol)
    return Judgement(protocol, values, {"fid": a - a.mean()}, per_image, {"fid": b - b.mean()})


@pytest.mark.parametrize("reference", ["same", "train"])
@pytest.mark.parametrize("metric", ["fid", "rmse", "ssim", "psnr"])
def test_compare_of_single_trainings_has_the_interval_of_their_judgements(metric, reference):
    """Equal for distances. The bootstrap of image scores is random and not quite symmetric, so within 15 %."""
    pair = [judgement(seed, reference) for seed in (0, 1)]
    sides = [Setting(str(i), (Training.of(j, metric, i, f"n{i}"),)) for i, j in enumerate(pair)]
    ours, oracle = compare(*sides, metric).interval, compare_images(*pair, metric).difference
    assert ours.value == pytest.approx(oracle.value)
    tolerance = 1e-9 if metric == "fid" else 0.15
    assert ours.high - ours.low == pytest.approx(oracle.high - oracle.low, rel=tolerance)


def test_training_of_a_judgement_without_the_metric_is_refused():
    with pytest.raises(
        ValueError, match="metric = 'kid': has no numbers for each image, only fid, ssim, rmse, psnr have"
    ):
        Training.of(judgement(0), "kid", 0, "n")
