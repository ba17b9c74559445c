"""Recording of the tensor operations of a degradation, without timing and without a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coldtune.diffusion import Degradation, Draw

Operation = tuple[str, tuple[tuple[int, ...], ...]]
"""The name of an operation, and the shapes of the tensors that it returned."""


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        shapes = tuple(tuple(leaf.shape) for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        self.operations.append((str(func), shapes))
        return out


def recorded_operations(d: Degradation, x: Tensor, t: int | Tensor, draw: Draw | None) -> list[Operation]:
    """Return the tensor operations of d(x, t, draw), in order."""
    recorder = _Recorder()
    with recorder:
        d(x, t, draw)
    return recorder.operations


@contextmanager
def fake_gpu() -> Iterator[torch.device]:
    """Let tensors without numbers live on a CUDA device that need not exist.

    An error is raised if devices are mixed, or if the value of a tensor is read. On a real GPU, reading a value waits
    for all work before it.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("cuda", 0)
