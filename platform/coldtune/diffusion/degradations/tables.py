"""Tables over the severities t = 0..T: what makes D(x, t) cost the same for every t."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Table:
    """Numbers for each t = 0..T, first axis t: made in float64, kept once for each device and precision.

    Made at first use, so that a degradation which only checks a configuration costs nothing.
    """

    def __init__(self, build: Callable[[], Tensor]) -> None:
        """`build` makes the table, float64 (T+1, ...), on the CPU."""
        self._build = build
        self._kept: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def on(self, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """The whole table. Not to be written to."""
        key, at_home = (torch.device(device), dtype), (torch.device("cpu"), dtype)
        if key not in self._kept:
            # Made under inference_mode, a table could never take part in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                made = self._kept[at_home] if at_home in self._kept else self._build()
                self._kept[key] = made.to(device=device, dtype=dtype)
        return self._kept[key]

    def at(self, t: int | Tensor, like: Tensor) -> Tensor:
        """The entries for t, in the precision and on the device of `like`: (...) for an int, (B, ...) for a tensor."""
        table = self.on(like.device, like.dtype)
        return table[t] if isinstance(t, int) else table.index_select(0, t)
