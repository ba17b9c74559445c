"""Tables over the severities t = 0..T. Because of them D(x, t) costs the same for every t."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Table:
    """Numbers for each t = 0..T, with t as the first axis. They are made in float64 and kept per device and precision.

    A table is made at first use, so that a degradation which only checks a configuration costs nothing.
    """

    def __init__(self, build: Callable[[], Tensor]) -> None:
        """Take a function that makes the table on the CPU, as float64 (T+1, ...)."""
        self._build = build
        self._kept: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def on(self, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """Return the whole table. Do not write to it."""
        key, at_home = (torch.device(device), dtype), (torch.device("cpu"), dtype)
        if key not in self._kept:
            # A table that is made under inference_mode could never take part in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                made = self._kept[at_home] if at_home in self._kept else self._build()
                self._kept[key] = made.to(device=device, dtype=dtype)
        return self._kept[key]

    def at(self, t: int | Tensor, like: Tensor) -> Tensor:
        """Return the entries for t, in the precision and on the device of `like`.

        The shape is (...) for an int t and (B, ...) for a tensor t.
        """
        table = self.on(like.device, like.dtype)
        return table[t] if isinstance(t, int) else table.index_select(0, t)
