"""Handling of exhausted memory: the work continues in smaller batches."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_ALLOCATION_FAILED = ("DefaultCPUAllocator", "not enough memory", "STATUS_ALLOC_FAILED", "out of memory")


class MemoryExhaustedError(RuntimeError):
    """An error raised if even a single image does not fit into memory."""


def out_of_memory(error: BaseException) -> bool:
    """Return True if torch raised `error` because an allocation failed, on a GPU or in main memory."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and not isinstance(error, MemoryExhaustedError)
        and any(text in str(error) for text in _ALLOCATION_FAILED)
    )


def attempt(work: Callable[[], T]) -> tuple[T] | None:
    """Return (work(),), or None if memory ran out. In that case everything that `work` allocated is free again."""
    try:
        return (work(),)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    # Not inside the except block: the error's traceback keeps the frames, and so the tensors, that filled the memory.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


class Batches:
    """Batches of at most `size` items. The size is halved for good whenever memory runs out."""

    def __init__(self, size: int, what: str) -> None:
        """Start with `size` items per batch. Warnings and errors begin with `what`, for example "sampling"."""
        self.size, self._what = size, what

    def run(self, items: Tensor, work: Callable[[Tensor], T]) -> list[T]:
        """Apply `work` to all items, batch by batch. A batch that did not fit is repeated in halves.

        Raises:
            MemoryExhaustedError: If a single item does not fit.
        """
        made: list[T] = []
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            done = attempt(partial(work, batch))
            if done is None:
                self._halve(len(batch))
                continue
            made.append(done[0])
            start += len(batch)
        return made

    def _halve(self, tried: int) -> None:
        if tried == 1:
            raise MemoryExhaustedError(f"{self._what}: out of memory, even with one image at a time")
        self.size = tried // 2
        warnings.warn(
            f"{self._what}: out of memory with {tried} images at a time, so it goes on with {self.size}", stacklevel=4
        )
