"""How many trials a cluster runs at once, with which resources, and how this follows nodes that come and go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_MAX_CPUS = 4  # of one GPU trial, which feeds a single device
_REFRESH_S = 3.0  # between two requests for the list of nodes
_GPU_UNIT = 1e-4  # Ray counts resources in ten-thousandths
_MOST_GPUS = 10_000  # of a trial

Node = Mapping[str, float]
"""The resources of a node, by Ray's names: {"CPU": 8.0, "GPU": 1.0, ...}."""


@dataclass(frozen=True)
class TrialResources:
    """The resources of the trials that run at once.

    Attributes:
        count: The number of trials that run at once.
        workers: The processes of each trial.
        cpus: The CPUs of each process.
        gpus: The GPUs of each process. It may be a fraction.
    """

    count: int
    workers: int
    cpus: int
    gpus: float


def check_gpus(workers: int, gpus_per_trial: float) -> None:
    """Raise ValueError if Ray cannot assign each worker its part of `gpus_per_trial`."""
    if not gpus_per_trial <= _MOST_GPUS:  # also if it is nan
        raise ValueError(f"--gpus-per-trial {gpus_per_trial:g}: at most {_MOST_GPUS:,}")
    each = gpus_per_trial / workers
    if gpus_per_trial < 0 or (each > 1 and each != int(each)) or 0 < each < _GPU_UNIT:
        raise ValueError(
            f"--gpus-per-trial {gpus_per_trial:g}: {each:g} GPUs for each of {workers} worker{'s' * (workers != 1)}; "
            f"allowed for each is 0, {_GPU_UNIT:g} to 1, or a whole number"
        )


def plan_resources(
    nodes: Sequence[Node], workers: int, gpus_per_trial: float, trials: int, threads: int = 1
) -> TrialResources:
    """Decide how many trials of a study run at once, and with which resources.

    A process must fit on one node, with its CPUs and its part of a GPU. With 0.4 GPUs each, two processes share a GPU,
    and five processes do not share two GPUs. The workers of a trial may run on several nodes. A process that computes
    on the CPU has a CPU for each of its threads. GPU trials divide the CPUs among them, up to 4 each. A GPU trial with
    several workers has a CPU for each worker.

    Args:
        nodes: The nodes of the cluster.
        workers: The processes of each trial.
        gpus_per_trial: The GPUs of each trial, which its workers share.
        trials: The number of trials in the whole study.
        threads: The CPU threads of each process that computes on the CPU.

    Raises:
        ValueError: If the nodes cannot run a single trial.
    """
    check_gpus(workers, gpus_per_trial)
    gpus = gpus_per_trial / workers
    # Round down to Ray's unit, so that six trials of 1/6 GPU fit on one GPU.
    gpus = math.floor(gpus / _GPU_UNIT + 1e-6) * _GPU_UNIT if gpus < 1 else gpus
    gpus = round(gpus, 4)
    least = 1 if gpus else threads
    fitting = count_fitting(nodes, workers, least, gpus)
    if fitting < 1:
        need = _describe_need(nodes, workers, gpus_per_trial, least)
        raise ValueError(f"one trial needs {need}; the cluster has {describe_nodes(nodes)}")
    count = max(1, min(fitting, trials))
    more = range(2, _MAX_CPUS + 1) if gpus and workers == 1 else ()
    cpus = max(cpus for cpus in (least, *more) if count_fitting(nodes, workers, cpus, gpus) >= count)
    return TrialResources(count=count, workers=workers, cpus=cpus, gpus=gpus)


def count_fitting(nodes: Sequence[Node], workers: int, cpus: int, gpus: float) -> int:
    """Return how many trials of `workers` processes, with `cpus` and `gpus` each, fit on `nodes` at once."""
    processes = 0
    for node in nodes:
        node_cpus, node_gpus = node.get("CPU", 0.0), node.get("GPU", 0.0)
        fitting = node_cpus // cpus
        if gpus >= 1:
            fitting = min(fitting, node_gpus // gpus)
        elif gpus:
            fitting = min(fitting, node_gpus // 1 * math.floor(1 / gpus + 1e-6))
        processes += int(fitting)
    return processes // workers


def describe_nodes(nodes: Sequence[Node]) -> str:
    """Describe the CPUs and GPUs of `nodes`, and of each node if there are several."""
    if not nodes:
        return "no node"
    total = f"{sum(n.get('CPU', 0.0) for n in nodes):g} CPUs and {sum(n.get('GPU', 0.0) for n in nodes):g} GPUs"
    if len(nodes) == 1:
        return total
    each = ", ".join(f"{node.get('CPU', 0.0):g} + {node.get('GPU', 0.0):g}" for node in nodes[:8])
    return f"{total} on {len(nodes)} nodes ({each}{', ..' * (len(nodes) > 8)})"


def _describe_need(nodes: Sequence[Node], workers: int, gpus_per_trial: float, cpus: int) -> str:
    if count_fitting(nodes, workers, cpus, 0.0) < 1:
        return f"{workers * cpus} CPUs (--workers {workers}" + (f", --threads {cpus})" if cpus > 1 else ")")
    gpus = f"{gpus_per_trial:g} GPUs (--gpus-per-trial {gpus_per_trial:g})"
    if sum(node.get("GPU", 0.0) for node in nodes) < gpus_per_trial:
        return gpus
    return f"{gpus}, each worker's part and a CPU on one node"


class Capacity:
    """The number of trials that the cluster can run at once, while nodes join and die.

    Args:
        resources: The result of `plan_resources`. The resources of each trial stay as they were when the study started.
        trials: The number of trials in the study, which `count` never exceeds.
        nodes: Returns the living nodes.
    """

    def __init__(self, resources: TrialResources, trials: int, nodes: Callable[[], Sequence[Node]]) -> None:
        self.resources, self._trials, self._list_nodes = resources, trials, nodes
        self._count, self._nodes = resources.count, nodes()
        self._refreshed = self._last_fitting = time.monotonic()

    def count(self) -> int:
        """Return how many trials fit at once. 0 if the cluster has become too small for a single trial."""
        now = time.monotonic()
        if now - self._refreshed >= _REFRESH_S:
            self._refreshed, self._nodes = now, self._list_nodes()
            fitting = count_fitting(self._nodes, self.resources.workers, self.resources.cpus, self.resources.gpus)
            self._count = min(fitting, self._trials)
        if self._count:
            self._last_fitting = now
        return self._count

    def empty_for(self) -> float:
        """Return for how many seconds the cluster has been too small for a single trial."""
        self.count()
        return time.monotonic() - self._last_fitting if not self._count else 0.0

    def __str__(self) -> str:
        resources = self.resources
        each = f"{resources.cpus} CPU" + (f" and {resources.gpus:g} GPU" if resources.gpus else "")
        needed = f"{resources.workers} workers with {each} each" if resources.workers > 1 else each
        return f"a trial needs {needed}, the cluster now has {describe_nodes(self._nodes)}"
