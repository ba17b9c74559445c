"""Memory runs out in the middle of a training: it goes on with less at a time and ends as if it had begun so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from training_helpers import InterruptedTrainingError, MakeTask, Reports

from coldtune.diffusion import build_restorer
from coldtune.memory import MemoryExhaustedError
from coldtune.training import FolderCheckpoints, TrainingTask, train

CPU_SAYS = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
FILES = ("weights", "ema", "optimizer")


class Tight(nn.Module):
    """A restorer on a device that holds the activations of `fits` images, from its call number `begin` on."""

    fits, begin, calls, raised = 8, 0, 0, 0
    error: Callable[[str], Exception] = RuntimeError

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.inner = build_restorer(*args, **kwargs)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        Tight.calls += 1
        if len(x) > Tight.fits and Tight.calls > Tight.begin:
            Tight.raised += 1
            raise Tight.error(CPU_SAYS)
        restored: torch.Tensor = self.inner(x, t)
        return restored


def tighten(monkeypatch: pytest.MonkeyPatch, fits: int, begin: int = 0, error: Any = RuntimeError) -> None:
    for name, value in {"fits": fits, "begin": begin, "error": error, "calls": 0, "raised": 0}.items():
        monkeypatch.setattr(Tight, name, value)
    monkeypatch.setattr("coldtune.training.state.build_restorer", Tight)


def tensors(checkpoints: FolderCheckpoints, step: int) -> dict[str, torch.Tensor]:
    found = checkpoints.latest(step)
    assert found
    assert found[0] == step
    loaded = {f"{file}.{k}": v for file in FILES for k, v in load_file(found[1] / f"{file}.safetensors").items()}
    return {name.replace("inner.", ""): tensor for name, tensor in loaded.items()}


def trained(task: TrainingTask, folder: Path) -> tuple[dict[str, torch.Tensor], Reports]:
    train(task, checkpoints := FolderCheckpoints(folder), reports := Reports())
    return tensors(checkpoints, task.training.steps), reports


def test_it_is_the_training_with_that_accumulation(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too tight from the first step on: bit for bit the training of 8 times 2 images a step, validations included."""
    common = {"steps": 4, "report_every": 1, "validate_every": 2, "validate_images": 5, "clip_norm": 0.1}
    small, reference = trained(make_task(batch_size=2, accumulate=8, **common), tmp_path / "small")
    tighten(monkeypatch, fits=2)
    with pytest.warns(UserWarning, match=r"out of memory with \d images at a time, at step 1; .* stays 16"):
        tight, reports = trained(make_task(batch_size=8, accumulate=2, **common), tmp_path / "tight")
    assert Tight.raised == 2, "with 8 images, with 4, and never again"
    assert [name for name, value in small.items() if not torch.equal(tight[name], value)] == []
    assert reports.rows[1].pop("micro_batch") == 2
    assert reports.rows.keys() == reference.rows.keys()
    for step, row in reference.rows.items():
        assert reports.rows[step].keys() == row.keys()
        for key in row.keys() - {"images_per_s"}:
            assert reports.rows[step][key] == pytest.approx(row[key]), f"{key} at step {step}"


@pytest.mark.parametrize("begin", [4, 6])
def test_nothing_of_a_step_that_was_cut_short_is_left(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: int
) -> None:
    """Memory runs out in the middle of step 2, and at the start of step 3: no gradient counts twice."""
    task = make_task(steps=4, accumulate=3, report_every=1)
    roomy, reference = trained(task, tmp_path / "roomy")
    tighten(monkeypatch, fits=4, begin=begin)
    with pytest.warns(UserWarning, match="goes on with 4"):
        tight, reports = trained(task, tmp_path / "tight")
    assert Tight.raised == 1
    for name, value in roomy.items():
        torch.testing.assert_close(tight[name], value, rtol=2e-3, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}")
    for step, row in reference.rows.items():
        assert reports.rows[step]["loss"] == pytest.approx(row["loss"], rel=1e-5), f"step {step}"


def test_whoever_resumes_begins_with_what_fitted(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from a checkpoint at which no report was due."""
    task, checkpoints = make_task(steps=6, checkpoint_every=2, report_every=3), FolderCheckpoints(tmp_path / "tight")
    small, _ = trained(make_task(steps=6, batch_size=2, accumulate=4), tmp_path / "small")
    tighten(monkeypatch, fits=3, error=torch.OutOfMemoryError)
    with pytest.warns(UserWarning, match="goes on with"), pytest.raises(InterruptedTrainingError):
        train(task, checkpoints, Reports(stop_at=3))
    tighten(monkeypatch, fits=3)
    train(task, checkpoints, Reports())  # a warning would be an error here
    assert Tight.raised == 0
    resumed = tensors(checkpoints, 6)
    assert [name for name, value in small.items() if not torch.equal(resumed[name], value)] == []


def test_one_image_that_does_not_fit_is_the_end(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tighten(monkeypatch, fits=0)
    with (
        pytest.warns(UserWarning, match="goes on with"),
        pytest.raises(MemoryExhaustedError, match="even with one image at a time"),
    ):
        trained(make_task(), tmp_path)
    assert FolderCheckpoints(tmp_path).latest(100) is None


def test_other_errors_are_not_taken_for_it(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tighten(monkeypatch, fits=0, error=lambda _: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        trained(make_task(), tmp_path)
    assert Tight.raised == 1


def member(rank: int, folder: Path, task: TrainingTask) -> None:
    """One of two processes; the second has less memory."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    with pytest.MonkeyPatch.context() as patch:
        if rank:
            tighten(patch, fits=1, begin=2)  # 4 images in one call: the third step's
        train(task, FolderCheckpoints(folder / "checkpoints"), reports := Reports(), device="cpu")
        seen = {"rows": reports.rows, "raised": Tight.raised}
    dist.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(seen))


@pytest.mark.slow
def test_a_group_agrees(make_task: MakeTask, tmp_path: Path) -> None:
    """Memory runs out on one of two ranks: both begin the step anew, and the sums are those of one process."""
    task = make_task(steps=8, batch_size=7, report_every=1)
    torch.multiprocessing.spawn(member, (tmp_path, task), nprocs=2)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [rank["raised"] for rank in ranks] == [0, 2], "with 4 images, with 2"
    train(task, FolderCheckpoints(tmp_path / "alone"), alone := Reports())
    assert {step: row["micro_batch"] for step, row in ranks[0]["rows"].items() if "micro_batch" in row} == {"3": 1}
    for step, row in alone.rows.items():
        assert ranks[0]["rows"][str(step)]["loss"] == pytest.approx(row["loss"], rel=1e-4)
