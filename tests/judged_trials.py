"""Outcomes of trials with judgements in a folder, so that a study has verdicts without any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from coldtune.config import plain
from coldtune.metrics import Judgement, Protocol, Value
from coldtune.studies.storage.outcome import Effort, TrialOutcome
from coldtune.studies.trials.ledger import Ledger, TrialRequest

N = 50
PROTOCOL = Protocol(
    extractor="digits", extractor_sha256="ab" * 32, extractor_input="as given", dim=4, dataset="digits",
    dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="validation", num_images=N,
    reference_images=N, seed=0,
)  # fmt: skip


def outcome(fid: float, folder: Path, seed: int, images: float = 1e-3) -> TrialOutcome:
    """Return the outcome of a trial, with a judgement in `folder`. By default, its images hardly matter."""
    folder.mkdir(parents=True)
    influence = images * torch.randn(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = {"fid": Value("fid", fid, N, PROTOCOL)}
    Judgement(PROTOCOL, values, {"fid": influence - influence.mean()}).save(folder)
    return TrialOutcome(
        {"fid": fid, "ssim": 0.9, "nfe": 20.0},
        plain(PROTOCOL),
        measured={"sampled": str(folder)},
        checkpoint=f"train/{seed}",
        effort=Effort(seconds=2.0),
    )


def run(
    made: Ledger, folder: Path, fid: Callable[[TrialRequest], float], most: int = 1000, trials: int = 3
) -> list[str]:
    """Run trials one after another until none is wanted, and return their names."""
    names: list[str] = []
    while made.wanted(trials) > 0 and len(names) < most:
        asked = made.ask(trials)
        assert asked is not None
        made.complete(asked.number, outcome(fid(asked), folder / asked.label, asked.number))
        names.append(asked.label)
    return names
