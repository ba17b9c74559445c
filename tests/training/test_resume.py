"""An interrupted training that resumes ends with the same result as without an interruption, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_helpers import InterruptedTrainingError, MakeTask, Reports, tensors, unequal

from coldtune.training import FolderCheckpoints, read_history, train


@pytest.mark.parametrize(
    ("training", "data"),
    [
        pytest.param({}, {}, id="plain"),
        pytest.param({"accumulate": 3, "ema_every": 2}, {}, id="accumulate, EMA every second step"),
        pytest.param({"clip_norm": 0.1, "loss": "l2"}, {"crop_pad": 1, "flip": True}, id="augmented, clipped"),
        # 1076 training images: the first epoch ends within the sixth step.
        pytest.param({"batch_size": 200, "steps": 7, "checkpoint_every": 5}, {"flip": True}, id="over an epoch's end"),
    ],
)
def test_train_resumed_equals_uninterrupted(
    make_task: MakeTask, tmp_path: Path, training: dict[str, Any], data: dict[str, Any]
) -> None:
    task = make_task(data, **({"checkpoint_every": 5, "report_every": 1} | training))
    steps = task.training.steps
    whole, resumed = FolderCheckpoints(tmp_path / "whole"), FolderCheckpoints(tmp_path / "resumed")
    train(task, whole, Reports())
    with pytest.raises(InterruptedTrainingError):
        train(task, resumed, Reports(stop_at=6))
    torch.manual_seed(99)  # the result must not depend on the torch random state of the process
    result = train(task, resumed, after := Reports())
    assert result.resumed_from == 5
    assert min(after.rows) == 6
    assert unequal(tensors(whole, steps), tensors(resumed, steps)) == []


def test_train_longer_continues_shorter(make_task: MakeTask, tmp_path: Path) -> None:
    once, twice = FolderCheckpoints(tmp_path / "once"), FolderCheckpoints(tmp_path / "twice")
    train(make_task(steps=12), once, Reports())
    train(make_task(steps=6), twice, Reports())
    assert train(make_task(steps=12), twice, Reports()).resumed_from == 6
    assert unequal(tensors(once, 12), tensors(twice, 12)) == []


def test_train_other_bookkeeping_gives_same_weights(make_task: MakeTask, tmp_path: Path) -> None:
    rare, often = FolderCheckpoints(tmp_path / "rare"), FolderCheckpoints(tmp_path / "often")
    train(make_task(steps=6), rare, Reports())
    train(make_task(steps=6, report_every=1, validate_every=2, checkpoint_every=1, validate_images=9), often, Reports())
    assert unequal(tensors(rare, 6), tensors(often, 6)) == []


def test_train_network_with_dropout_resumes_exactly(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(8, 1, 3, padding=1))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            restored: torch.Tensor = self.body(x)
            return restored

    monkeypatch.setattr("coldtune.training.state.build_restorer", lambda *args, **kwargs: Dropping())
    once, twice = FolderCheckpoints(tmp_path / "once"), FolderCheckpoints(tmp_path / "twice")
    train(make_task(steps=8), once, Reports())
    train(make_task(steps=3), twice, Reports())
    train(make_task(steps=8), twice, Reports())
    assert unequal(tensors(once, 8), tensors(twice, 8)) == []


def test_train_finished_does_nothing_and_shorter_ignores_later_checkpoint(make_task: MakeTask, tmp_path: Path) -> None:
    checkpoints = FolderCheckpoints(tmp_path)
    train(make_task(steps=4, checkpoint_every=2), checkpoints, Reports())
    result = train(make_task(steps=4), checkpoints, reports := Reports())
    assert (result.step, result.resumed_from, result.images_per_s, reports.rows) == (4, 4, 0.0, {})
    assert train(make_task(steps=3), checkpoints, Reports()).resumed_from == 2


def test_read_history_of_resumed_training_contains_all_reports(make_task: MakeTask, tmp_path: Path) -> None:
    checkpoints = FolderCheckpoints(tmp_path)
    train(make_task(steps=4), checkpoints, first := Reports())
    train(make_task(steps=12), checkpoints, second := Reports())
    found = checkpoints.latest(12)
    assert found
    assert {int(row.pop("step")): row for row in read_history(found[1])} == first.rows | second.rows


def test_train_checkpoint_of_other_batch_size_raises(make_task: MakeTask, tmp_path: Path) -> None:
    train(make_task(steps=2), FolderCheckpoints(tmp_path), Reports())
    with pytest.raises(ValueError, match=r"saved at sample 16, but step 2 .* is sample 8"):
        train(make_task(steps=4, batch_size=4), FolderCheckpoints(tmp_path), Reports())


def test_folder_checkpoints_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def torn(directory: Path) -> None:
        (directory / "weights.safetensors").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        FolderCheckpoints(tmp_path).save(3, torn)
    assert FolderCheckpoints(tmp_path).latest(10) is None
    assert list(tmp_path.iterdir()) == []
