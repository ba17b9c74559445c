"""The restorers of a finished trial, found in the store. Its extractor is not needed, because nothing is judged."""

from __future__ import annotations

import warnings
from pathlib import Path

from coldtune.stages.chain import found_only
from coldtune.stages.compute import Compute
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.keys import train_key
from coldtune.stages.weights import Weights
from coldtune.store.checkpoints import StoreCheckpoints
from coldtune.store.store import Entry, Store
from coldtune.training.loop import TrainingTask

_MOST_THREADS = 64  # that are looked for


def find_restorer(run: FinishedTrial, store: Store) -> Entry:
    """Return the checkpoint of a trial at the end of its training.

    If the number of threads of its training is not known, the training with the fewest threads is taken.

    Raises:
        ValueError: If the store does not hold the checkpoint, or it is damaged. The message names the run.
    """
    config, steps = run.config, run.config.training.steps
    keys = [train_key(config, run.dataset, run.source, compute) for compute in _computes(run)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"store entry train/.* is damaged")  # the error says so
        for key in keys:
            latest = StoreCheckpoints(store.at, key, final=steps).latest(steps)
            if latest is not None and latest[0] == steps:
                entry = store.find("train", f"{key}/{latest[1].name}")
                assert entry is not None, latest[1]
                return entry
        try:
            found_only(_task(run), StoreCheckpoints(store.at, keys[0], final=steps), lambda *_: None)
        except ValueError as error:
            raise ValueError(f"{run.name}: {error}") from None
    raise AssertionError("found_only always raises")


def find_checkpoints(run: FinishedTrial, store: Store, end: Entry) -> dict[int, Path]:
    """Return the checkpoints that the trial's own sampler needs, and the end of the training, by their steps.

    Args:
        run: The trial.
        store: The store.
        end: The end of its training, from `find_restorer`.

    Raises:
        ValueError: If the store does not hold a checkpoint. The message names the run and the step.
    """
    config, key = run.config, end.key.rpartition("/")[0]
    found = {config.training.steps: end.path}
    for step in Weights.of(config.training, config.sampler).steps:
        if step == config.training.steps:
            continue
        entry = store.find("train", StoreCheckpoints.entry_key(key, step))
        if entry is None:
            raise ValueError(
                f"{run.name}: its sampler needs step {step:,} of the training, which is not in {store.at.shown}. "
                "Restore it from a copy, or run the study in an empty home"
            )
        found[step] = entry.path
    return found


def _computes(run: FinishedTrial) -> list[Compute | None]:
    """Return how the training may have been computed. A configuration alone does not say on how many threads."""
    known = list(run.computed)
    if None in run.computed:
        known += [Compute(device="cpu", threads=threads) for threads in range(1, _MOST_THREADS + 1)]
    return list(dict.fromkeys(known))


def _task(run: FinishedTrial) -> TrainingTask:
    return TrainingTask(
        data=run.config.data,
        dataset_path=str(run.dataset.path),
        degradation=run.config.degradation,
        restorer=run.config.restorer,
        training=run.config.training,
        source_path=None,
    )
