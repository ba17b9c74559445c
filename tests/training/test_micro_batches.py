"""Memory runs out during a training: it continues with smaller parts, and its result is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from group_scenarios import group_tasks
from training_helpers import (
    InterruptedTrainingError,
    LimitedRestorer,
    MakeTask,
    Reports,
    assert_same_rows,
    limit_memory,
    tensors,
    unequal,
)

from coldtune.memory import MemoryExhaustedError
from coldtune.training import FolderCheckpoints, TrainingTask, train


def trained(task: TrainingTask, folder: Path) -> tuple[dict[str, torch.Tensor], Reports]:
    train(task, checkpoints := FolderCheckpoints(folder), reports := Reports())
    return tensors(checkpoints, task.training.steps), reports


def test_train_memory_exhausted_equals_training_with_more_accumulation(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is too small from the first step on. The result is that of 8 times 2 images a step, bit for bit."""
    common = {"steps": 4, "report_every": 1, "validate_every": 2, "validate_images": 5, "clip_norm": 0.1}
    small, reference = trained(make_task(batch_size=2, accumulate=8, **common), tmp_path / "small")
    limit_memory(monkeypatch, fits=2)
    with pytest.warns(UserWarning, match=r"out of memory with \d images at a time, at step 1\. .* stays 16\."):
        limited, reports = trained(make_task(batch_size=8, accumulate=2, **common), tmp_path / "limited")
    assert LimitedRestorer.raised == 2, "with 8 images and with 4, and never again"
    assert unequal(limited, small) == []
    assert reports.rows[1].pop("micro_batch") == 2
    assert_same_rows(reports.rows, reference.rows)


@pytest.mark.parametrize("begin", [4, 6])
def test_train_memory_exhausted_within_step_counts_no_gradient_twice(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: int
) -> None:
    """Memory runs out in the middle of step 2, or at the start of step 3."""
    task = make_task(steps=4, accumulate=3, report_every=1)
    roomy, reference = trained(task, tmp_path / "roomy")
    limit_memory(monkeypatch, fits=4, begin=begin)
    with pytest.warns(UserWarning, match="goes on with 4"):
        limited, reports = trained(task, tmp_path / "limited")
    assert LimitedRestorer.raised == 1
    for name, value in roomy.items():
        torch.testing.assert_close(limited[name], value, rtol=2e-3, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}")
    for step, row in reference.rows.items():
        assert reports.rows[step]["loss"] == pytest.approx(row["loss"], rel=1e-5), f"step {step}"


def test_train_resumed_after_memory_exhausted_begins_with_smaller_parts(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training resumes from a checkpoint at which no report was due."""
    task, checkpoints = make_task(steps=6, checkpoint_every=2, report_every=3), FolderCheckpoints(tmp_path / "limited")
    small, _ = trained(make_task(steps=6, batch_size=2, accumulate=4), tmp_path / "small")
    limit_memory(monkeypatch, fits=3, error=torch.OutOfMemoryError)
    with pytest.warns(UserWarning, match="goes on with"), pytest.raises(InterruptedTrainingError):
        train(task, checkpoints, Reports(stop_at=3))
    limit_memory(monkeypatch, fits=3)
    train(task, checkpoints, Reports())  # a warning would be an error here
    assert LimitedRestorer.raised == 0
    assert unequal(tensors(checkpoints, 6), small) == []


def test_train_single_image_exhausts_memory_raises(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_memory(monkeypatch, fits=0)
    with (
        pytest.warns(UserWarning, match="goes on with"),
        pytest.raises(MemoryExhaustedError, match="even with one image at a time"),
    ):
        trained(make_task(), tmp_path)
    assert FolderCheckpoints(tmp_path).latest(100) is None


def test_train_other_runtime_error_is_not_retried(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_memory(monkeypatch, fits=0, error=lambda _: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        trained(make_task(), tmp_path)
    assert LimitedRestorer.raised == 1


def test_train_group_memory_exhausted_on_one_rank_halves_on_all_ranks(
    group: list[dict[str, Any]], make_task: MakeTask, tmp_path: Path
) -> None:
    """Both ranks begin the step anew, and the losses are those of a single process."""
    assert [rank["limited"]["raised"] for rank in group] == [0, 2], "with 4 images, and with 2"
    rows = dict(group[0]["limited"]["rows"])
    assert {step: row["micro_batch"] for step, row in rows.items() if "micro_batch" in row} == {3: 1}
    train(group_tasks(make_task)["limited"], FolderCheckpoints(tmp_path), alone := Reports())
    for step, row in alone.rows.items():
        assert rows[step]["loss"] == pytest.approx(row["loss"], rel=1e-4)
