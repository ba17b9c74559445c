"""The processes that train together: a single process, or a torch.distributed group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# Import this module before a process group exists. Otherwise DistributedDataParallel imports it inside the group, and
# functions of the module keep the group as the default value of a parameter until the process ends. In that case
# destroy_process_group leaves gloo's threads running. If such a thread still releases a tensor while the interpreter
# shuts down, the process ends by SIGABRT.
import torch.distributed.nn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The place of this process among the `size` processes that train together.

    If size > 1, the default process group must be initialised.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Return this process's place in the torch.distributed group, or a single process if no group exists."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    def share(self, start: int, stop: int) -> tuple[int, int]:
        """Return this rank's part of the range start..stop. Parts differ by at most one item."""
        count = stop - start
        return start + count * self.rank // self.size, start + count * (self.rank + 1) // self.size

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return `network` such that its backward pass averages the gradients over the ranks."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, gradient_as_bucket_view=True)

    def local_gradients(self, network: nn.Module) -> Any:
        """Return a context in which a backward pass of a wrapped network adds up this rank's gradients only."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Sum `values` elementwise over the ranks, in place, on all ranks."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return True on all ranks if `flag` is true on any rank. It waits for `device`, which is this rank's."""
        return bool(self.sum(torch.tensor(int(flag), device=device)) > 0) if self.size > 1 else flag

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Average `gradients` over the ranks, in place, as the backward pass of a wrapped network does."""
        for gradient in gradients if self.size > 1 else ():
            self.sum(gradient.div_(self.size))

    def from_first(self, value: T) -> T:
        """Return rank 0's `value` on every rank. It must be small and picklable."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def on_first(self, action: Callable[[], None]) -> None:
        """Run `action` on rank 0 while the other ranks wait.

        Raises:
            PeerError: On the other ranks, if `action` raised on rank 0. Rank 0 raises the error itself.
        """
        if self.rank != 0:
            if self.from_first(False):
                raise PeerError("rank 0 ended the training. Its log says why.")
            return
        # Do not keep the error in a local variable. It would form a cycle with its traceback, which keeps the network,
        # the optimizer and the process group alive until the garbage collector runs.
        try:
            action()
        except BaseException:
            self.from_first(True)
            raise
        self.from_first(False)


class PeerError(RuntimeError):
    """The end of a training on this rank because another rank raised an error. Otherwise this rank would hang."""


def default_device() -> torch.device:
    """Return the GPU that was assigned to this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
