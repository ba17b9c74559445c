"""How a process computes a stage, as far as it decides the last bits of the result."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch

from coldtune.config import Config, Neutral, digest, identity
from coldtune.training.way import EAGER, Way


class Compute(Config):
    """How a stage is computed. It is a part of the stage's key, because it decides the last bits of every sum.

    Attributes:
        device: The kind of device that computes.
        threads: The CPU threads of each operation. None on a GPU, where their number changes nothing.
        way: How the network was computed (`coldtune.training.way`), with its arithmetic. None: every operation was
            launched by itself.
    """

    device: Literal["cpu", "gpu"]
    threads: int | None = None
    way: Annotated[str | None, Neutral(None)] = None

    @classmethod
    def here(cls, device: torch.device | str, way: Way = EAGER, dtype: str = "float32") -> Compute:
        """Return how this process computes on `device` now.

        Args:
            device: The device.
            way: The way of the training step and of the restorer that samples.
            dtype: Their arithmetic. The eager way ignores it, because its restorer samples in float32.
        """
        threads = torch.get_num_threads() if torch.device(device).type == "cpu" else None
        written = None if way == EAGER else f"{way}, {dtype}"
        return cls(device="gpu" if threads is None else "cpu", threads=threads, way=written)

    def describe(self) -> str:
        """Return a text such as `on a CPU with 2 threads`."""
        way = f" ({self.way})" if self.way else ""
        if self.threads is None:
            return f"on a GPU{way}"
        return f"on a CPU with {self.threads} thread{'s' * (self.threads > 1)}{way}"


def part_of_key(compute: Compute | None) -> dict[str, Any]:
    """Return the part of a stage's key that says how it was computed.

    It is empty for None: work that was kept before threads were recorded, by an unknown number of threads.
    """
    return {"compute": identity(compute)} if compute else {}


def cache_key(key: str, compute: Compute | None) -> str:
    """Return the key of tensors in a cache that depend on how they were computed. With None, `key` itself."""
    return digest({"key": key, **part_of_key(compute)}) if compute else key
