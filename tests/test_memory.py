"""Batches that do not fit into memory are halved, and no item is lost or handled twice."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coldtune.memory import Batches, MemoryExhaustedError, attempt, out_of_memory
from coldtune.metrics.extractors import Extractor


@pytest.fixture(autouse=True, scope="module")
def frozen_heap() -> Iterator[None]:
    """Keep garbage collections short: `attempt` collects after every failure, and other tests leave many objects."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.filterwarnings("ignore:.*out of memory with")
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(1, 16), st.integers(1, 20))
def test_batches_run_handles_every_item_once_in_order(total: int, size: int, fits: int) -> None:
    calls: list[int] = []

    def work(batch: torch.Tensor) -> torch.Tensor:
        calls.append(len(batch))
        if len(batch) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return batch * 2

    made = Batches(size, "it").run(torch.arange(total), work)
    assert torch.cat([torch.arange(0), *made]).tolist() == [2 * item for item in range(total)]
    failed = [count for count in calls if count > fits]
    assert failed == sorted(set(failed), reverse=True), "a size that did not fit is not tried again"


def test_batches_single_item_too_large_raises() -> None:
    def never(batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")

    with (
        pytest.warns(UserWarning, match="sampling: out of memory with . images at a time, so it goes on with"),
        pytest.raises(MemoryExhaustedError, match="sampling: out of memory, even with one image at a time"),
    ):
        Batches(4, "sampling").run(torch.arange(4), never)


def test_out_of_memory_recognises_allocation_errors_only() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60, dtype=torch.uint8)  # the real error of torch on this machine
    assert out_of_memory(real.value)
    assert attempt(lambda: torch.empty(2**60, dtype=torch.uint8)) is None
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("DefaultCPUAllocator: not enough memory"))
    assert not out_of_memory(MemoryExhaustedError("out of memory, even with one image at a time"))
    with pytest.raises(ZeroDivisionError):
        attempt(lambda: 1 // 0)


def test_extractor_smaller_batches_give_equal_features() -> None:
    def network(images: torch.Tensor) -> torch.Tensor:
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return images.flatten(1).double()

    images = torch.arange(8 * 4, dtype=torch.uint8).view(8, 1, 2, 2)
    extractor = Extractor("wide", network, 4, "0", "as given")
    with pytest.warns(UserWarning, match="extractor wide: out of memory with . images at a time"):
        features = extractor(images)
    assert torch.equal(features, images.flatten(1).double())
    assert torch.equal(extractor(images), features), "and without trying again"
    assert extractor(images[:0]).shape == (0, 4)
