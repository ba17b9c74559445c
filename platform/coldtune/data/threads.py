"""One piece of work for each of many files, in as many threads as there are cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from coldtune.data.progress import Advance

# Between two calls of the decoder a thread needs Python's lock: very many would queue for it.
_MOST = 16
_CHUNK = 32


def in_threads(count: int, work: Callable[[int], None], advance: Advance) -> None:
    """work(0) .. work(count - 1), each once, in any order; raises the error of the lowest one that failed.

    After an error, what has not begun is left undone.
    """

    def some(chunk: range) -> None:
        for index in chunk:
            work(index)
        advance(len(chunk))

    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(_threads()) as pool:
        for _ in pool.map(some, chunks):
            pass


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST, cores)
