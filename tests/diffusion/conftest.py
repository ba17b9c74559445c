from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Return a function that loads the numeric arrays of a file in tests/golden."""

    def load(name: str) -> dict[str, Tensor]:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype.kind in "fi"}

    return load


@pytest.fixture(scope="session")
def golden_restorer() -> Callable[[str, int], Callable[[Tensor, Tensor], Tensor]]:
    """Return a function that makes the fake restorers of the golden numbers (see tests/golden/README.md)."""
    weights = torch.tensor([[0.02, 0.08, 0.03], [0.11, 0.50, 0.07], [0.05, 0.10, 0.04]])
    biases = torch.tensor([0.05, -0.10, 0.15])

    def affine(x: Tensor, t: Tensor) -> Tensor:
        return 0.9 * x + 0.05

    def make(name: str, steps: int) -> Callable[[Tensor, Tensor], Tensor]:
        def conv(x: Tensor, t: Tensor) -> Tensor:
            channels = x.shape[1]
            kernel = weights.expand(channels, 1, 3, 3)
            filtered = torch.nn.functional.conv2d(x, kernel, padding=1, groups=channels)
            return filtered + 0.1 * (t / steps)[:, None, None, None] + biases[:channels, None, None]

        return {"affine": affine, "conv": conv}[name]

    return make
