"""The artifacts of a finished trial on its MLflow run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml
from safetensors.torch import load_file

from coldtune.config import plain
from coldtune.reports.pictures import four_columns, strip
from coldtune.stages.chain import Chain, Outcome
from coldtune.stages.trial import TrialConfig
from coldtune.tracking import Tracker


def log_artifacts(tracker: Tracker, trial: TrialConfig, chain: Chain, outcome: Outcome) -> None:
    """Log the trial's configuration, pictures, judgements and weights on its run."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _pictures(folder, chain, outcome)
        (folder / "config.yaml").write_text(yaml.safe_dump(plain(trial), sort_keys=False), encoding="utf-8")
        for name in ("config.yaml", "grid.png", "strip.png"):
            tracker.artifact(folder / name)
    for name, path in outcome.measured.items():
        tracker.artifact(path / "metrics.json", f"judged/{name}")
    tracker.artifact(outcome.checkpoint / "ema.safetensors", "weights")


def _pictures(folder: Path, chain: Chain, outcome: Outcome) -> None:
    """Draw the first images side by side, and the path of the sampled images from x_T."""
    images = {name: load_file(path / "images.safetensors")["images"] for name, path in outcome.images.items()}
    rows = slice(0, 8)
    clean = chain.clean()
    grid = four_columns(
        images["degraded"][rows],
        images["direct"][rows],
        images["sampled"][rows],
        clean if clean is None else clean[rows],
    )
    grid.save(folder / "grid.png")
    iterates = load_file(outcome.images["sampled"] / "strip.safetensors")
    strip([(int(s), x) for s, x in sorted(iterates.items(), reverse=True)]).save(folder / "strip.png")
