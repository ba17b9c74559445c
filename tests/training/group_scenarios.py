"""Trainings in a torch.distributed group over gloo, without Ray. One pair of processes runs them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from training_helpers import LimitedRestorer, MakeTask, Reports, limit_memory

from coldtune.training import FolderCheckpoints, TrainingTask, train

WORKERS = 2


def group_tasks(make_task: MakeTask) -> dict[str, TrainingTask]:
    """Return the tasks of the group's trainings."""
    # 7 images over 2 workers make shares of 3 and 4. A validation grid of 19 makes 9 and 10.
    common = {"batch_size": 7, "accumulate": 2, "report_every": 1, "validate_every": 2, "validate_images": 19}
    return {
        "shorter": make_task({"flip": True}, steps=2, **common),
        "longer": make_task({"flip": True}, steps=5, **common),
        "diverging": make_task(steps=5, lr=1e30, report_every=2),
        "limited": make_task(steps=8, batch_size=7, report_every=1),
    }


def run_group(tasks: dict[str, TrainingTask], folder: Path) -> list[dict[str, Any]]:
    """Run the trainings in a group of processes, and return the observations of each rank."""
    torch.multiprocessing.spawn(_member, (folder, tasks), nprocs=WORKERS)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORKERS)]


def _member(rank: int, folder: Path, tasks: dict[str, TrainingTask]) -> None:
    """Train as one rank of the group, then write the observations of this rank to `folder/RANK.json`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORKERS)
    seen: dict[str, Any] = {}
    for name in ("shorter", "longer"):  # the second training resumes from the first one's checkpoint, on all ranks
        result = train(tasks[name], FolderCheckpoints(folder / "checkpoints"), reports := Reports(), device="cpu")
        seen[name] = {"rows": _by_step(reports), "resumed_from": result.resumed_from}
    for name, stop_at in (("diverging", None), ("shorter", 2)):
        try:
            train(tasks[name], FolderCheckpoints(folder / "none"), Reports(stop_at), device="cpu")
        except Exception as error:
            seen[f"error of {name}"] = [type(error).__name__, str(error)]
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            limit_memory(patch, fits=1, begin=2)  # its 4 images are one call, so the third step is the first to fail
        train(tasks["limited"], FolderCheckpoints(folder / "limited"), reports := Reports(), device="cpu")
        seen["limited"] = {"rows": _by_step(reports), "raised": LimitedRestorer.raised}
    dist.destroy_process_group()
    seen["gloo threads"] = [name for name in _thread_names() if "gloo" in name]
    (folder / f"{rank}.json").write_text(json.dumps(seen))


def _by_step(reports: Reports) -> list[tuple[int, dict[str, float]]]:
    """Return the reports as pairs, because JSON turns the keys of a dictionary into strings."""
    return list(reports.rows.items())


def _thread_names() -> list[str]:
    """Return the names of this process's native threads, which Python's `threading` does not know."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
