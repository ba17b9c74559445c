"""The keys of stages: they change exactly if the stage's result would change."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from coldtune import presets
from coldtune.data import Dataset, prepared
from coldtune.metrics import DISTANCES, Protocol
from coldtune.stages.compute import Compute, cache_key
from coldtune.stages.keys import completion_key, measure_key, prior_key, sample_key, train_key
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.training.device import use_threads

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


def test_measure_key_added_metric_leaves_keys_of_stored_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of the key, written out: if it changes, no existing home finds its measurements any more."""
    monkeypatch.setitem(DISTANCES, "coverage", replace(DISTANCES["recall"]))
    text = f'{{"images":"images","protocol":"{PROTOCOL.key}","stage":"measure","version":2}}'
    assert measure_key("images", PROTOCOL) == hashlib.sha256(text.encode()).hexdigest()


def test_completion_key_depends_on_the_entry_and_on_what_is_missing() -> None:
    keys = {completion_key("a", ["kid", "fid"]), completion_key("b", ["kid", "fid"]), completion_key("a", ["kid"])}
    assert len(keys) == 3
    assert completion_key("a", ["fid", "kid"]) in keys


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
