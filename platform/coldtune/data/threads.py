"""Work on many files in as many threads as there are cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from coldtune.data.progress import Advance

# Between two calls of the decoder a thread needs the global interpreter lock, so more threads would only queue for it.
_MAX_THREADS = 16
_CHUNK = 32


def run_in_threads(count: int, work: Callable[[int], None], advance: Advance) -> None:
    """Call work(0) .. work(count - 1) once each, in any order.

    If calls fail, the error of the lowest number is raised, and calls that have not begun are skipped.
    """

    def run_chunk(chunk: range) -> None:
        for index in chunk:
            work(index)
        advance(len(chunk))

    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(_thread_count()) as pool:
        for _ in pool.map(run_chunk, chunks):
            pass


def _thread_count() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MAX_THREADS, cores)
