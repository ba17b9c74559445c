"""How a process computes a stage, as far as it decides the last bits of the result."""

from __future__ import annotations

from typing import Any, Literal

import torch

from coldtune.config import Config, digest


class Compute(Config):
    """How a stage is computed. It is a part of the stage's key, because it decides the last bits of every sum.

    Attributes:
        device: The kind of device that computes.
        threads: The CPU threads of each operation. None on a GPU, where their number changes nothing.
    """

    device: Literal["cpu", "gpu"]
    threads: int | None = None

    @classmethod
    def here(cls, device: torch.device | str) -> Compute:
        """Return how this process computes on `device` now."""
        on_cpu = torch.device(device).type == "cpu"
        return cls(device="cpu", threads=torch.get_num_threads()) if on_cpu else cls(device="gpu")

    def describe(self) -> str:
        """Return a text such as `on a CPU with 2 threads`."""
        if self.threads is None:
            return "on a GPU"
        return f"on a CPU with {self.threads} thread{'s' * (self.threads > 1)}"


def part_of_key(compute: Compute | None) -> dict[str, Any]:
    """Return the part of a stage's key that says how it was computed.

    It is empty for None: work that was kept before threads were recorded, by an unknown number of threads.
    """
    return {"compute": compute} if compute else {}


def cache_key(key: str, compute: Compute | None) -> str:
    """Return the key of tensors in a cache that depend on how they were computed. With None, `key` itself."""
    return digest({"key": key, **part_of_key(compute)}) if compute else key
