"""The weights of a training with which a sampler works: of which step, averaged how, and guided by which other step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from coldtune.diffusion.samplers import Restore, SamplerConfig, guide
from coldtune.training.config import TrainingConfig
from coldtune.training.power_averages import read_average, rebuild

Load = Callable[[Path], nn.Module]

MOST_SNAPSHOTS = 200
"""The largest number of snapshots of a training. Each is a whole checkpoint on the disk."""
_MOST_KEPT_BYTES = 1 << 26  # of a restorer that stays in memory between two samplings
_MOST_MISPLACED = 0.05  # of a rebuilt average


@dataclass(frozen=True)
class Weights:
    """The weights with which a sampler works.

    Attributes:
        step: The step of the training.
        ema_std: The length of the average. None: the training's own average.
        stds, snapshots: The kept averages from which that length is rebuilt, and the steps at which they were kept.
        guidance, guide_step: The weight of these weights against those of `guide_step`. None: no guidance.
    """

    step: int
    ema_std: float | None = None
    stds: tuple[float, ...] = ()
    snapshots: tuple[int, ...] = ()
    guidance: float | None = None
    guide_step: int | None = None

    @classmethod
    def of(cls, training: TrainingConfig, sampler: SamplerConfig) -> Weights:
        """Return the weights that a sampler takes from a training. They may be such that no training has them."""
        step = sampler.at_step or training.steps
        found = cls(step)
        if sampler.ema_std is not None:
            snapshots = tuple(sorted({*training.snapshots(step), step}))
            found = replace(found, ema_std=sampler.ema_std, stds=training.ema_stds, snapshots=snapshots)
        if sampler.guided:
            found = replace(found, guidance=sampler.guidance, guide_step=sampler.guidance_step)
        return found

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps whose checkpoints are needed, ascending."""
        return tuple(sorted({self.step, *self.snapshots} | ({self.guide_step} if self.guide_step else set())))

    def part_of_key(self) -> dict[str, Any]:
        """Return the part of a sampling's key that says which weights it had, besides the step and its training.

        It is empty for the training's own average without guidance.
        """
        averaged = {"average": [self.ema_std, list(self.snapshots)]} if self.ema_std is not None else {}
        return averaged | ({"guide": [self.guidance, self.guide_step]} if self.guide_step else {})

    def network(self, checkpoints: Mapping[int, Path], load: Load) -> nn.Module:
        """Return the network that is guided.

        Args:
            checkpoints: The folder of each of `steps`.
            load: Loads the network of a checkpoint (`coldtune.training.load_restorer`).
        """
        network = load(checkpoints[self.step])
        if self.ema_std is not None:
            average = read_average(rebuild(self.stds, self.snapshots, self.ema_std), checkpoints)
            # The average has every parameter. Buffers are not trained, and stay as they were loaded.
            missing = network.load_state_dict(average, strict=False)
            assert not missing.unexpected_keys
            assert not {name for name, _ in network.named_parameters()} & set(missing.missing_keys)
        return network

    def restorer(
        self,
        checkpoints: Mapping[int, Path],
        load: Load,
        prepare: Callable[[nn.Module], Restore] = lambda network: network,
    ) -> Restore:
        """Return the restorer of the sampler.

        Args:
            checkpoints, load: As in `network`.
            prepare: Makes a restorer of each network, for example one with a fixed shape of batches.
        """
        own = prepare(self.network(checkpoints, load))
        if self.guidance is None or self.guide_step is None:
            return own
        return guide(own, prepare(load(checkpoints[self.guide_step])), self.guidance)


@dataclass(frozen=True)
class _LoadedRestorer:
    """The restorer that this process loaded last."""

    made_of: tuple[Any, ...]
    restorer: nn.Module


_last: _LoadedRestorer | None = None


def load_once(made_of: tuple[Any, ...], folders: Iterable[Path], load: Callable[[], Restore]) -> Restore:
    """Return the restorer that `load` makes, or the same restorer if this process loaded it last.

    A study of samplers samples many times with one training. Building and loading its network took as long as sampling
    16 images. A large network is not kept, because a later training needs the memory.

    Args:
        made_of: Everything that determines the restorer, besides the files of its checkpoints.
        folders: The checkpoints. If a file of theirs changes, the restorer is loaded again.
        load: Loads the restorer, without gradients and in eval mode.
    """
    global _last
    files = tuple((str(file), *_stat(file)) for folder in folders for file in sorted(folder.iterdir()))
    key, last = (*made_of, files), _last
    if last is not None and last.made_of == key:
        return last.restorer
    restorer = load()
    if isinstance(restorer, nn.Module):  # of two networks, a function of both
        size = sum(parameter.nbytes for parameter in restorer.parameters())
        _last = _LoadedRestorer(key, restorer) if size <= _MOST_KEPT_BYTES else None
    return restorer


def _stat(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def check_weights(training: TrainingConfig, sampler: SamplerConfig, rungs: tuple[int, ...] = ()) -> None:
    """Check that a training keeps the weights that a sampler needs.

    Args:
        training: The training.
        sampler: The sampler.
        rungs: The steps of the rungs, whose checkpoints stay too.

    Raises:
        ValueError: If it does not. The message names the key.
    """
    if (count := len(training.snapshots(training.steps))) > MOST_SNAPSHOTS:
        raise ValueError(
            f"training.snapshot_every = {training.snapshot_every}: keeps {count:,} checkpoints, at most "
            f"{MOST_SNAPSHOTS} are allowed"
        )
    weights = Weights.of(training, sampler)
    kept = {training.steps, *rungs, *training.snapshots(training.steps)}
    for key, step in (("at_step", sampler.at_step), ("guidance_step", sampler.guidance_step)):
        if step is not None and step > training.steps:
            raise ValueError(f"sampler.{key} = {step}: at most training.steps = {training.steps}")
        if step is not None and step not in kept:
            raise ValueError(
                f"sampler.{key} = {step}: the training does not keep this step. It keeps {_listed(sorted(kept))} "
                f"(training.snapshot_every = {training.snapshot_every})"
            )
    if sampler.guidance_step is not None and sampler.guidance_step >= weights.step:
        raise ValueError(f"sampler.guidance_step = {sampler.guidance_step}: must be below the step {weights.step}")
    if weights.ema_std is None:
        return
    if not weights.stds:
        raise ValueError(
            f"sampler.ema_std = {weights.ema_std}: needs training.ema_stds, for example [0.05, 0.1], and "
            "training.snapshot_every"
        )
    if (misplaced := rebuild(weights.stds, weights.snapshots, weights.ema_std).misplaced) > _MOST_MISPLACED:
        raise ValueError(
            f"sampler.ema_std = {weights.ema_std}: {misplaced:.0%} of this average would lie at wrong steps, at most "
            f"{_MOST_MISPLACED:.0%} are allowed. Take a smaller training.snapshot_every = {training.snapshot_every}, "
            f"or a length nearer to training.ema_stds = {list(weights.stds)}"
        )


def _listed(steps: list[int]) -> str:
    """Return a text of the first steps and the last."""
    return ", ".join(map(str, steps)) if len(steps) <= 6 else ", ".join([*map(str, steps[:4]), "...", str(steps[-1])])
