"""Averages of the weights with a power-function profile, of any length after the training.

Karras et al. (2312.02696, section 3 and appendix C) average the weights theta(1), ..., theta(S) of a training. The
share of a step grows as a power of the step. With an exponent gamma, step i has the share

    share(i) = (i^(gamma + 1) - (i - 1)^(gamma + 1)) / S^(gamma + 1)

of the average at step S. The average is updated in place, by average <- beta average + (1 - beta) theta(i) with
beta = (1 - 1/i)^(gamma + 1), so the random start has no share. The length of an average, by which users name it, is the
standard deviation of the averaged steps i / S. In the limit of many steps it is

    std = sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2).

An average of another length is a sum of averages that were kept at several steps (snapshots). Least squares choose the
coefficients such that the shares of all steps agree best with those of the wanted average.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

TRACKS = "tracks.safetensors"
"""The file of a checkpoint with the averages of `training.ema_stds`."""

_CHUNK = 1 << 22  # shares that are in memory at a time

Shares = npt.NDArray[np.float64]


def std_of(gamma: float) -> float:
    """Return the relative length of the average with exponent gamma >= 0, below 12^(-1/2) = 0.2887."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def gamma_of(std: float) -> float:
    """Return the exponent gamma > 0 of the average with the relative length `std`, 0 < std < 12^(-1/2)."""
    # (gamma + 1) / std^2 = (gamma + 2)^2 (gamma + 3) has one root above 0.
    inverse = std**-2
    return float(max(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real))


def decay(gamma: float, step: int) -> float:
    """Return beta, the share that the old average keeps at the update of `step`, counted from 1."""
    return float((1 - 1 / step) ** (gamma + 1))


def shares(gamma: float, step: int, start: int, stop: int) -> Shares:
    """Return the shares of the steps start < i <= stop in the average at `step`. Later steps have none."""
    reached = np.minimum(np.arange(start, stop + 1) / step, 1.0) ** (gamma + 1)
    return np.diff(reached)


@dataclass(frozen=True)
class Rebuilding:
    """An average as a sum of kept averages.

    Attributes:
        coefficients: For each kept average, given by its snapshot and by the number of its track, its coefficient. They
            add up to 1, so a weight that never changed keeps its value.
        misplaced: The part of the average that lies at wrong steps, half the sum of the absolute errors of all shares.
    """

    coefficients: Mapping[tuple[int, int], float]
    misplaced: float


@functools.lru_cache(maxsize=256)
def rebuild(stds: tuple[float, ...], snapshots: tuple[int, ...], std: float) -> Rebuilding:
    """Find the sum of kept averages that is closest to the average of length `std` at the last snapshot.

    Args:
        stds: The lengths of the tracks.
        snapshots: The steps at which the tracks were kept, ascending.
        std: The wanted length.
    """
    last = snapshots[-1]
    kept = [(step, track) for step in snapshots for track in range(len(stds))]
    columns = [(gamma_of(stds[track]), step) for step, track in kept]

    def blocks() -> Iterator[Shares]:
        rows = max(_CHUNK // len(kept), 1)
        for start in range(0, last, rows):
            stop = min(start + rows, last)
            base = shares(*columns[-1], start, stop)
            # The last coefficient is 1 minus all others, so the others multiply differences to its column.
            yield np.stack([shares(*c, start, stop) - base for c in [*columns[:-1], (gamma_of(std), last)]], axis=1)

    # A QR factor that grows block by block is as precise as one of the whole matrix. Normal equations would not be.
    factor = np.zeros((0, len(kept)))
    for block in blocks():
        factor = np.asarray(np.linalg.qr(np.concatenate([factor, block]), mode="r"))
    others = np.linalg.lstsq(factor[:, :-1], factor[:, -1], rcond=None)[0]
    error = sum(float(np.abs(block[:, :-1] @ others - block[:, -1]).sum()) for block in blocks())
    found = [*map(float, others), 1.0 - float(others.sum())]
    return Rebuilding(dict(zip(kept, found, strict=True)), error / 2)


def read_average(rebuilding: Rebuilding, checkpoints: Mapping[int, Path]) -> dict[str, Tensor]:
    """Return the parameters of a rebuilt average by name, float32. Sums are made in float64.

    Args:
        rebuilding: The coefficients.
        checkpoints: The folder of each snapshot, by its step.
    """
    shapes: dict[str, torch.Size] = {}
    total = torch.zeros(0)
    for step, group in itertools.groupby(rebuilding.coefficients.items(), key=lambda item: item[0][0]):
        kept = load_file(checkpoints[step] / TRACKS)
        for (_, track), coefficient in group:
            if not shapes:
                shapes = {name.partition(".")[2]: kept[name].shape for name in kept if name.startswith(f"{track}.")}
            # One vector for all parameters. A network of 100 parameters would need 300 operations for each of 40 parts.
            part = torch.cat([kept[f"{track}.{name}"].flatten() for name in shapes]).double().mul_(coefficient)
            total = total.add_(part) if len(total) else part
    values = torch.split(total.float(), [shape.numel() for shape in shapes.values()])
    return {name: value.reshape(shape) for (name, shape), value in zip(shapes.items(), values, strict=True)}


class Tracks:
    """The averages of `training.ema_stds` while a training runs."""

    def __init__(self, stds: Sequence[float], parameters: Sequence[Tensor]) -> None:
        """Begin the averages of `parameters` before the first step."""
        self.gammas = [gamma_of(std) for std in stds]
        self.raw = list(parameters)
        self.averages = [[value.detach().clone() for value in parameters] for _ in stds]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after `step`, counted from 1."""
        for gamma, average in zip(self.gammas, self.averages, strict=True):
            torch._foreach_lerp_(average, self.raw, 1 - decay(gamma, step))

    def state(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return all averages by `TRACK.NAME`."""
        return {
            f"{track}.{name}": value
            for track, average in enumerate(self.averages)
            for name, value in zip(names, average, strict=True)
        }

    def load(self, names: Sequence[str], kept: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        for name, value in self.state(names).items():
            value.copy_(kept[name])
