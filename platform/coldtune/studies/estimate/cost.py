"""What a study of variants will cost: its trainings, those that are found, and its network evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coldtune.data import Dataset
from coldtune.diffusion import build_degradation, nfe, source_of
from coldtune.metrics import build_extractor, resolve
from coldtune.stages.chain import BASELINES
from coldtune.stages.keys import train_key
from coldtune.stages.trial import TrialConfig
from coldtune.store.location import StoreAt
from coldtune.store.store import StoreCheckpoints
from coldtune.studies.space.config import VARIANT
from coldtune.studies.space.space import Space

_TRAINS = ("data", "degradation", "restorer", "training")  # the sections that shape a training


def cost(space: Space, dataset: Dataset, sources: Mapping[str, Dataset], store: StoreAt | Path) -> str:
    """One line: how many different trainings of how many steps, how far the store has them, and what sampling takes.

    Trials that differ in their sampler or prior alone share a training. sources: the datasets that degradations draw
    from, by name.
    """
    trials = [space.resolve({VARIANT: name}) for name in space.config.variants]
    trainings = {train_key(t, dataset, sources.get(source_of(t.degradation) or "")): t for t in trials}
    done = {key: _done(store, key, trial) for key, trial in trainings.items()}
    images = sum(_batch(trial) * trial.training.steps for trial in trainings.values())
    lines = [_trainings(list(trainings.values())) + f": {images:,} images through the network and back"]
    if found := sum(step == trainings[key].training.steps for key, step in done.items()):
        lines.append("in the store already" if found == len(done) else f"{found} of them in the store already")
    elif any(done.values()):
        lines.append(f"the store has {sum(done.values()):,} of these steps")
    lines.append(f"then samples with {sum(_evaluations(trial, dataset) for trial in trials):,} more evaluations")
    return "; ".join(lines)


def trainings(space: Space, dataset: Dataset, sources: Mapping[str, Dataset]) -> int | None:
    """How many different trainings a searched space has in all; None where what varies is trained anew."""
    if space.config.derive or any(path.partition(".")[0] in _TRAINS for path in space.config.vary):
        return None
    points = [{VARIANT: name} for name in space.config.variants] or [space.first]
    trials = map(space.resolve, points)
    return len({train_key(t, dataset, sources.get(source_of(t.degradation) or "")) for t in trials})


def _trainings(trials: list[TrialConfig]) -> str:
    kinds = sorted({(t.restorer.size, t.training.steps, _batch(t)) for t in trials})
    each = " or ".join(f"{steps:,} steps of {batch} images ({size} restorer)" for size, steps, batch in kinds)
    return f"{len(trials)} training{'s' * (len(trials) > 1)} of {each}"


def _batch(trial: TrialConfig) -> int:
    return trial.training.batch_size * trial.training.accumulate


def _done(store: StoreAt | Path, key: str, trial: TrialConfig) -> int:
    steps = trial.training.steps
    latest = StoreCheckpoints(store, key, final=steps).latest(steps)
    return latest[0] if latest else 0


def _evaluations(trial: TrialConfig, dataset: Dataset) -> int:
    """Of the network, for the trial's own sampler and the baselines; samplings that trials share are counted twice."""
    steps = build_degradation(trial.degradation, dataset.image_shape).steps
    protocol = resolve(trial.protocol, build_extractor(trial.protocol.extractor), dataset, trial.task)
    return protocol.num_images * sum(nfe(sampler, steps) for sampler in [trial.sampler, *BASELINES.values()])
