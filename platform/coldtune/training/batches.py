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

    @torch.no_grad()
    def at(self, start: int, stop: int) -> Batch:
        """Return the samples at positions start <= p < stop."""
        images = self.images[self._indices(start, stop)].to(self.device, non_blocking=True)
        positions = torch.arange(start, stop, device=self.device)
        x0 = to_float(augment(images, self.data, draws.derive(self.seed, _AUGMENT, positions)))
        t = draws.integers(draws.derive(self.seed, _LEVEL, positions), _LEVEL, 1, self.degradation.steps + 1)
        draw = self.degradation.draw(draws.derive(self.seed, _DRAW, positions))
        return Batch(x0, self.degradation(x0, t, draw), t)

    def _indices(self, start: int, stop: int) -> Tensor:
        parts = []
        while start < stop:
            epoch, offset = divmod(start, len(self.images))
            taken = min(stop - start, len(self.images) - offset)
            parts.append(self._permutation(epoch)[offset : offset + taken])
            start += taken
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._permutations:
            # Keep two epochs: a batch may span the end of an epoch, and workers never go back.
            self._permutations = {old: order for old, order in self._permutations.items() if old == epoch - 1}
            shuffle = int(draws.derive(self.seed, _ORDER, torch.tensor([epoch])).item())
            keys = draws.derive(shuffle, _ORDER, torch.arange(len(self.images), device=self.images.device))
            self._permutations[epoch] = torch.argsort(keys, stable=True)
        return self._permutations[epoch]


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
