"""The stream of training samples and the validation grid. Sample p depends on the seed and on p alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from coldtune.data import augment, to_float
from coldtune.diffusion import draws

if TYPE_CHECKING:
    from coldtune.data.config import DataConfig
    from coldtune.diffusion import Degradation

_ORDER, _LEVEL = draws.stream("training/order"), draws.stream("training/level")
_AUGMENT, _DRAW = draws.stream("training/augment"), draws.stream("training/draw")
_GRID_ORDER, _GRID_DRAW = draws.stream("validation/order"), draws.stream("validation/draw")
# The validation grid belongs to the split, not to a run: all trainings that may be compared share this seed.
_VALIDATION_SEED = 0


class Batch(NamedTuple):
    """Clean images, their degraded versions (both float32 (B, C, H, W) in [-1, 1]) and severities t (B,)."""

    x0: Tensor
    x_t: Tensor
    t: Tensor


class TrainingBatches:
    """The endless stream of training samples.

    Sample p is image `p mod N` of the `p div N`-th permutation, with t ~ U{1..T}. Its t, its augmentation and its
    degradation draw are derived from (seed, p). So a checkpoint needs only one integer to continue the data, and the
    samples are the same however they are split into batches or over workers.
    """

    def __init__(self, images: Tensor, data: DataConfig, degradation: Degradation, seed: int, device: torch.device):
        """Create the stream.

        Args:
            images: uint8 (N, C, H, W), on `device`, or in main memory if they do not fit there.
            data: The augmentation.
            degradation: D.
            seed: Fixes the order of the images, and every t, augmentation and degradation draw.
            device: The device of the batches.
        """
        self.images, self.data, self.degradation, self.seed, self.device = images, data, degradation, seed, device
        self._permutations: dict[int, Tensor] = {}

    @property
    def resident(self) -> bool:
        """True if the images are on the device of the batches."""
        return self.images.device.type == self.device.type

    @torch.no_grad()
    def at(self, start: int, stop: int) -> Batch:
        """Return the samples at positions start <= p < stop."""
        images = self.images[self._indices(start, stop)].to(self.device, non_blocking=True)
        return self.of(images, torch.arange(start, stop, device=self.device))

    @torch.no_grad()
    def of(self, images: Tensor, positions: Tensor) -> Batch:
        """Return the samples at `positions`, int64 (B,), given their images, uint8 (B, C, H, W). Nothing waits."""
        x0 = to_float(augment(images, self.data, draws.derive(self.seed, _AUGMENT, positions)))
        t = draws.integers(draws.derive(self.seed, _LEVEL, positions), _LEVEL, 1, self.degradation.steps + 1)
        draw = self.degradation.draw(draws.derive(self.seed, _DRAW, positions))
        return Batch(x0, self.degradation(x0, t, draw), t)

    def _indices(self, start: int, stop: int) -> Tensor:
        parts = []
        while start < stop:
            epoch, offset = divmod(start, len(self.images))
            taken = min(stop - start, len(self.images) - offset)
            parts.append(self.permutation(epoch)[offset : offset + taken])
            start += taken
        return torch.cat(parts)

    def permutation(self, epoch: int) -> Tensor:
        """Return the order of the images in an epoch, int64 (N,), on the device of the images."""
        if epoch not in self._permutations:
            # Keep two epochs: a batch may span the end of an epoch, and workers never go back.
            self._permutations = {old: order for old, order in self._permutations.items() if old == epoch - 1}
            shuffle = int(draws.derive(self.seed, _ORDER, torch.tensor([epoch])).item())
            keys = draws.derive(shuffle, _ORDER, torch.arange(len(self.images), device=self.images.device))
            self._permutations[epoch] = torch.argsort(keys, stable=True)
        return self._permutations[epoch]


class StaticOrder:
    """The permutations of the next samples, in one place of the device's memory.

    With them, the image of a position is looked up by operations on the device alone.
    """

    def __init__(self, batches: TrainingBatches, most: int) -> None:
        """Make room for the permutations of any `most` samples in a row."""
        self.batches, self.count = batches, len(batches.images)
        self.epochs: list[int | None] = [None] * (-(-most // self.count) + 1)
        self.slots = torch.zeros(len(self.epochs), self.count, dtype=torch.int64, device=batches.device)

    def load(self, start: int, stop: int) -> None:
        """Bring in the permutations of the samples start <= p < stop."""
        for epoch in range(start // self.count, (stop - 1) // self.count + 1):
            slot = epoch % len(self.epochs)
            if self.epochs[slot] != epoch:
                self.slots[slot].copy_(self.batches.permutation(epoch))
                self.epochs[slot] = epoch

    def indices(self, positions: Tensor) -> Tensor:
        """Return the images of loaded positions, int64 (B,)."""
        return self.slots[(positions // self.count) % len(self.epochs), positions % self.count]


class ValidationGrid:
    """Pairs of a validation image and a severity, the same for every training on that split with the same T.

    The images are in a fixed random order, without augmentation. The severities cover 1..T evenly, so losses at
    different T compare the same fractions t / T.
    """

    def __init__(self, images: Tensor, degradation: Degradation, size: int, device: torch.device):
        """Create the grid.

        Args:
            images: uint8 (N, C, H, W), N >= 1.
            degradation: D.
            size: Pairs in the grid. It has only N if there are fewer images.
            device: The device of the batches.
        """
        self.size = min(size, len(images))
        keys = draws.derive(_VALIDATION_SEED, _GRID_ORDER, torch.arange(len(images)))
        self.images = images[torch.argsort(keys, stable=True)[: self.size]].to(device)
        pair = torch.arange(self.size, device=device)
        self.t = pair * degradation.steps // self.size + 1
        self.seeds = draws.derive(_VALIDATION_SEED, _GRID_DRAW, pair)
        self.degradation = degradation

    @torch.no_grad()
    def at(self, start: int, stop: int) -> Batch:
        """Return the pairs start <= j < stop of the grid."""
        x0, t = to_float(self.images[start:stop]), self.t[start:stop]
        return Batch(x0, self.degradation(x0, t, self.degradation.draw(self.seeds[start:stop])), t)
