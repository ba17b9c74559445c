"""The processes that train together: one, or a torch.distributed group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# DistributedDataParallel imports this module when it is first used. The functions in it have a parameter whose default
# value is the default process group at the time of the import. If that is after init_process_group, they refer to the
# group until the process ends: destroy_process_group then leaves gloo's threads running, and a gloo thread that is
# still releasing a tensor when the interpreter shuts down ends the process with SIGABRT. So import it early.
import torch.distributed.nn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place among `size` of them. With size > 1 the default process group must be initialised."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The initialised torch.distributed group; a single process where there is none."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    def share(self, start: int, stop: int) -> tuple[int, int]:
        """This rank's part of the range start..stop; parts differ by at most one item."""
        count = stop - start
        return start + count * self.rank // self.size, start + count * (self.rank + 1) // self.size

    def wrap(self, network: nn.Module) -> nn.Module:
        """`network` with gradients averaged over the ranks in its backward pass."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, gradient_as_bucket_view=True)

    def local_gradients(self, network: nn.Module) -> Any:
        """Context in which a backward pass of the wrapped network accumulates without talking to the other ranks."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over the ranks (in place), on all of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` holds on any rank, on all of them; waits for the device (`device` is this rank's)."""
        return bool(self.sum(torch.tensor(int(flag), device=device)) > 0) if self.size > 1 else flag

    def average(self, gradients: Sequence[Tensor]) -> None:
        """What the backward pass of a wrapped network does by itself: the mean over the ranks, in place."""
        for gradient in gradients if self.size > 1 else ():
            self.sum(gradient.div_(self.size))

    def from_first(self, value: T) -> T:
        """Rank 0's `value` (small and picklable) on every rank."""
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
                raise PeerError("rank 0 ended the training; its log says why")
            return
        # No local variable may hold the error: it would form a cycle with its traceback, which keeps the network, the
        # optimizer and the process group alive until the garbage collector runs.
        try:
            action()
        except BaseException:
            self.from_first(True)
            raise
        self.from_first(False)


class PeerError(RuntimeError):
    """Another process of the group raised, and this one follows it rather than wait for ever."""


def default_device() -> torch.device:
    """The GPU that this process was given, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
