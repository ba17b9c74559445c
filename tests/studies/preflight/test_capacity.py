"""How a study shares a cluster out between its trials, and follows nodes that come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldtune import environment
from coldtune.studies.preflight import capacity as slots
from coldtune.studies.preflight.capacity import Capacity, TrialResources, capacity, check_gpus, plan

THREES = [{"CPU": 3}, {"CPU": 3}]
UNEVEN = [{"CPU": 8, "GPU": 1}, {"CPU": 1, "GPU": 3}, {"CPU": 32}]


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "wanted", "made"),
    [
        ([{"CPU": 2}], 1, 0, 8, TrialResources(2, 1, 1, 0)),
        ([{"CPU": 16}], 1, 0, 8, TrialResources(8, 1, 2, 0)),
        ([{"CPU": 64}], 1, 0, 4, TrialResources(4, 1, 4, 0)),
        ([{"CPU": 2}], 1, 0, 1, TrialResources(1, 1, 2, 0)),
        ([{"CPU": 2}], 2, 0, 8, TrialResources(1, 2, 1, 0)),
        ([{"CPU": 8}], 2, 0, 8, TrialResources(4, 2, 1, 0)),
        ([{"CPU": 16, "GPU": 1}], 1, 0.25, 8, TrialResources(4, 1, 4, 0.25)),
        ([{"CPU": 16, "GPU": 4}], 2, 2, 8, TrialResources(2, 2, 1, 1)),
        ([{"CPU": 3, "GPU": 4}], 1, 1, 8, TrialResources(3, 1, 1, 1)),
        # A process lies on one node: 4 threads fit neither of two nodes with 3 CPUs, and of 3 + 3 two pairs of 2.
        (THREES, 1, 0, 1, TrialResources(1, 1, 3, 0)),
        (THREES, 1, 0, 2, TrialResources(2, 1, 3, 0)),
        (THREES, 1, 0, 3, TrialResources(3, 1, 1, 0)),
        # The workers of a trial may lie on several.
        (THREES, 4, 0, 8, TrialResources(1, 4, 1, 0)),
        ([{"CPU": 0}, {"CPU": 2}, {"CPU": 2}], 2, 0, 8, TrialResources(2, 2, 1, 0)),
        # 0.4 of a GPU: two on each, not five on two.
        ([{"CPU": 16, "GPU": 2}], 1, 0.4, 8, TrialResources(4, 1, 4, 0.4)),
        ([{"CPU": 16, "GPU": 1}], 1, 0.6, 8, TrialResources(1, 1, 4, 0.6)),
        ([{"CPU": 16, "GPU": 1}], 1, 1 / 6, 8, TrialResources(6, 1, 2, 0.1666)),
        ([{"CPU": 16, "GPU": 1}], 3, 1, 8, TrialResources(1, 3, 1, 0.3333)),
        ([{"CPU": 8, "GPU": 3}, {"CPU": 8, "GPU": 3}], 1, 2, 8, TrialResources(2, 1, 4, 2)),
        # A GPU without a CPU beside it is of no use, nor a CPU without a GPU: 1 on the first node, 1 on the second.
        (UNEVEN, 1, 1, 8, TrialResources(2, 1, 1, 1)),
        (UNEVEN, 2, 2, 8, TrialResources(1, 2, 1, 1)),
    ],
)
def test_slots(nodes, workers, gpus, wanted, made) -> None:
    assert plan(nodes, workers, gpus, wanted) == made
    assert made.count <= capacity(nodes, workers, made.cpus, made.gpus)


def placed(nodes: list[dict[str, float]], workers: int, cpus: int, gpus: float) -> int:
    """How many whole trials an honest placement, process by process and GPU by GPU in ten-thousandths, has room for."""
    processes = 0
    for node in nodes:
        free, devices = int(node.get("CPU", 0)), [10_000] * int(node.get("GPU", 0))
        need = round(gpus * 10_000)
        while free >= cpus:
            if need > 10_000:
                whole = [index for index, left in enumerate(devices) if left == 10_000][: need // 10_000]
                if len(whole) < need // 10_000:
                    break
                for index in whole:
                    devices[index] = 0
            elif need:
                index = next((index for index, left in enumerate(devices) if left >= need), None)
                if index is None:
                    break
                devices[index] -= need
            free -= cpus
            processes += 1
    return processes // workers


@given(
    st.lists(st.fixed_dictionaries({"CPU": st.integers(0, 9), "GPU": st.integers(0, 4)}), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sampled_from([0, 0.1, 0.25, 0.3, 1 / 3, 0.4, 0.5, 0.7, 1, 2, 3]),
    st.integers(1, 20),
)
def test_as_many_as_can_be_placed(nodes, workers, gpus_each, trials) -> None:
    """As many at once as a placement by hand finds with one CPU each, and still as many with the threads they get."""
    try:
        made = plan(nodes, workers, gpus_each * workers, trials)
    except ValueError:
        assert placed(nodes, workers, 1, gpus_each) == 0
        return
    assert made.count == min(trials, placed(nodes, workers, 1, made.gpus))
    assert placed(nodes, workers, made.cpus, made.gpus) >= made.count
    if workers == 1 and made.cpus < 4:
        assert placed(nodes, 1, made.cpus + 1, made.gpus) < made.count, "more threads would have cost trials"


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "said"),
    [
        ([{"CPU": 2}], 3, 0, r"3 CPUs \(--workers 3\); the cluster has 2 CPUs and 0 GPUs"),
        ([{"CPU": 2}], 1, 0.5, r"0\.5 GPUs \(--gpus-per-trial 0\.5\); the cluster has 2 CPUs and 0 GPUs"),
        ([{"CPU": 8, "GPU": 1}], 2, 2, r"2 GPUs"),
        ([{"CPU": 2}, {"GPU": 1}], 1, 1, r"1 GPUs .*a CPU on one node; .*on 2 nodes \(2 \+ 0, 0 \+ 1\)"),
        ([], 1, 0, r"1 CPUs \(--workers 1\); the cluster has no node"),
    ],
)
def test_a_trial_that_does_not_fit_is_refused(nodes, workers, gpus, said) -> None:
    with pytest.raises(ValueError, match=said):
        plan(nodes, workers, gpus, 8)


@pytest.mark.parametrize(("workers", "gpus"), [(1, 1.5), (2, 3), (1, -1), (4, 0.0001)])
def test_a_part_of_a_gpu_that_ray_cannot_give(workers, gpus) -> None:
    with pytest.raises(ValueError, match=rf"--gpus-per-trial {gpus:g}: .* allowed for each is 0, 0\.0001 to 1, or"):
        check_gpus(workers, gpus)


def test_room_follows_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, nodes = [0.0], list(THREES)
    monkeypatch.setattr(slots.time, "monotonic", lambda: clock[0])
    room = Capacity(plan(nodes, 1, 0, 3), 3, lambda: nodes)
    assert (room.count(), room.empty_for()) == (3, 0)
    del nodes[:]
    clock[0] = 60.0
    assert room.count() == 0
    clock[0] = 90.0
    assert room.empty_for() == 30.0 + 60.0, "since it was last seen to have room"
    assert str(room) == "a trial needs 1 CPU, the cluster now has no node"
    nodes.append({"CPU": 2})
    clock[0] = 120.0
    assert (room.count(), room.empty_for()) == (2, 0)
    nodes.append({"CPU": 8})
    clock[0] = 150.0
    assert room.count() == 3, "never more than there are trials"


def test_the_home_outlives_rays_copy_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLDTUNE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert environment.default_home() == tmp_path / "me" / "coldtune-runs"
    monkeypatch.chdir(tmp_path)
    assert environment.default_home() == tmp_path / "runs"
    monkeypatch.setenv("COLDTUNE_HOME", "elsewhere")
    assert environment.default_home() == tmp_path / "elsewhere"
