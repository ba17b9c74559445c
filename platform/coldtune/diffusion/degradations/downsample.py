"""Downsampling: each step halves the resolution, and the result is shown at full size (the paper's 4.3, 5.3, A.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from coldtune.diffusion.degradations.base import DegradationConfig, Draw
from coldtune.diffusion.degradations.separable import Separable

# The weights of halving without antialiasing: Keys' cubic kernel with a = -0.75 at distances of 1/2 and 3/2 pixels.
_CUBIC = (-0.09375, 0.59375, 0.59375, -0.09375)


class DownsampleConfig(DegradationConfig):
    """D(x, t) has 2^t x 2^t blocks of a single value each. T = 3 takes 32 px to 4 x 4, and T = 6 takes 128 px to 2 x 2.

    Attributes:
        method: "bicubic" is the authors' sequence: at each step, bicubic to n / 2^t (a = -0.75, no antialiasing, edges
            repeated) and nearest up again. "area" takes the means of the blocks. The two differ only in the first step,
            where bicubic sharpens a little and area averages.
    """

    kind: Literal["downsample"] = "downsample"
    method: Literal["bicubic", "area"]


class Downsample(Separable):
    """Downsampling at the same cost for every t. It is not continuous in t: each step takes three quarters of the rest.

    From the second step on, bicubic sees blocks of equal pixels and takes their mean. So D(x, t) is the mean over
    2^(t-1) x 2^(t-1) blocks of the image that was halved once.
    """

    config_type: ClassVar[type[DegradationConfig]] = DownsampleConfig
    continuous: ClassVar[bool] = False
    config: DownsampleConfig

    def __init__(self, config: DownsampleConfig, image_shape: Sequence[int]) -> None:
        super().__init__(config, image_shape)
        block = 2**config.steps
        for n in self.image_shape[1:]:
            if n % block:
                allowed = (n & -n).bit_length() - 1
                raise ValueError(
                    f"degradation.steps = {config.steps}: {n} px can be halved {allowed} times. "
                    f"Take at most {allowed} steps, or image sides divisible by {block}."
                )

    def low_resolution(self, t: int) -> tuple[int, int]:
        """Return the number of rows and columns of blocks of D(., t)."""
        return self.image_shape[1] >> t, self.image_shape[2] >> t

    def lost(self, t: int, draw: Draw | None = None) -> Tensor:
        """Return the share of the dimensions that is gone: 1 - 4^-t."""
        return torch.tensor(1 - 4.0**-t, dtype=torch.float64)

    def _build(self, n: int) -> Tensor:
        first = _halve_bicubic(n) if self.config.method == "bicubic" else _block_means(n >> 1, n)
        matrices = [torch.eye(n, dtype=torch.float64, device="cpu")]
        for t in range(1, self.steps + 1):
            means = _block_means(n >> t, n >> 1) @ first
            matrices.append(means.repeat_interleave(1 << t, dim=0))
        return torch.stack(matrices)


def _block_means(small: int, n: int) -> Tensor:
    """Return the matrix that takes the means of `small` equal blocks of an axis: float64 (small, n)."""
    return torch.eye(small, dtype=torch.float64, device="cpu").repeat_interleave(n // small, dim=1) * (small / n)


def _halve_bicubic(n: int) -> Tensor:
    """Return the matrix of bicubic interpolation at 2i + 1/2, with repeated edge pixels: float64 (n/2, n)."""
    matrix = torch.zeros(n // 2, n, dtype=torch.float64, device="cpu")
    row = torch.arange(n // 2, device="cpu")
    for offset, weight in zip((-1, 0, 1, 2), _CUBIC, strict=True):
        column = (2 * row + offset).clamp(0, n - 1)
        matrix.index_put_((row, column), torch.tensor(weight, dtype=torch.float64, device="cpu"), accumulate=True)
    return matrix
