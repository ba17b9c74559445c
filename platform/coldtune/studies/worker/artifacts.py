"""The artifacts of a finished trial on its MLflow run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from safetensors.torch import load_file

from coldtune.config import plain
from coldtune.reports.pictures import four_columns, side_by_side, strip
from coldtune.stages.chain import Chain, Outcome
from coldtune.stages.trial import TrialConfig
from coldtune.tracking import SAMPLES, Tracker


def log_artifacts(
    tracker: Tracker, trial: TrialConfig, chain: Chain, outcome: Outcome, environment: Mapping[str, object]
) -> None:
    """Log the trial's configuration, pictures, judgements and weights on its run.

    MLflow's image grid shows the pictures of several runs side by side. They are the same images in every trial. The
    grid shows one step at a time, so the pictures of trainings of different lengths need the same step.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _pictures(folder, chain, outcome)
        (folder / "config.yaml").write_text(yaml.safe_dump(plain(trial), sort_keys=False), encoding="utf-8")
        (folder / "record.json").write_text(json.dumps(_record(outcome, environment), indent=1), encoding="utf-8")
        for name in ("config.yaml", "record.json", "grid.png", "strip.png"):
            tracker.artifact(folder / name)
        for name, file in (("sampled", "sampled.png"), ("path", "strip.png")):
            tracker.image(folder / file, SAMPLES[name], step=0)  # as the final values, so that all runs are shown
    for name, path in outcome.measured.items():
        tracker.artifact(path / "metrics.json", f"judged/{name}")
    tracker.artifact(outcome.checkpoint / "ema.safetensors", "weights")


def _record(outcome: Outcome, environment: Mapping[str, object]) -> dict[str, object]:
    """Return the keys by which the trial's work is found in the store, the protocol of its values, and what ran."""
    return {
        "stages": [
            {"stage": each.stage, "key": each.key, "found": each.found, "seconds": each.seconds}
            for each in outcome.stages
        ],
        "protocol": {"key": outcome.protocol.key, **plain(outcome.protocol)},
        "environment": dict(environment),
    }


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
    side_by_side(images["sampled"][rows]).save(folder / "sampled.png")
