"""What the trials of a study would cost in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coldtune.data import Dataset
from coldtune.diffusion import nfe, source_of
from coldtune.stages.chain import BASELINES
from coldtune.stages.keys import sample_key, train_key
from coldtune.stages.trial import TrialConfig
from coldtune.studies.estimate.timing import Timing
from coldtune.studies.space.space import Space


@dataclass(frozen=True)
class CostEstimate:
    """What the trials of a study would cost in all: work that several share is counted once.

    trainings, samplings: how many different ones; the seconds of each, and those of the longest training.
    """

    trials: int
    trainings: int
    samplings: int
    training_s: float
    sampling_s: float
    longest_s: float

    def describe(self, slots: int) -> str:
        """For a person; slots: how many trials run at once."""
        work = self.training_s + self.sampling_s
        wall = max(work / slots, self.longest_s)
        return (
            f"{_counted(self.trials, 'trial')}: {_counted(self.trainings, 'training')} ({clock(self.training_s)}) and "
            f"{_counted(self.samplings, 'sampling')} ({clock(self.sampling_s)}), "
            f"about {clock(wall)} with {slots} at once"
        )


def bill(
    points: Sequence[Mapping[str, Any]], space: Space, dataset: Dataset, sources: Mapping[str, Dataset], found: Timing
) -> CostEstimate:
    """The bill of trials at `points`, on an empty store. sources: the datasets that degradations draw from, by name."""
    trainings: dict[str, TrialConfig] = {}
    samplings: dict[str, int] = {}
    for trial in map(space.resolve, points):
        source = sources.get(source_of(trial.degradation) or "")
        key = train_key(trial, dataset, source)
        trainings[key] = max(trainings.get(key, trial), trial, key=lambda t: t.training.steps)
        images = trial.protocol.num_images or len(dataset.split(trial.protocol.split).images)
        for sampler in (trial.sampler, *BASELINES.values()):
            evaluations = images * nfe(sampler, int(trial.degradation["steps"]))
            samplings[sample_key(trial, dataset, sampler, source)] = evaluations
    each = [found.training_s(trial) for trial in trainings.values()]
    sampling_s = sum(samplings.values()) / found.evaluations_per_s
    return CostEstimate(len(points), len(trainings), len(samplings), sum(each), sampling_s, max(each))


def clock(seconds: float) -> str:
    """Seconds, minutes or hours, for an estimate."""
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"
