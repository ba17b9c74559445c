"""Losses and gradient norms on their way from the device to a report, and the guard that they pass."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from coldtune.training.world import World


class DivergedError(FloatingPointError):
    """A loss or gradient is not finite at `step`, the first such step; no checkpoint was written since."""

    def __init__(self, step: int, what: str = "the loss or its gradient"):
        super().__init__(step, what)
        self.step, self.what = step, what

    def __str__(self) -> str:
        return (
            f"training diverged: {self.what} is not finite at step {self.step}; "
            "a smaller training.lr or a training.clip_norm may help"
        )


class Meter:
    """Losses and gradient norms, left on the device until they are asked for, and the time that they took."""

    def __init__(self, world: World):
        self.world = world
        self.rows: list[Tensor] = []
        self.images, self.seconds = 0, 0.0
        self._reset()

    def _reset(self) -> None:
        self.steps, self.loss, self.norm = 0, 0.0, 0.0
        self.mark = (self.images, self.seconds)

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """One step's numbers (scalars on the device): no wait, no copy."""
        self.rows += [loss, norm]

    def read(self, step: int, images: int, started: float) -> None:
        """Wait for the steps since the last call, of which `step` is the last; DivergedError where one diverged."""
        rows = torch.stack(self.rows).view(-1, 2) / self.world.size
        values = self.world.sum(rows).tolist()
        self.rows.clear()
        self.images, self.seconds = self.images + images, self.seconds + time.perf_counter() - started
        for index, (loss, norm) in enumerate(values):
            if not math.isfinite(loss + norm):
                raise DivergedError(step - len(values) + 1 + index)
            self.steps, self.loss, self.norm = self.steps + 1, self.loss + loss, self.norm + norm

    def take(self) -> dict[str, float]:
        """Means since the last call."""
        images, seconds = self.images - self.mark[0], self.seconds - self.mark[1]
        means = {"loss": self.loss / self.steps, "grad_norm": self.norm / self.steps, "images_per_s": images / seconds}
        self._reset()
        return means
