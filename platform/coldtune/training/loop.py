"""The training loop: pure torch, in one process or in each process of a torch.distributed group."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from coldtune.data import Dataset
from coldtune.data.config import DataConfig
from coldtune.diffusion import build_degradation, draws
from coldtune.diffusion.restorer import RestorerConfig
from coldtune.memory import MemoryExhaustedError, attempt
from coldtune.training.batches import Batch, TrainingBatches, ValidationGrid
from coldtune.training.config import TrainingConfig
from coldtune.training.device import arithmetic, resident, seed_dropout
from coldtune.training.meter import DivergedError, Meter
from coldtune.training.state import TrainingState, load_restorer
from coldtune.training.world import World, default_device

__all__ = [
    "Checkpoints",
    "DivergedError",
    "Report",
    "TrainResult",
    "TrainingTask",
    "load_restorer",
    "train",
]

Report = Callable[[int, Mapping[str, float]], None]
"""Called with (step, metrics). An exception that it raises ends the training; so does stopping a trial."""

# Steps between looks at the losses, where no report or checkpoint is due: a diverged training ends within these.
_LONGEST_SPAN = 100
# Steps after a start or a halving in which the ranks ask each other whether memory ran out before they share gradients:
# from the second on, Adam's moments are there, and memory has its largest use.
_CAREFUL_STEPS = 3
_DROPOUT = draws.stream("training/dropout")


class Checkpoints(Protocol):
    """Where a training finds and leaves its checkpoints (directories); atomicity is the implementer's."""

    def latest(self, at_most: int) -> tuple[int, Path] | None:
        """The checkpoint of the largest step <= `at_most`, or None."""

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep what `write` puts into the fresh directory that it is given as the checkpoint of `step`."""


@dataclass(frozen=True)
class TrainingTask:
    """What to train, in values that travel between processes.

    dataset_path: a prepared dataset's folder. source_path: that of the dataset from whose training images a degradation
    draws (`animorph`); None for all others.
    """

    data: DataConfig
    dataset_path: str
    degradation: dict[str, Any]
    restorer: RestorerConfig
    training: TrainingConfig
    source_path: str | None = None


@dataclass(frozen=True)
class TrainResult:
    """The end of a training.

    `resumed_from` is the step of the checkpoint that it went on from (None: from the start). `seconds` is wall time;
    `images_per_s` counts training alone (no validation, no checkpoints) over all workers, 0 where nothing was left.
    """

    step: int
    resumed_from: int | None
    seconds: float
    images_per_s: float


def train(
    task: TrainingTask,
    checkpoints: Checkpoints,
    report: Report,
    *,
    device: torch.device | str | None = None,
    world: World | None = None,
) -> TrainResult:
    """Train the restorer R to minimise E |R(D(x, t), t) - x| (section 3.1) up to step `task.training.steps`.

    Goes on from `checkpoints.latest(steps)` and is then bit for bit the unbroken training (on a CPU; on a GPU up to
    the order of its sums). Every `report_every` steps and at the end, rank 0 reports `loss` and `grad_norm` (2-norm
    before clipping), both means over the steps since the last report or the resume, and `images_per_s`. Where a
    validation is due it reports `val_loss`: the averaged model's mean absolute error on the validation grid, whatever
    the training loss, so that trials compare. A report comes before the checkpoint of its step: after an interruption
    some steps may be reported twice, none is lost.

    `device`: this process's GPU if it has one, else the CPU. `world`: the torch.distributed group, if there is one.
    Every rank must call this with the same task. The caller's torch random state is left as it was.

    Where memory runs out, the step begins anew with half as many images at a time and twice as many such parts: the
    same images, seeds and mean gradient, only summed in smaller pieces (with dropout, other units drop). It warns,
    reports `micro_batch` (images at a time, of each process), and whoever resumes begins with it. MemoryExhaustedError
    where one image does not fit. In a group, this holds for the first steps after a start; later, the error ends the
    process that met it.

    Raises DivergedError (a FloatingPointError) when the loss or a gradient is not finite; found at reports and
    checkpoints, so that no step waits for the device. ValueError where there are more workers than images in a batch.
    """
    world = world or World.current()
    place = torch.device(device) if device is not None else default_device()
    if task.training.batch_size < world.size:
        raise ValueError(f"training.batch_size = {task.training.batch_size}: must be >= the {world.size} workers")
    with (
        torch.random.fork_rng(devices=[place] if place.type == "cuda" else []),
        arithmetic(task.training.dtype, place),
    ):
        return _Training(task, place, world).run(checkpoints, report)


class _Training:
    """One process's side of a training."""

    def __init__(self, task: TrainingTask, device: torch.device, world: World):
        config = self.config = task.training
        self.device, self.world = device, world
        dataset = Dataset.open(Path(task.dataset_path))
        source = Dataset.open(Path(task.source_path)).split("train").images if task.source_path else None
        degradation = build_degradation(task.degradation, dataset.image_shape, source)
        images = resident(dataset.split("train").images, device)
        self.batches = TrainingBatches(images, task.data, degradation, config.seed, device)
        self.grid: ValidationGrid | None = None
        if config.validate_every:
            self.grid = ValidationGrid(dataset.split("validation").images, degradation, config.validate_images, device)
        self.state = TrainingState.initial(config, task.restorer, dataset.image_shape, degradation.steps, device)
        self.dropout_seed = int(draws.derive(config.seed, _DROPOUT, torch.zeros(1, dtype=torch.int64)))
        self.meter = Meter(world)
        # Images at a time, at first the largest of the ranks' shares; and the last such number that was reported.
        self.micro = self.told = -(-config.batch_size // world.size)
        self.careful = _CAREFUL_STEPS

    def run(self, checkpoints: Checkpoints, report: Report) -> TrainResult:
        begun = time.perf_counter()
        found = self.world.from_first(checkpoints.latest(self.config.steps) if self.world.rank == 0 else None)
        if found:
            self.state.load(found[1])
            self.micro = self.told = min(self.micro, self.state.micro_batch() or self.micro)
        self.network = self.world.wrap(self.state.network)
        while self.state.step < self.config.steps:
            count, started = self._span(), time.perf_counter()
            for _ in range(count):
                self._step()
            self.meter.read(self.state.step, count * self.config.batch_size * self.config.accumulate, started)
            self._events(checkpoints, report)
        rate = self.meter.images / self.meter.seconds if self.meter.images else 0.0
        return TrainResult(self.state.step, found[0] if found else None, time.perf_counter() - begun, rate)

    def _span(self) -> int:
        """Steps to take before the host has something to do."""
        config, step = self.config, self.state.step
        periods = (config.report_every, config.validate_every, config.checkpoint_every)
        return min(_LONGEST_SPAN, config.steps - step, *(period - step % period for period in periods if period))

    def _step(self) -> None:
        while (done := self._attempt(self._gradients)) is None:
            self._halve()
        gradients = [parameter.grad for parameter in self.state.parameters if parameter.grad is not None]
        if self.careful:
            self.world.average(gradients)
        norm = get_total_norm(gradients)
        if self.config.clip_norm is not None:
            clip_grads_with_norm_(self.state.parameters, self.config.clip_norm, norm)
        self.state.update()
        self.careful = max(0, self.careful - 1)
        self.meter.add(done[0], norm)

    def _attempt(self, work: Callable[[], Tensor]) -> tuple[Tensor] | None:
        """(work(),), or None on all ranks where memory ran out on one of them."""
        if self.world.size > 1 and not self.careful:
            return (work(),)
        done = attempt(work)
        return None if self.world.any(done is None, self.device) else done

    def _gradients(self) -> Tensor:
        """Put the next step's gradient in place, from nothing: this rank's own while `careful`, else all ranks' mean.

        Gives this rank's part of the step's loss, times the ranks.
        """
        loss = torch.zeros((), device=self.device)
        self.state.optimizer.zero_grad(set_to_none=True)
        network = self.state.network if self.careful else self.network
        parts = list(self._parts())
        for number, part in enumerate(parts, 1):
            with nullcontext() if number == len(parts) else self.world.local_gradients(network):
                loss += self._backward(network, *part)
        return loss

    def _parts(self) -> Iterator[tuple[int, int, int]]:
        """What this rank passes through the network in the next step: the part's number (for dropout), start, stop."""
        config, world = self.config, self.world
        for micro_step in range(self.state.step * config.accumulate, (self.state.step + 1) * config.accumulate):
            first = micro_step * config.batch_size
            start, stop = world.share(first, first + config.batch_size)
            count, pieces = stop - start, -(-(stop - start) // self.micro)
            for piece in range(pieces):
                number = (micro_step * pieces + piece) * world.size + world.rank
                yield number, start + count * piece // pieces, start + count * (piece + 1) // pieces

    def _backward(self, network: nn.Module, number: int, start: int, stop: int) -> Tensor:
        """Add the gradient of the samples start..stop; returns their part of the step's loss, times the ranks."""
        config = self.config
        seed_dropout(self.device, self.dropout_seed + number)
        batch = self.batches.at(start, stop)
        # The ranks' gradients are averaged: a rank weighs by its images, so that shares may differ.
        weight = (stop - start) * self.world.size / (config.batch_size * config.accumulate)
        loss = self._errors(network, batch, config.loss).mean() * weight
        torch.autograd.backward(loss)
        return loss.detach()

    def _halve(self) -> None:
        """From here on, half as many images at a time."""
        if self.micro == 1:
            raise MemoryExhaustedError(
                "training: out of memory, even with one image at a time; a smaller restorer.size may fit"
            )
        tried, self.micro, self.careful = self.micro, self.micro // 2, _CAREFUL_STEPS
        if self.world.rank == 0:
            warnings.warn(
                f"training: out of memory with {tried} images at a time, at step {self.state.step + 1}; goes on with "
                f"{self.micro}, in more parts: the effective batch stays "
                f"{self.config.batch_size * self.config.accumulate}",
                stacklevel=2,
            )

    def _errors(self, network: nn.Module, batch: Batch, loss: str) -> Tensor:
        """|R(D(x, t), t) - x| or its square, (B, C, H, W)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            restored: Tensor = network(batch.x_t, batch.t)
        difference = restored.float() - batch.x0
        return difference.abs() if loss == "l1" else difference.square()

    def _events(self, checkpoints: Checkpoints, report: Report) -> None:
        """Whatever is due after a step: validation, report, checkpoint, in this order."""
        config, step, metrics = self.config, self.state.step, dict[str, float]()
        last = step == config.steps
        if last or step % config.report_every == 0:
            metrics |= self.meter.take()
        if self.grid and (last or step % config.validate_every == 0):
            metrics["val_loss"] = self._validate(self.grid)
        if self.micro != self.told:
            metrics["micro_batch"], self.told = self.micro, self.micro
        if metrics:
            self.state.history.append({"step": step, **metrics})
            self.world.on_first(lambda: report(step, metrics))
        if last or (config.checkpoint_every and step % config.checkpoint_every == 0):
            self.world.on_first(lambda: checkpoints.save(step, self.state.save))

    def _validate(self, grid: ValidationGrid) -> float:
        """Mean absolute error of the averaged model over the grid, whichever loss it is trained with."""
        while (done := self._attempt(partial(self._grid_errors, grid))) is None:
            self._halve()
        total = done[0]
        loss = float(self.world.sum(total)) / grid.size
        if not math.isfinite(loss):
            raise DivergedError(self.state.step, "the validation loss")
        return loss

    @torch.no_grad()
    def _grid_errors(self, grid: ValidationGrid) -> Tensor:
        """The sum over this rank's share of the grid."""
        total = torch.zeros((), device=self.device)
        start, stop = self.world.share(0, grid.size)
        whole = self.micro * self.world.size >= self.config.batch_size
        at_once = self.config.batch_size if whole else self.micro
        for first in range(start, stop, at_once):
            batch = grid.at(first, min(first + at_once, stop))
            total += self._errors(self.state.average, batch, "l1").flatten(1).mean(1).sum()
        return total
