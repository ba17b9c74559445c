"""Several processes train what one trains; torch.distributed over gloo, without Ray."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import InterruptedTrainingError, MakeTask, Reports

from coldtune.training import DivergedError, FolderCheckpoints, TrainingTask, World, train
from coldtune.training.world import PeerError

WORKERS = 2


@given(st.integers(0, 1000), st.integers(0, 300), st.integers(1, 12))
def test_shares_cover_a_range_once_and_evenly(start: int, count: int, size: int) -> None:
    shares = [World(rank, size).share(start, start + count) for rank in range(size)]
    assert [position for first, stop in shares for position in range(first, stop)] == list(range(start, start + count))
    lengths = [stop - first for first, stop in shares]
    assert max(lengths) - min(lengths) <= 1


def test_more_workers_than_images_are_refused(make_task: MakeTask, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"training\.batch_size = 8: must be >= the 9 workers"):
        train(make_task(), FolderCheckpoints(tmp_path), Reports(), world=World(0, 9))


def test_world_action_of_rank_0_raises_and_leaves_no_reference_cycle() -> None:
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    def action() -> None:
        local = Held()
        held.append(weakref.ref(local))
        raise InterruptedTrainingError

    gc.disable()
    try:
        with pytest.raises(InterruptedTrainingError):
            World().on_first(action)
        assert held[0]() is None
    finally:
        gc.enable()


def member(rank: int, folder: Path, tasks: dict[str, TrainingTask]) -> None:
    """Train as one rank of the group, then write what this rank observed to `folder/RANK.json`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORKERS)
    seen: dict[str, Any] = {}
    for name in ("shorter", "longer"):  # the second training resumes from the first one's checkpoint, on all ranks
        result = train(tasks[name], FolderCheckpoints(folder / "checkpoints"), reports := Reports(), device="cpu")
        seen[name] = {"rows": reports.rows, "resumed_from": result.resumed_from}
    for name, stop_at in (("diverging", None), ("shorter", 2)):
        try:
            train(tasks[name], FolderCheckpoints(folder / "none"), Reports(stop_at), device="cpu")
        except Exception as error:
            seen[f"error {name}"] = [type(error).__name__, str(error)]
    dist.destroy_process_group()
    seen["gloo threads"] = [name for name in thread_names() if "gloo" in name]
    (folder / f"{rank}.json").write_text(json.dumps(seen))


def thread_names() -> list[str]:
    """Return the names of this process's native threads, which Python's `threading` does not know."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


@pytest.fixture(scope="module")
def tasks() -> dict[str, dict[str, Any]]:
    # 7 images over 2 workers: shares of 3 and 4; a validation grid of 9 and 10.
    common = {"batch_size": 7, "accumulate": 2, "report_every": 1, "validate_every": 2, "validate_images": 19}
    return {
        "shorter": {"steps": 2, **common},
        "longer": {"steps": 5, **common},
        "diverging": {"steps": 5, "lr": 1e30, "report_every": 2},
    }


def test_a_group_trains_what_one_process_trains(
    make_task: MakeTask, tasks: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    made = {name: make_task({"flip": True}, **training) for name, training in tasks.items()}
    torch.multiprocessing.spawn(member, (tmp_path, made), nprocs=WORKERS)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(WORKERS)]
    train(made["longer"], FolderCheckpoints(tmp_path / "alone"), alone := Reports())

    first = {int(step): row for name in ("shorter", "longer") for step, row in ranks[0][name]["rows"].items()}
    assert first.keys() == alone.rows.keys() == {1, 2, 3, 4, 5}
    for step, row in alone.rows.items():
        for key in row.keys() - {"images_per_s"}:
            assert first[step][key] == pytest.approx(row[key], rel=1e-4), f"{key} at step {step}"
    assert all(rank["longer"]["resumed_from"] == 2 for rank in ranks)
    assert all(rank["longer"]["rows"] == {} for rank in ranks[1:]), "rank 0 alone reports"

    # destroy_process_group ends gloo's threads only if nothing refers to the group any more. A thread that outlives it
    # may still release a tensor while the interpreter shuts down, which ends the process with SIGABRT.
    assert [rank["gloo threads"] for rank in ranks] == [[]] * WORKERS

    # Every rank ends where one does, rather than wait for it: at a divergence all by themselves ..
    assert {tuple(rank["error diverging"]) for rank in ranks} == {("DivergedError", str(DivergedError(2)))}
    # .. and where rank 0's report raises.
    assert [rank["error shorter"][0] for rank in ranks] == ["InterruptedTrainingError", *["PeerError"] * (WORKERS - 1)]
    assert issubclass(PeerError, RuntimeError)
