"""The keys of stages: they change exactly if the stage's result would change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from coldtune import presets
from coldtune.data import Dataset, prepared
from coldtune.metrics import DISTANCES, IMAGE_SCORES, Protocol
from coldtune.stages.compute import Compute, cache_key
from coldtune.stages.keys import MEASURE_VERSION, measure_key, prior_key, sample_key, train_key
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.training.device import use_threads

FIRST = {"fid", "fid_infinity", "kid", "mind", "precision", "recall", "ssim", "rmse", "psnr"}
PROTOCOL = Protocol(
    extractor="digits", extractor_sha256="ab" * 32, extractor_input="8 bit", dim=64, dataset="digits",
    dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="test", num_images=358,
    reference_images=358, seed=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def digits(digits_home: Path) -> Dataset:
    return Dataset.open(prepared(digits_home, "digits")[0])


def config() -> TrialConfig:
    return parse_trial(presets.load("digits-quick"))


def test_measure_key_added_metric_changes_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = measure_key("images", PROTOCOL)
    monkeypatch.setitem(DISTANCES, "coverage", replace(DISTANCES["recall"]))
    assert measure_key("images", PROTOCOL) != before


def test_measure_key_first_metrics_leave_keys_of_stored_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for metrics in (DISTANCES, IMAGE_SCORES):
        for name in set(metrics) - FIRST:
            monkeypatch.delitem(metrics, name)
    hashed: list[object] = []
    monkeypatch.setattr("coldtune.stages.keys.digest", lambda parts: hashed.append(parts) or "key")
    measure_key("images", PROTOCOL)
    assert hashed == [{"stage": "measure", "version": MEASURE_VERSION, "images": "images", "protocol": PROTOCOL.key}], (
        "entries of existing stores are found again"
    )


@pytest.mark.parametrize("device", [Compute(device="cpu", threads=1), Compute(device="gpu")])
def test_keys_of_every_stage_depend_on_how_it_computes(digits: Dataset, device: Compute) -> None:
    trial, two = config(), Compute(device="cpu", threads=2)
    for key in (
        lambda compute: train_key(trial, digits, compute=compute),
        lambda compute: sample_key(trial, digits, trial.sampler, compute=compute),
        lambda compute: sample_key(trial, digits, None, compute=compute),
        lambda compute: measure_key("images", PROTOCOL, compute),
        lambda compute: prior_key(trial, digits, compute),
        lambda compute: cache_key("features", compute),
    ):
        assert len({key(None), key(two), key(device)}) == 3


def test_sample_key_of_unknown_training_keeps_the_training(digits: Dataset) -> None:
    trial, here = config(), Compute(device="cpu", threads=1)
    unknown = train_key(trial, digits)
    keys = {sample_key(trial, digits, trial.sampler, compute=here, trained=trained) for trained in (None, unknown)}
    assert len(keys) == 2
    assert sample_key(trial, digits, trial.sampler, trained=unknown) == sample_key(trial, digits, trial.sampler)


def test_compute_here_reads_the_threads_of_this_process() -> None:
    before = torch.get_num_threads()
    try:
        use_threads(2)
        assert Compute.here("cpu") == Compute(device="cpu", threads=2)
        assert {pool["num_threads"] for pool in threadpool_info()} == {2}
        assert Compute.here("cuda") == Compute(device="gpu")
    finally:
        use_threads(before)
