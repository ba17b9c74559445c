"""The keys of stages: they change exactly if the stage's result would change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coldtune.metrics import DISTANCES, IMAGE_SCORES, Protocol
from coldtune.stages.keys import MEASURE_VERSION, measure_key

FIRST = {"fid", "fid_infinity", "kid", "mind", "precision", "recall", "ssim", "rmse", "psnr"}
PROTOCOL = Protocol(
    extractor="digits", extractor_sha256="ab" * 32, extractor_input="8 bit", dim=64, dataset="digits",
    dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="test", num_images=358,
    reference_images=358, seed=0,
)  # fmt: skip


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
