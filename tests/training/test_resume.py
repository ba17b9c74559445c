"""A training that was interrupted is, bit for bit, the one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_helpers import InterruptedTrainingError, MakeTask, Reports

from coldtune.training import FolderCheckpoints, read_history, train

FILES = ("weights", "ema", "optimizer")


def tensors(checkpoints: FolderCheckpoints, step: int) -> dict[str, torch.Tensor]:
    found = checkpoints.latest(step)
    assert found
    assert found[0] == step
    return {f"{file}.{k}": v for file in FILES for k, v in load_file(found[1] / f"{file}.safetensors").items()}


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


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
def test_resumed_equals_unbroken(
    make_task: MakeTask, tmp_path: Path, training: dict[str, Any], data: dict[str, Any]
) -> None:
    task = make_task(data, **({"checkpoint_every": 5, "report_every": 1} | training))
    steps = task.training.steps
    unbroken, broken = FolderCheckpoints(tmp_path / "unbroken"), FolderCheckpoints(tmp_path / "broken")
    train(task, unbroken, Reports())
    with pytest.raises(InterruptedTrainingError):
        train(task, broken, Reports(stop_at=6))
    torch.manual_seed(99)  # whatever else the process drew in the meantime
    result = train(task, broken, after := Reports())
    assert result.resumed_from == 5
    assert min(after.rows) == 6
    assert_equal(tensors(unbroken, steps), tensors(broken, steps))


def test_a_longer_training_continues_a_shorter_one(make_task: MakeTask, tmp_path: Path) -> None:
    once, twice = FolderCheckpoints(tmp_path / "once"), FolderCheckpoints(tmp_path / "twice")
    train(make_task(steps=12), once, Reports())
    train(make_task(steps=6), twice, Reports())
    assert train(make_task(steps=12), twice, Reports()).resumed_from == 6
    assert_equal(tensors(once, 12), tensors(twice, 12))


def test_bookkeeping_does_not_shape_the_trajectory(make_task: MakeTask, tmp_path: Path) -> None:
    one, two = FolderCheckpoints(tmp_path / "one"), FolderCheckpoints(tmp_path / "two")
    train(make_task(steps=6), one, Reports())
    train(make_task(steps=6, report_every=1, validate_every=2, checkpoint_every=1, validate_images=9), two, Reports())
    assert_equal(tensors(one, 6), tensors(two, 6))


def test_a_network_with_dropout_resumes_exactly(
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
    assert_equal(tensors(once, 8), tensors(twice, 8))


def test_a_finished_training_does_nothing_and_a_longer_one_is_not_taken(make_task: MakeTask, tmp_path: Path) -> None:
    checkpoints = FolderCheckpoints(tmp_path)
    train(make_task(steps=4, checkpoint_every=2), checkpoints, Reports())
    result = train(make_task(steps=4), checkpoints, none := Reports())
    assert (result.step, result.resumed_from, result.images_per_s, none.rows) == (4, 4, 0.0, {})
    assert train(make_task(steps=3), checkpoints, Reports()).resumed_from == 2


def test_the_history_goes_with_the_checkpoint(make_task: MakeTask, tmp_path: Path) -> None:
    checkpoints = FolderCheckpoints(tmp_path)
    train(make_task(steps=4), checkpoints, first := Reports())
    train(make_task(steps=12), checkpoints, second := Reports())
    found = checkpoints.latest(12)
    assert found
    assert {int(row.pop("step")): row for row in read_history(found[1])} == first.rows | second.rows


def test_a_checkpoint_of_another_batch_size_is_refused(make_task: MakeTask, tmp_path: Path) -> None:
    train(make_task(steps=2), FolderCheckpoints(tmp_path), Reports())
    with pytest.raises(ValueError, match=r"saved at sample 16, but step 2 .* is sample 8"):
        train(make_task(steps=4, batch_size=4), FolderCheckpoints(tmp_path), Reports())


def test_an_interrupted_write_leaves_no_checkpoint(tmp_path: Path) -> None:
    def torn(directory: Path) -> None:
        (directory / "weights.safetensors").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        FolderCheckpoints(tmp_path).save(3, torn)
    assert FolderCheckpoints(tmp_path).latest(10) is None
    assert list(tmp_path.iterdir()) == []
