"""Running out of memory, and going on with less at a time."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_SAYS = ("DefaultCPUAllocator", "not enough memory", "STATUS_ALLOC_FAILED", "out of memory")


class MemoryExhaustedError(RuntimeError):
    """Even one image at a time does not fit."""


def out_of_memory(error: BaseException) -> bool:
    """Whether torch raised `error` because an allocation failed, on a GPU or in main memory."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and not isinstance(error, MemoryExhaustedError)
        and any(text in str(error) for text in _SAYS)
    )


def attempt(work: Callable[[], T]) -> tuple[T] | None:
    """(work(),), or None where memory ran out; all that `work` held is free again then."""
    try:
        return (work(),)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    # Not before: the error's traceback holds the frames, and with them the tensors, that filled the memory.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


class Batches:
    """Batches of at most `size` items, halved for good whenever memory runs out. what: says which, in the warning."""

    def __init__(self, size: int, what: str) -> None:
        self.size, self._what = size, what

    def run(self, items: Tensor, work: Callable[[Tensor], T]) -> list[T]:
        """`work` of all of `items`, batch by batch; a batch that did not fit is begun anew, in halves.

        MemoryExhaustedError where one item does not fit.
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
            f"{self._what}: out of memory with {tried} images at a time; goes on with {self.size}", stacklevel=4
        )
