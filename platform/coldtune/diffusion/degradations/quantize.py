"""Truncation to 8 bit. With it, the authors hide the faint rest of a masked pixel (A.2)."""

from __future__ import annotations

from torch import Tensor


def truncate_to_8_bit(x: Tensor) -> Tensor:
    """Truncate to floor(255 (x+1)/2) on the grid of 256 levels over [-1, 1]. The gradient is that of the identity.

    Like the authors' code, this truncates and does not round. Values are up to 2/255 lower, and some exact levels move
    down by one level. Values outside [-1, 1] land on the same grid continued, because nothing is clamped.
    """
    truncated = ((x + 1) / 2 * 255).floor() / 255 * 2 - 1
    return x + (truncated - x).detach() if x.requires_grad else truncated
