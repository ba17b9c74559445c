"""The use of the machine while a trial runs, in a thread, under the names that MLflow's page of system metrics shows.

MLflow's own monitor sends its samples to the server directly. An outage would lose them, and would slow the trial down.
So the samples go through the trial's spool like all other metrics.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import psutil

from coldtune.tracking import Tracker

EVERY_S = 10.0
"""The seconds between two samples, as MLflow's own monitor takes them."""

_FIRST_S = 1.0  # so that a short trial has a sample too
_CPU = "system/cpu_utilization_percentage"
_LOG = logging.getLogger("coldtune.studies")


class SystemMetrics:
    """A thread that records the use of CPU, memory and GPU. As a context, it runs until the block ends."""

    def __init__(
        self, tracker: Tracker, gpu: bool, waits: Callable[[], bool] = lambda: False, every: float = EVERY_S
    ) -> None:
        """Create the thread.

        Args:
            tracker: The run of the trial. A resumed run continues its samples.
            gpu: Whether the trial computes on a GPU.
            waits: Returns True while the trial waits. Nothing is recorded then.
            every: The seconds between two samples.
        """
        self._tracker, self._gpu, self._waits, self._every = tracker, gpu, waits, every
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="coldtune-system-metrics", daemon=True)

    def __enter__(self) -> Self:
        """Start to record."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop. After this, nothing is written to the run."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        step, process = self._tracker.next_step(_CPU), psutil.Process()
        psutil.cpu_percent()  # psutil measures the time since the last call
        process.cpu_percent()
        pause = min(_FIRST_S, self._every)
        try:
            while not self._closed.wait(pause):
                pause = self._every
                if not self._waits():
                    self._tracker.metrics(self._sample(process), step)
                    step += 1
        except Exception as error:  # a trial must not depend on this thread
            _LOG.warning("the use of the machine is not recorded any more: %s: %s", type(error).__name__, error)

    def _sample(self, process: psutil.Process) -> dict[str, float]:
        memory = psutil.virtual_memory()
        return {
            _CPU: psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / 1e6,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_cpu_utilization_percentage": process.cpu_percent(),
            "system/process_memory_usage_megabytes": process.memory_info().rss / 1e6,
            **self._sample_gpu(),
        }

    def _sample_gpu(self) -> dict[str, float]:
        """Return the use of the GPU that the trial sees. The utilisation needs the package `nvidia-ml-py`."""
        if not self._gpu:
            return {}
        import torch

        free, total = torch.cuda.mem_get_info()
        values = {
            "system/gpu_0_memory_usage_megabytes": (total - free) / 1e6,
            "system/gpu_0_memory_usage_percentage": 100 * (1 - free / total),
        }
        with suppress(ImportError, RuntimeError):
            values["system/gpu_0_utilization_percentage"] = float(torch.cuda.utilization())
        return values
