"""Degradations that are linear and separable: D(x, t) = A_t x A_t^T, whatever happened on the way to t."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from coldtune.diffusion.degradations.base import Degradation, DegradationConfig, Draw
from coldtune.diffusion.degradations.tables import Table


class Separable(Degradation):
    """The same cost for every t: a gather from a table of matrices and two batched matrix products.

    The tables are made at first use, once for each device and precision, and take (T+1) n^2 numbers for each different
    side n: in float32 0.2 MB for T = 50 at 32 px, 20 MB for T = 300 at 128 px (four times that again while it is made).
    An image costs 2 n^3 multiply-adds a channel.
    """

    def __init__(self, config: DegradationConfig, image_shape: Sequence[int]) -> None:
        super().__init__(config, image_shape)
        self._tables = {n: Table(lambda n=n: self._build(n)) for n in set(self.image_shape[1:])}  # type: ignore[misc]

    def matrices(self, n: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """A_0..A_T for an axis of n pixels, one of the image's sides: (T+1, n, n), A_0 the identity. For reading."""
        return self._tables[n].on(device, dtype)

    @abstractmethod
    def _build(self, n: int) -> Tensor:
        """A_0..A_T for an axis of n pixels, float64 (T+1, n, n)."""

    def _degrade(self, x0: Tensor, t: int | Tensor, draw: Draw | None) -> Tensor:
        batch, channels, height, width = x0.shape
        # The product along rows takes all channels of an image at once, without copies of its matrix.
        rows = x0.reshape(batch, channels * height, width) @ self._tables[width].at(t, x0).mT
        return self._tables[height].at(t, x0).unsqueeze(-3) @ rows.reshape(x0.shape)
