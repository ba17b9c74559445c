"""Looking at what a degradation asks of the device, without timing it and without a GPU."""

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
"""Its name, and the shapes of the tensors that it returned."""


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
    """The tensor operations of d(x, t, draw), in order."""
    recorder = _Recorder()
    with recorder:
        d(x, t, draw)
    return recorder.operations


@contextmanager
def fake_gpu() -> Iterator[torch.device]:
    """Tensors without numbers on a CUDA device that need not exist.

    Mixing devices, or asking for a tensor's value (which on a GPU waits for all work before it), raises an error.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("cuda", 0)
