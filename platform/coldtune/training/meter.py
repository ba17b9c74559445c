"""Losses and gradient norms between the device and a report, and the check that they are finite."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from coldtune.training.world import World


class DivergedError(FloatingPointError):
    """A loss or gradient that is not finite.

    `step` is the first such step. No checkpoint has been written since.
    """

    def __init__(self, step: int, what: str = "the loss or its gradient"):
        super().__init__(step, what)
        self.step, self.what = step, what

    def __str__(self) -> str:
        return (
            f"training diverged: {self.what} is not finite at step {self.step}. "
            "A smaller training.lr or a training.clip_norm may help."
        )


class Meter:
    """Losses and gradient norms, which stay on the device until they are read, and the time that the steps took."""

    def __init__(self, world: World):
        self.world = world
        self.rows: list[Tensor] = []
        self.images, self.seconds = 0, 0.0
        self._reset()

    def _reset(self) -> None:
        self.steps, self.loss, self.norm = 0, 0.0, 0.0
        self.mark = (self.images, self.seconds)

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Keep the loss and the gradient norm of a step (scalars on the device), without a copy or a wait."""
        self.rows += [loss, norm]

    def read(self, step: int, images: int, started: float) -> None:
        """Wait for the steps since the last call, and add them to the means.

        Args:
            step: The last of these steps.
            images: The images of these steps, over all ranks.
            started: `time.perf_counter()` before the first of them.

        Raises:
            DivergedError: If a loss or gradient norm is not finite.
        """
        rows = torch.stack(self.rows).view(-1, 2) / self.world.size
        values = self.world.sum(rows).tolist()
        self.rows.clear()
        self.images, self.seconds = self.images + images, self.seconds + time.perf_counter() - started
        for index, (loss, norm) in enumerate(values):
            if not math.isfinite(loss + norm):
                raise DivergedError(step - len(values) + 1 + index)
            self.steps, self.loss, self.norm = self.steps + 1, self.loss + loss, self.norm + norm

    def take(self) -> dict[str, float]:
        """Return the means since the last call, and start new ones."""
        images, seconds = self.images - self.mark[0], self.seconds - self.mark[1]
        means = {"loss": self.loss / self.steps, "grad_norm": self.norm / self.steps, "images_per_s": images / seconds}
        self._reset()
        return means
