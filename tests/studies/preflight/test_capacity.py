"""The capacity of a cluster: how many trials run at once, with which resources, while nodes come and go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldtune.studies.preflight import capacity
from coldtune.studies.preflight.capacity import Capacity, TrialResources, check_gpus, count_fitting, plan_resources

THREES = [{"CPU": 3}, {"CPU": 3}]
UNEVEN = [{"CPU": 8, "GPU": 1}, {"CPU": 1, "GPU": 3}, {"CPU": 32}]


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "trials", "expected"),
    [
        ([{"CPU": 2}], 1, 0, 8, TrialResources(2, 1, 1, 0)),
        ([{"CPU": 16}], 1, 0, 8, TrialResources(8, 1, 1, 0)),
        ([{"CPU": 64}], 1, 0, 4, TrialResources(4, 1, 1, 0)),
        ([{"CPU": 2}], 1, 0, 1, TrialResources(1, 1, 1, 0)),
        ([{"CPU": 2}], 2, 0, 8, TrialResources(1, 2, 1, 0)),
        ([{"CPU": 8}], 2, 0, 8, TrialResources(4, 2, 1, 0)),
        ([{"CPU": 16, "GPU": 1}], 1, 0.25, 8, TrialResources(4, 1, 4, 0.25)),
        ([{"CPU": 16, "GPU": 4}], 2, 2, 8, TrialResources(2, 2, 1, 1)),
        ([{"CPU": 3, "GPU": 4}], 1, 1, 8, TrialResources(3, 1, 1, 1)),
        # A trial that computes on the CPU has a CPU for each thread, however many others are free.
        (THREES, 1, 0, 1, TrialResources(1, 1, 1, 0)),
        (THREES, 1, 0, 2, TrialResources(2, 1, 1, 0)),
        (THREES, 1, 0, 3, TrialResources(3, 1, 1, 0)),
        # The workers of a trial may run on several nodes.
        (THREES, 4, 0, 8, TrialResources(1, 4, 1, 0)),
        ([{"CPU": 0}, {"CPU": 2}, {"CPU": 2}], 2, 0, 8, TrialResources(2, 2, 1, 0)),
        # With 0.4 GPUs each, two processes share a GPU, and five processes do not share two GPUs.
        ([{"CPU": 16, "GPU": 2}], 1, 0.4, 8, TrialResources(4, 1, 4, 0.4)),
        ([{"CPU": 16, "GPU": 1}], 1, 0.6, 8, TrialResources(1, 1, 4, 0.6)),
        ([{"CPU": 16, "GPU": 1}], 1, 1 / 6, 8, TrialResources(6, 1, 2, 0.1666)),
        ([{"CPU": 16, "GPU": 1}], 3, 1, 8, TrialResources(1, 3, 1, 0.3333)),
        ([{"CPU": 8, "GPU": 3}, {"CPU": 8, "GPU": 3}], 1, 2, 8, TrialResources(2, 1, 4, 2)),
        # A process needs its GPU and its CPU on the same node. So one process fits on each of the first two nodes.
        (UNEVEN, 1, 1, 8, TrialResources(2, 1, 1, 1)),
        (UNEVEN, 2, 2, 8, TrialResources(1, 2, 1, 1)),
    ],
)
def test_plan_resources_known_clusters(nodes, workers, gpus, trials, expected) -> None:
    assert plan_resources(nodes, workers, gpus, trials) == expected
    assert expected.count <= count_fitting(nodes, workers, expected.cpus, expected.gpus)


def place(nodes: list[dict[str, float]], workers: int, cpus: int, gpus: float) -> int:
    """Place each process in turn, with GPUs counted in ten-thousandths, and return the number of whole trials."""
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
def test_plan_resources_matches_explicit_placement(nodes, workers, gpus_each, trials) -> None:
    """The count must equal an explicit placement with a CPU each, and the planned threads must not reduce it."""
    try:
        made = plan_resources(nodes, workers, gpus_each * workers, trials)
    except ValueError:
        assert place(nodes, workers, 1, gpus_each) == 0
        return
    assert made.count == min(trials, place(nodes, workers, 1, made.gpus))
    assert place(nodes, workers, made.cpus, made.gpus) >= made.count
    if workers == 1 and gpus_each and made.cpus < 4:
        assert place(nodes, 1, made.cpus + 1, made.gpus) < made.count, "with more threads, fewer trials must fit"


@pytest.mark.parametrize("trials", [1, 2, 8])
def test_plan_resources_threads_have_a_cpu_each(trials: int) -> None:
    made = plan_resources([{"CPU": 16}, {"CPU": 5}], 1, 0, trials, threads=3)
    assert made == TrialResources(min(trials, 6), 1, 3, 0)
    assert plan_resources([{"CPU": 16}], 2, 0, trials, threads=3) == TrialResources(min(trials, 2), 2, 3, 0)
    with pytest.raises(ValueError, match=r"6 CPUs \(--workers 2, --threads 3\)"):
        plan_resources([{"CPU": 2}], 2, 0, trials, threads=3)


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
def test_plan_resources_trial_that_does_not_fit_is_refused(nodes, workers, gpus, said) -> None:
    with pytest.raises(ValueError, match=said):
        plan_resources(nodes, workers, gpus, 8)


@pytest.mark.parametrize(("workers", "gpus"), [(1, 1.5), (2, 3), (1, -1), (4, 0.0001)])
def test_check_gpus_part_that_ray_cannot_give_is_refused(workers, gpus) -> None:
    with pytest.raises(ValueError, match=rf"--gpus-per-trial {gpus:g}: .* allowed for each is 0, 0\.0001 to 1, or"):
        check_gpus(workers, gpus)


def test_capacity_follows_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, nodes = [0.0], list(THREES)
    monkeypatch.setattr(capacity.time, "monotonic", lambda: clock[0])
    available = Capacity(plan_resources(nodes, 1, 0, 3), 3, lambda: nodes)
    assert (available.count(), available.empty_for()) == (3, 0)
    del nodes[:]
    clock[0] = 60.0
    assert available.count() == 0
    clock[0] = 90.0
    assert available.empty_for() == 30.0 + 60.0, "the time counts from the last moment with capacity"
    assert str(available) == "a trial needs 1 CPU, the cluster now has no node"
    nodes.append({"CPU": 2})
    clock[0] = 120.0
    assert (available.count(), available.empty_for()) == (2, 0)
    nodes.append({"CPU": 8})
    clock[0] = 150.0
    assert available.count() == 3, "the count must not exceed the number of trials"
