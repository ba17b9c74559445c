"""Degradations that are linear and separable: D(x, t) = A_t x A_t^T, with a table of the matrices A_t for all t."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from coldtune.diffusion.degradations.base import Degradation, DegradationConfig, Draw
from coldtune.diffusion.degradations.tables import Table


class Separable(Degradation):
    """The base class of separable degradations, at the same cost for every t.

    A severity costs a lookup in a table of matrices and two batched matrix products, which are 2 n^3 multiply-adds
    per channel of an image.

    The tables are made at first use, once for each device and precision. They take (T+1) n^2 numbers for each different
    image side n. In float32 that is 0.2 MB for T = 50 at 32 px and 20 MB for T = 300 at 128 px. Making a table needs
    four times its size on top.
    """

    def __init__(self, config: DegradationConfig, image_shape: Sequence[int]) -> None:
        super().__init__(config, image_shape)
        self._tables = {n: Table(lambda n=n: self._build(n)) for n in set(self.image_shape[1:])}  # type: ignore[misc]

    def matrices(self, n: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """Return A_0..A_T for an axis of n pixels, where n is one of the image's sides.

        The result is (T+1, n, n) and starts with the identity. Do not write to it.
        """
        return self._tables[n].on(device, dtype)

    @abstractmethod
    def _build(self, n: int) -> Tensor:
        """Make A_0..A_T for an axis of n pixels: float64 (T+1, n, n)."""

    def _degrade(self, x0: Tensor, t: int | Tensor, draw: Draw | None) -> Tensor:
        batch, channels, height, width = x0.shape
        # All channels of an image share one product along rows, so its matrix is not copied per channel.
        rows = x0.reshape(batch, channels * height, width) @ self._tables[width].at(t, x0).mT
        return self._tables[height].at(t, x0).unsqueeze(-3) @ rows.reshape(x0.shape)
