"""How a study shares a cluster out between its trials, node by node, and how it follows nodes that come and go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_MAX_THREADS = 4  # of one CPU trial: small networks gain nothing from more
_LOOK_S = 3.0  # between two looks at the nodes
_UNIT = 1e-4  # Ray counts resources in ten-thousandths

Node = Mapping[str, float]
"""What a node has, by Ray's names: {"CPU": 8.0, "GPU": 1.0, ...}."""


@dataclass(frozen=True)
class TrialResources:
    """How a study uses the cluster: `count` trials at once, each of `workers` processes with `cpus` and `gpus`."""

    count: int
    workers: int
    cpus: int
    gpus: float


def check_gpus(workers: int, gpus_per_trial: float) -> None:
    """ValueError where a worker's part of `gpus_per_trial` is nothing that Ray can give it."""
    each = gpus_per_trial / workers
    if gpus_per_trial < 0 or (each > 1 and each != int(each)) or 0 < each < _UNIT:
        raise ValueError(
            f"--gpus-per-trial {gpus_per_trial:g}: {each:g} GPUs for each of {workers} worker{'s' * (workers != 1)}; "
            f"allowed for each is 0, {_UNIT:g} to 1, or a whole number"
        )


def plan(nodes: Sequence[Node], workers: int, gpus_per_trial: float, trials: int) -> TrialResources:
    """How many trials of a study of `trials` run at once on `nodes`, and with what.

    A process lies on one node, with its CPUs and its part of a GPU (two processes with 0.4 share one, not five two);
    the workers of a trial may lie on several. CPU trials share the CPUs between them (at most 4 threads each). How many
    are still to run changes nothing: sums depend on the number of threads in their last bits, and a resumed study
    shall end as an unbroken one. A trial of several workers gives each worker one CPU. ValueError where not even one
    fits.
    """
    check_gpus(workers, gpus_per_trial)
    gpus = gpus_per_trial / workers
    gpus = math.floor(gpus / _UNIT + 1e-6) * _UNIT if gpus < 1 else gpus  # rounded up, six sixths would not fit
    gpus = round(gpus, 4)
    fit = capacity(nodes, workers, 1, gpus)
    if fit < 1:
        raise ValueError(f"one trial needs {_needs(nodes, workers, gpus_per_trial)}; the cluster has {has(nodes)}")
    count = max(1, min(fit, trials))
    threads = (1, *range(2, _MAX_THREADS + 1)) if workers == 1 else (1,)
    most = max(cpus for cpus in threads if capacity(nodes, workers, cpus, gpus) >= count)
    return TrialResources(count=count, workers=workers, cpus=most, gpus=gpus)


def capacity(nodes: Sequence[Node], workers: int, cpus: int, gpus: float) -> int:
    """How many trials of `workers` processes with `cpus` and `gpus` each fit on `nodes` at once."""
    processes = 0
    for node in nodes:
        of_cpus, of_gpus = node.get("CPU", 0.0), node.get("GPU", 0.0)
        places = of_cpus // cpus
        if gpus >= 1:
            places = min(places, of_gpus // gpus)
        elif gpus:
            places = min(places, of_gpus // 1 * math.floor(1 / gpus + 1e-6))
        processes += int(places)
    return processes // workers


def has(nodes: Sequence[Node]) -> str:
    """The CPUs and GPUs of `nodes` in words, by node where there are several."""
    if not nodes:
        return "no node"
    whole = f"{sum(n.get('CPU', 0.0) for n in nodes):g} CPUs and {sum(n.get('GPU', 0.0) for n in nodes):g} GPUs"
    if len(nodes) == 1:
        return whole
    each = ", ".join(f"{node.get('CPU', 0.0):g} + {node.get('GPU', 0.0):g}" for node in nodes[:8])
    return f"{whole} on {len(nodes)} nodes ({each}{', ..' * (len(nodes) > 8)})"


def _needs(nodes: Sequence[Node], workers: int, gpus_per_trial: float) -> str:
    if capacity(nodes, workers, 1, 0.0) < 1:
        return f"{workers} CPUs (--workers {workers})"
    gpus = f"{gpus_per_trial:g} GPUs (--gpus-per-trial {gpus_per_trial:g})"
    if sum(node.get("GPU", 0.0) for node in nodes) < gpus_per_trial:
        return gpus
    return f"{gpus}, each worker's part and a CPU on one node"


class Capacity:
    """How many trials the cluster has room for now: nodes join, and nodes die.

    slots: what each trial gets; it stays what it was when the study was started. nodes: gives the living nodes.
    """

    def __init__(self, slots: TrialResources, trials: int, nodes: Callable[[], Sequence[Node]]) -> None:
        self.slots, self._trials, self._nodes = slots, trials, nodes
        self._count, self._seen = slots.count, nodes()
        self._looked = self._last = time.monotonic()

    def count(self) -> int:
        """How many trials fit at once; 0 where the cluster has become too small for one."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked, self._seen = now, self._nodes()
            fit = capacity(self._seen, self.slots.workers, self.slots.cpus, self.slots.gpus)
            self._count = min(fit, self._trials)
        if self._count:
            self._last = now
        return self._count

    def empty_for(self) -> float:
        """For how many seconds there has been room for no trial."""
        self.count()
        return time.monotonic() - self._last if not self._count else 0.0

    def __str__(self) -> str:
        slots = self.slots
        each = f"{slots.cpus} CPU" + (f" and {slots.gpus:g} GPU" if slots.gpus else "")
        needed = f"{slots.workers} workers with {each} each" if slots.workers > 1 else each
        return f"a trial needs {needed}, the cluster now has {has(self._seen)}"
