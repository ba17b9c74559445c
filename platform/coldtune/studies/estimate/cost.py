"""The cost of a study before it runs. Work that several trials share is counted once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coldtune.data import Dataset
from coldtune.diffusion import build_degradation, nfe, source_of
from coldtune.durations import format_estimate
from coldtune.metrics import build_extractor, resolve
from coldtune.metrics.protocol import count_eligible
from coldtune.stages.chain import BASELINES
from coldtune.stages.compute import Compute
from coldtune.stages.keys import sample_key, train_key
from coldtune.stages.trial import TrialConfig
from coldtune.store.checkpoints import StoreCheckpoints
from coldtune.store.location import StoreLocation
from coldtune.studies.estimate.timing import Timing
from coldtune.studies.space.config import VARIANT
from coldtune.studies.space.replicates import with_replicate
from coldtune.studies.space.space import Space

_TRAINS = ("data", "degradation", "restorer", "training")  # the sections that shape a training


@dataclass(frozen=True)
class CostEstimate:
    """The work of all trials of a study, on an empty store.

    Attributes:
        trainings, samplings: How many different trainings and samplings there are.
        training_s, sampling_s: Their seconds in all.
        longest_s: Seconds of the longest training, which no number of parallel trials can shorten.
        drawn: The number of trials from which the work of all was estimated. None if it was counted for all.
        replicates: The trainings of each setting. With more than one, `trials` and `drawn` count settings.
    """

    trials: int
    trainings: int
    samplings: int
    training_s: float
    sampling_s: float
    longest_s: float
    drawn: int | None = None
    replicates: int = 1

    def scale_to(self, trials: int, *, shared: bool) -> CostEstimate:
        """Return the estimate for more trials of the same space.

        Args:
            trials: The number of trials in all.
            shared: True if all trials share the trainings that were counted.
        """
        if trials <= self.trials:
            return self
        factor = trials / self.trials
        training = 1.0 if shared else factor
        return replace(
            self,
            trials=trials,
            trainings=round(self.trainings * training),
            samplings=round(self.samplings * factor),
            training_s=self.training_s * training,
            sampling_s=self.sampling_s * factor,
            drawn=self.trials,
        )

    def describe(self, slots: int) -> str:
        """Return the estimate as one line for people, if `slots` trials run at the same time."""
        work = self.training_s + self.sampling_s
        wall = max(work / slots, self.longest_s)
        each = f" x {self.replicates} trainings" if self.replicates > 1 else ""
        what = "setting" if self.replicates > 1 else "trial"
        return (
            f"{_counted(self.trials, what)}{each}{f', judging by {self.drawn:,} of them' if self.drawn else ''}: "
            f"{_counted(self.trainings, 'training')} ({format_estimate(self.training_s)}) and "
            f"{_counted(self.samplings, 'sampling')} ({format_estimate(self.sampling_s)}), "
            f"about {format_estimate(wall)} with {slots} at once"
        )


def estimate_cost(
    points: Sequence[Mapping[str, Any]],
    space: Space,
    dataset: Dataset,
    sources: Mapping[str, Dataset],
    timing: Timing,
    replicates: int = 1,
) -> CostEstimate:
    """Estimate the cost of the trials at `points` from a timed base.

    Args:
        sources: The datasets that degradations draw from, by name.
        timing: The measured rates of this machine.
        replicates: The trainings of each setting.
    """
    settings = [space.resolve(point) for point in points]
    trials = [with_replicate(setting, number) for number in range(replicates) for setting in settings]
    samplings: dict[str, int] = {}
    for trial in trials:
        images = trial.protocol.num_images or count_eligible(trial.protocol, dataset)
        for sampler in (trial.sampler, *BASELINES.values()):
            evaluations = images * nfe(sampler, int(trial.degradation["steps"]))
            samplings[sample_key(trial, dataset, sampler, _source(trial, sources))] = evaluations
        for seed in trial.protocol.further_seeds:
            other = trial.model_copy(update={"protocol": trial.protocol.model_copy(update={"seed": seed})})
            key = sample_key(other, dataset, trial.sampler, _source(trial, sources))
            samplings[key] = images * nfe(trial.sampler, int(trial.degradation["steps"]))
    each = [timing.training_s(trial) for trial in _distinct_trainings(trials, dataset, sources).values()]
    sampling_s = sum(samplings.values()) / timing.evaluations_per_s
    return CostEstimate(len(points), len(each), len(samplings), sum(each), sampling_s, max(each), replicates=replicates)


def estimate_confirmation(
    points: Sequence[Mapping[str, Any]],
    space: Space,
    dataset: Dataset,
    sources: Mapping[str, Dataset],
    timing: Timing,
    replicates: int,
    most: int,
) -> CostEstimate:
    """Estimate the cost of a confirmation, from points of its search. Nobody knows yet which settings will lead.

    Args:
        replicates: The trainings of each setting.
        most: The number of settings that are confirmed at most.
    """
    whole = estimate_cost(points, space, dataset, sources, timing, replicates)
    count = min(most, len(points))
    trainings = min(whole.trainings, count * replicates)
    share = count / len(points)
    return replace(
        whole,
        trials=count,
        trainings=trainings,
        samplings=round(whole.samplings * share),
        training_s=whole.training_s * trainings / whole.trainings,
        sampling_s=whole.sampling_s * share,
    )


def describe_variants(
    space: Space,
    dataset: Dataset,
    sources: Mapping[str, Dataset],
    store: StoreLocation | Path,
    computes: Sequence[Compute | None],
    replicates: int = 1,
) -> str:
    """Return one line about the cost of all variants: trainings, the part that the store has, and evaluations.

    Trials that differ only in their sampler or prior share a training.

    Args:
        sources: The datasets that degradations draw from, by name.
        store: The store in which finished trainings are looked for.
        computes: How the trainings were computed that the study may use. None stands for an unknown number of threads.
        replicates: The trainings of each setting.
    """
    settings = [space.resolve({VARIANT: name}) for name in space.config.variants]
    trials = [with_replicate(setting, number) for number in range(replicates) for setting in settings]
    trainings = _distinct_trainings(trials, dataset, sources)
    done = {
        key: max(_steps_in_store(store, train_key(trial, dataset, _source(trial, sources), c), trial) for c in computes)
        for key, trial in trainings.items()
    }
    images = sum(_batch(trial) * trial.training.steps for trial in trainings.values())
    lines = [_describe_trainings(list(trainings.values())) + f": {images:,} images through the network and back"]
    if finished := sum(step == trainings[key].training.steps for key, step in done.items()):
        lines.append("in the store already" if finished == len(done) else f"{finished} of them in the store already")
    elif any(done.values()):
        lines.append(f"the store has {sum(done.values()):,} of these steps")
    lines.append(f"then samples with {sum(_evaluations(trial, dataset) for trial in trials):,} more evaluations")
    return "; ".join(lines)


def count_trainings(space: Space, dataset: Dataset, sources: Mapping[str, Dataset]) -> int | None:
    """Return how many different trainings a space has, or None if a varied key makes every trial train anew."""
    if space.config.derive or any(path.partition(".")[0] in _TRAINS for path in space.config.vary):
        return None
    points = [{VARIANT: name} for name in space.config.variants] or [space.first]
    return len(_distinct_trainings(map(space.resolve, points), dataset, sources))


def _distinct_trainings(
    trials: Iterable[TrialConfig], dataset: Dataset, sources: Mapping[str, Dataset]
) -> dict[str, TrialConfig]:
    """Return the trial that trains longest for each training key, because shorter trainings are a part of it."""
    trainings: dict[str, TrialConfig] = {}
    for trial in trials:
        key = train_key(trial, dataset, _source(trial, sources))
        trainings[key] = max(trainings.get(key, trial), trial, key=lambda t: t.training.steps)
    return trainings


def _source(trial: TrialConfig, sources: Mapping[str, Dataset]) -> Dataset | None:
    return sources.get(source_of(trial.degradation) or "")


def _describe_trainings(trials: list[TrialConfig]) -> str:
    kinds = sorted({(t.restorer.size, t.training.steps, _batch(t)) for t in trials})
    each = " or ".join(f"{steps:,} steps of {batch} images ({size} restorer)" for size, steps, batch in kinds)
    return f"{_counted(len(trials), 'training')} of {each}"


def _batch(trial: TrialConfig) -> int:
    return trial.training.batch_size * trial.training.accumulate


def _steps_in_store(store: StoreLocation | Path, key: str, trial: TrialConfig) -> int:
    steps = trial.training.steps
    latest = StoreCheckpoints(store, key, final=steps).latest(steps)
    return latest[0] if latest else 0


def _evaluations(trial: TrialConfig, dataset: Dataset) -> int:
    """Return the network evaluations of a trial's sampler and the baselines; shared samplings count twice."""
    steps = build_degradation(trial.degradation, dataset.image_shape).steps
    protocol = resolve(trial.protocol, build_extractor(trial.protocol.extractor, dataset.home), dataset, trial.task)
    samplers = [*BASELINES.values(), *[trial.sampler] * trial.protocol.draws]
    return protocol.num_images * sum(nfe(sampler, steps) for sampler in samplers)


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"
