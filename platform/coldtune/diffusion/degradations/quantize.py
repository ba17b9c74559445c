"""Truncation to 8 bit, as the authors hide the faint rest of a masked pixel (A.2)."""

from __future__ import annotations

from torch import Tensor


def truncate_to_8_bit(x: Tensor) -> Tensor:
    """floor(255 (x+1)/2) on the grid of 256 levels over [-1, 1]; the gradient is that of the identity.

    Truncation as the authors have it, not rounding: values are up to 2/255 lower, and some exact levels move down one.
    Values outside [-1, 1] land on the same grid continued, nothing is clamped.
    """
    truncated = ((x + 1) / 2 * 255).floor() / 255 * 2 - 1
    return x + (truncated - x).detach() if x.requires_grad else truncated
