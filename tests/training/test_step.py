"""The step with static shapes takes the steps of the eager loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_helpers import MakeTask, Reports

from coldtune.training import FolderCheckpoints, TrainingTask, load_restorer, train
from coldtune.training.step import StaticRestorer
from coldtune.training.way import EAGER, FAST, Way, choose_way

STATIC = Way(static=True)
FILES = ("weights", "ema", "optimizer")


def trained(task: TrainingTask, way: Way, folder: Path) -> tuple[dict[str, Any], dict[int, Any]]:
    """Return the tensors of a training's last checkpoint, and its reports."""
    checkpoints, reports = FolderCheckpoints(folder), Reports()
    train(dataclasses.replace(task, way=way), checkpoints, reports)
    found = checkpoints.latest(task.training.steps)
    assert found
    tensors = {f"{name}/{key}": value for name in FILES for key, value in load_file(found[1] / f"{name}.safetensors").items()}
    return tensors, {step: {k: v for k, v in row.items() if k != "images_per_s"} for step, row in reports.rows.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"accumulate": 2, "loss": "l2", "clip_norm": 0.01},
        {"batch_size": 50, "ema_every": 2, "ema_warmup": False},  # several epochs end within a batch
    ],
)
def test_static_step_equals_eager_step(make_task: MakeTask, tmp_path: Path, settings: dict[str, Any]) -> None:
    task = make_task(steps=12, report_every=1, data={"crop_pad": 2, "flip": True}, **settings)
    eager, eager_reports = trained(task, EAGER, tmp_path / "eager")
    static, static_reports = trained(task, STATIC, tmp_path / "static")
    assert eager_reports == static_reports
    for name, value in eager.items():
        assert torch.equal(value, static[name]), name
