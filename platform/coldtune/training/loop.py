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
from coldtune.training.batches import TrainingBatches, ValidationGrid
from coldtune.training.config import TrainingConfig
from coldtune.training.device import arithmetic, resident, seed_dropout
from coldtune.training.meter import DivergedError, Meter
from coldtune.training.state import TrainingState, load_restorer
from coldtune.training.step import StaticStep, errors
from coldtune.training.way import EAGER, Way, choose_way
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
"""Called with (step, metrics). An exception that it raises ends the training. A pruned or stopped trial does so."""

# Most steps between two reads of the losses if no report or checkpoint is due. A diverged training ends within them.
_LONGEST_SPAN = 100
# In this many steps after a start or a halving, the ranks ask each other if memory ran out before they share gradients.
# From the second step on, Adam's moments exist, and memory use is at its largest.
_CAREFUL_STEPS = 3
_DROPOUT = draws.stream("training/dropout")


class Checkpoints(Protocol):
    """The storage of a training's checkpoints, each a directory. The implementation must make a save atomic."""

    def latest(self, at_most: int) -> tuple[int, Path] | None:
        """Return the checkpoint of the largest step <= `at_most`, or None."""

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Call `write` with a fresh directory, and keep the directory as the checkpoint of `step`."""


@dataclass(frozen=True)
class TrainingTask:
    """The definition of a training, in values that can be sent to another process.

    Attributes:
        data: The dataset and its augmentation.
        dataset_path: The folder of the prepared dataset.
        degradation: The configuration of D.
        restorer: The size of the network.
        training: The optimisation.
        source_path: The folder of the second dataset if the degradation needs the training images of a second dataset
            (`animorph`), otherwise None.
        way: How the training computes. None: as `training.compile` says and this machine allows.
    """

    data: DataConfig
    dataset_path: str
    degradation: dict[str, Any]
    restorer: RestorerConfig
    training: TrainingConfig
    source_path: str | None = None
    way: Way | None = None


@dataclass(frozen=True)
class TrainResult:
    """The end of a training.

    Attributes:
        step: The last step.
        resumed_from: The step of the checkpoint from which the training continued. None: it began anew.
        seconds: Wall time.
        images_per_s: Images over all workers per second of training alone, without validations and checkpoints. It is
            0 if nothing was left to train.
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

    The training continues from `checkpoints.latest(steps)`. The result equals that of an uninterrupted training bit for
    bit on a CPU, and up to the order of sums on a GPU.

    Every `report_every` steps and at the end, rank 0 reports `loss`, `grad_norm` (2-norm before clipping) and
    `images_per_s`. The first two are means over the steps since the last report or the resume. When a validation is
    due, rank 0 reports `val_loss`: the averaged model's mean absolute error on the validation grid. It is an absolute
    error even if the training loss is another, so that trials can be compared. A report comes before the checkpoint of
    its step. After an interruption some steps may therefore be reported twice, but no report is lost.

    If memory runs out, the step begins anew with half as many images at a time, in twice as many parts. The images, the
    seeds and the mean gradient stay the same; only the sums are made of smaller pieces, and dropout drops other units.
    The function warns, and reports `micro_batch`, the images at a time of each process. A resumed training begins with
    that number. In a group, this works only in the first steps after a start. Later, the error ends the process that
    ran out of memory.

    Args:
        task: The training. Every rank must call this function with the same task.
        checkpoints: Where the training finds and leaves its checkpoints.
        report: Receives the metrics on rank 0, and may raise to end the training.
        device: Default: this process's GPU if it has a GPU, otherwise the CPU.
        world: Default: the torch.distributed group if it is initialised, otherwise this process alone.

    Returns:
        The end of the training. The caller's torch random state is unchanged.

    Raises:
        DivergedError: If the loss or a gradient is not finite (a FloatingPointError). It is noticed at reports and
            checkpoints, so that no step waits for the device.
        MemoryExhaustedError: If a single image does not fit into memory.
        CompileError: If the training's way needs a compiled step, and compiling it fails.
        ValueError: If there are more workers than images in a batch, or the checkpoint was made in another way.
    """
    world = world or World.current()
    place = torch.device(device) if device is not None else default_device()
    if task.training.batch_size < world.size:
        raise ValueError(f"training.batch_size = {task.training.batch_size}: must be >= the {world.size} workers")
    with (
        torch.random.fork_rng(devices=[place] if place.type == "cuda" else []),
        arithmetic(task.training.dtype, place),
    ):
        way = choose_way(task.training.compile, place, world.size) if task.way is None else task.way
        return _Training(task, place, world, way).run(checkpoints, report)


class _Training:
    """The part of a training that one process does."""

    def __init__(self, task: TrainingTask, device: torch.device, world: World, way: Way):
        assert world.size == 1 or way == EAGER, "only a single process can capture its step"
        config = self.config = task.training
        self.device, self.world, self.way = device, world, way
        dataset = Dataset.open(Path(task.dataset_path))
        source = Dataset.open(Path(task.source_path)) if task.source_path else None
        self.datasets = [dataset, source] if source else [dataset]
        source_images = source.split("train").images if source else None
        degradation = build_degradation(task.degradation, dataset.image_shape, source_images)
        images = resident(dataset.split("train").images, device)
        self.batches = TrainingBatches(images, task.data, degradation, config.seed, device)
        self.grid: ValidationGrid | None = None
        if config.validate_every:
            self.grid = ValidationGrid(dataset.split("validation").images, degradation, config.validate_images, device)
        self.state = TrainingState.initial(config, task.restorer, dataset.image_shape, degradation.steps, device, way)
        self.dropout_seed = int(draws.derive(config.seed, _DROPOUT, torch.zeros(1, dtype=torch.int64)))
        self.meter = Meter(world)
        # Images at a time, at first the largest of the ranks' shares, and the last value of it that was reported.
        self.micro = self.reported_micro = -(-config.batch_size // world.size)
        self.careful = _CAREFUL_STEPS
        self.static: StaticStep | None = None

    def run(self, checkpoints: Checkpoints, report: Report) -> TrainResult:
        begun = time.perf_counter()
        found = self.world.from_first(checkpoints.latest(self.config.steps) if self.world.rank == 0 else None)
        if found:
            self.state.load(found[1])
            self.micro = self.reported_micro = min(self.micro, self.state.micro_batch() or self.micro)
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
        """Return the number of steps until the next report, validation, checkpoint or read of the losses."""
        config, step = self.config, self.state.step
        periods = (config.report_every, config.validate_every, config.checkpoint_every, config.snapshot_every)
        return min(_LONGEST_SPAN, config.steps - step, *(period - step % period for period in periods if period))

    def _step(self) -> None:
        if self.way == EAGER:
            self._eager_step()
        else:
            self._static_step()

    def _eager_step(self) -> None:
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

    def _static_step(self) -> None:
        """Take a step with static shapes. If memory runs out, it begins anew with smaller parts."""
        while (done := self._run_static()) is None:
            self.static = None
            self._halve()
        self.state.count_step()
        self.meter.add(*done)

    def _run_static(self) -> Tensor | None:
        if self.static is None:
            made = attempt(lambda: StaticStep(self.state, self.batches, self.config, self.micro, self.way))
            if made is None:
                return None
            self.static = made[0]
        return self.static.run()

    def _attempt(self, work: Callable[[], Tensor]) -> tuple[Tensor] | None:
        """Return (work(),), or None on all ranks if memory ran out on one of them."""
        if self.world.size > 1 and not self.careful:
            return (work(),)
        done = attempt(work)
        return None if self.world.any(done is None, self.device) else done

    def _gradients(self) -> Tensor:
        """Compute the next step's gradient: this rank's own while `careful`, otherwise the mean over all ranks.

        Returns:
            This rank's part of the step's loss, times the number of ranks.
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
        """Yield this rank's parts of the next step: the part's number (the dropout seed depends on it), start, stop."""
        config, world = self.config, self.world
        for micro_step in range(self.state.step * config.accumulate, (self.state.step + 1) * config.accumulate):
            first = micro_step * config.batch_size
            start, stop = world.share(first, first + config.batch_size)
            count, pieces = stop - start, -(-(stop - start) // self.micro)
            for piece in range(pieces):
                number = (micro_step * pieces + piece) * world.size + world.rank
                yield number, start + count * piece // pieces, start + count * (piece + 1) // pieces

    def _backward(self, network: nn.Module, number: int, start: int, stop: int) -> Tensor:
        """Add the gradient of the samples start..stop, and return their part of the loss, times the number of ranks."""
        config = self.config
        seed_dropout(self.device, self.dropout_seed + number)
        batch = self.batches.at(start, stop)
        # The ranks' gradients are averaged. Shares may differ in size, so each rank is weighted by its images.
        weight = (stop - start) * self.world.size / (config.batch_size * config.accumulate)
        loss = errors(network, batch, config.loss, config.dtype).mean() * weight
        torch.autograd.backward(loss)
        return loss.detach()

    def _halve(self) -> None:
        """Use half as many images at a time from now on."""
        if self.micro == 1:
            raise MemoryExhaustedError(
                "training: out of memory, even with one image at a time. A smaller restorer.size may fit."
            )
        tried, self.micro, self.careful = self.micro, self.micro // 2, _CAREFUL_STEPS
        if self.world.rank == 0:
            warnings.warn(
                f"training: out of memory with {tried} images at a time, at step {self.state.step + 1}. It goes on "
                f"with {self.micro}, in more parts. The effective batch stays "
                f"{self.config.batch_size * self.config.accumulate}.",
                stacklevel=2,
            )

    def _events(self, checkpoints: Checkpoints, report: Report) -> None:
        """Do what is due after a step: validation, report, checkpoint, in this order."""
        config, step, metrics = self.config, self.state.step, dict[str, float]()
        last = step == config.steps
        if last or step % config.report_every == 0:
            metrics |= self.meter.take()
        if self.grid and (last or step % config.validate_every == 0):
            metrics["val_loss"] = self._validate(self.grid)
        if self.micro != self.reported_micro:
            metrics["micro_batch"] = self.reported_micro = self.micro
        if metrics:
            self.state.history.append({"step": step, **metrics})
            self.world.on_first(lambda: report(step, metrics))
        if last or any(every and step % every == 0 for every in (config.checkpoint_every, config.snapshot_every)):
            self.world.on_first(partial(self._save, checkpoints, step))

    def _save(self, checkpoints: Checkpoints, step: int) -> None:
        for dataset in self.datasets:
            dataset.recheck()  # no checkpoint is kept that other pixels may have led to
        checkpoints.save(step, self.state.save)

    def _validate(self, grid: ValidationGrid) -> float:
        """Return the mean absolute error of the averaged model over the grid, for every training loss."""
        while (done := self._attempt(partial(self._grid_errors, grid))) is None:
            self._halve()
        total = done[0]
        loss = float(self.world.sum(total)) / grid.size
        if not math.isfinite(loss):
            raise DivergedError(self.state.step, "the validation loss")
        return loss

    @torch.no_grad()
    def _grid_errors(self, grid: ValidationGrid) -> Tensor:
        """Return the sum of the errors over this rank's share of the grid."""
        total = torch.zeros((), device=self.device)
        start, stop = self.world.share(0, grid.size)
        whole = self.micro * self.world.size >= self.config.batch_size
        at_once = self.config.batch_size if whole else self.micro
        for first in range(start, stop, at_once):
            batch = grid.at(first, min(first + at_once, stop))
            total += errors(self.state.average, batch, "l1", self.config.dtype).flatten(1).mean(1).sum()
        return total
