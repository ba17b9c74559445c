"""A group of processes trains the same as a single process: torch.distributed over gloo, without Ray."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from group_scenarios import WORKERS, group_tasks
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import InterruptedTrainingError, MakeTask, Reports, assert_same_rows

from coldtune.training import DivergedError, FolderCheckpoints, World, train
from coldtune.training.world import PeerError


@given(st.integers(0, 1000), st.integers(0, 300), st.integers(1, 12))
def test_world_share_covers_range_once_and_evenly(start: int, count: int, size: int) -> None:
    shares = [World(rank, size).share(start, start + count) for rank in range(size)]
    assert [position for first, stop in shares for position in range(first, stop)] == list(range(start, start + count))
    lengths = [stop - first for first, stop in shares]
    assert max(lengths) - min(lengths) <= 1


def test_world_on_first_failing_action_leaves_no_reference_cycle() -> None:
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


def test_train_more_workers_than_images_raises(make_task: MakeTask, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"training\.batch_size = 8: must be >= the 9 workers"):
        train(make_task(), FolderCheckpoints(tmp_path), Reports(), world=World(0, 9))


def test_train_group_equals_single_process(group: list[dict[str, Any]], make_task: MakeTask, tmp_path: Path) -> None:
    train(group_tasks(make_task)["longer"], FolderCheckpoints(tmp_path), alone := Reports())
    assert_same_rows(dict(group[0]["shorter"]["rows"] + group[0]["longer"]["rows"]), alone.rows)
    assert alone.rows.keys() == {1, 2, 3, 4, 5}
    assert all(rank["longer"]["resumed_from"] == 2 for rank in group)
    assert all(rank["longer"]["rows"] == [] for rank in group[1:]), "only rank 0 reports"


def test_train_group_diverged_training_ends_on_all_ranks(group: list[dict[str, Any]]) -> None:
    assert [rank["error of diverging"] for rank in group] == [["DivergedError", str(DivergedError(2))]] * WORKERS


def test_train_group_report_that_raises_ends_all_ranks(group: list[dict[str, Any]]) -> None:
    assert [rank["error of shorter"][0] for rank in group] == [
        "InterruptedTrainingError",
        *["PeerError"] * (WORKERS - 1),
    ]
    assert issubclass(PeerError, RuntimeError)


def test_process_group_after_training_leaves_no_gloo_thread(group: list[dict[str, Any]]) -> None:
    """Nothing in a training may keep the process group alive, because destroy_process_group then ends no thread.

    If such a thread still releases a tensor while the interpreter shuts down, the process ends by SIGABRT.
    """
    assert [rank["gloo threads"] for rank in group] == [[]] * WORKERS
