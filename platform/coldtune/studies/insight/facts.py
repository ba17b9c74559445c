"""A study as plain values, from which importance and the health checks are computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from coldtune.environment import coldtune_command
from coldtune.metrics import check_same
from coldtune.metrics.protocol import Protocol
from coldtune.studies.insight.paired_noise import read_paired_noise, shares_network
from coldtune.studies.insight.sample import Values
from coldtune.studies.search.objective import NFE, Objective
from coldtune.studies.search.settled import LEAST
from coldtune.studies.storage.record import StudyRecord, TrialRecord
from coldtune.studies.storage.settings import Setting, Spread
from coldtune.studies.trials.reading import StudyReader

_NOT_ADAPTIVE = ("grid", "random", "qmc")  # algorithms of `search.algorithm`


@dataclass(frozen=True)
class SettingFacts:
    """A setting that has finished trainings.

    Attributes:
        number: Its number. With one replicate, that of its finished trial.
        point: Its values by short name.
        values: By training, the values of the objectives.
        metrics: By training, all metrics.
        rungs: By training, the metrics at each rung.
    """

    number: int
    point: Mapping[str, Any]
    values: Values
    metrics: tuple[Mapping[str, float], ...] = ()
    rungs: tuple[Mapping[int, Mapping[str, float]], ...] = ()

    def mean(self, objective: int = 0) -> float:
        """Return the mean of the objective at this place."""
        return float(np.mean([each[objective] for each in self.values]))

    def spread(self, metric: str) -> Spread | None:
        """Return the spread of a metric. None if some training lacks it."""
        values = [each[metric] for each in self.metrics if each.get(metric) is not None]
        return Spread.of(values) if values and len(values) == len(self.metrics) else None

    def rung(self, step: int, metric: str) -> float | None:
        """Return the mean of a metric at a rung. None if some training lacks it."""
        values = [each[step][metric] for each in self.rungs if metric in each.get(step, {})]
        return float(np.mean(values)) if values and len(values) == len(self.rungs) else None


@dataclass(frozen=True)
class StudyFacts:
    """A study, for everything that is said about it as a whole.

    Attributes:
        name, home: Of the study, for commands that a user may copy.
        objectives: The objectives, the first one first.
        settings: The settings with finished trainings, in the order in which they were asked. A setting with a pruned
            training is left out.
        paths: The dotted key of each short name.
        distributions: The distribution of each short name that varies, whether or not it has a single value.
        searched: Whether the study chooses its points. A list of variants and a grid choose nothing.
        adaptive: Whether the study chooses points by the values of earlier points, as TPE does.
        replicated: Whether settings have several trainings, so that numbers mean settings and not trials.
        race: Whether settings get unequal numbers of trainings by plan.
        rung_metric: The metric at rungs.
        steps: The steps of the rungs.
        pruned: The numbers of the pruned trials or settings that were not promoted.
        ended: How many trials have ended, without those that were asked again.
        failures: The reasons of the failed trials that were not asked again.
        protocol: The protocol of the values. None if nothing was measured.
        mixed: How the protocols of the values differ. "" if all values may be compared.
        running: Whether trials are still to be run or asked, because the study has not ended.
        paired_noise: The noise over images if all settings share a network (`paired_noise`). None if it is not known,
            or if each setting has a network of its own.
    """

    name: str
    home: Path
    objectives: tuple[Objective, ...]
    settings: tuple[SettingFacts, ...]
    paths: Mapping[str, str] = field(default_factory=dict)
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    searched: bool = True
    adaptive: bool = False
    replicated: bool = False
    race: bool = False
    rung_metric: str = "kid"
    steps: tuple[int, ...] = ()
    pruned: tuple[int, ...] = ()
    ended: int = 0
    failures: tuple[str, ...] = ()
    protocol: Protocol | None = None
    mixed: str = ""
    running: bool = False
    paired_noise: float | None = None

    @property
    def what(self) -> str:
        """The meaning of a number: `setting` or `trial`."""
        return "setting" if self.replicated else "trial"

    @property
    def _judged(self) -> int:
        """The place of the objective that judges images: the first one that is no cost."""
        return next((place for place, each in enumerate(self.objectives) if each.metric != NFE), 0)

    @property
    def objective(self) -> Objective:
        """The first objective that judges images, whatever the order in which the space lists its objectives."""
        return self.objectives[self._judged]

    @property
    def sign(self) -> int:
        """1 if smaller values of `objective` are better, and otherwise -1."""
        return 1 if self.objective.direction == "minimize" else -1

    def mean(self, setting: SettingFacts) -> float:
        """Return the mean of `objective` of a setting."""
        return setting.mean(self._judged)

    def ranked(self) -> list[SettingFacts]:
        """Return the settings from the best to the worst mean of `objective`."""
        return sorted(self.settings, key=lambda each: (self.sign * self.mean(each), each.number))

    def means(self) -> list[float]:
        """Return the mean of `objective` of each setting. Smaller is better."""
        return [self.sign * self.mean(each) for each in self.settings]

    def noise(self) -> tuple[float, str] | None:
        """Return by how much the mean of a setting varies (sd) without any change of the setting, and the source.

        It is the spread between trainings, if settings have several. Otherwise it is that over images, which is half
        the width of the intervals divided by 1.96. Settings that share a network have the same images, and their noise
        is that of differences. None if neither is known.
        """
        several = [[values[self._judged] for values in each.values] for each in self.settings if len(each.values) > 1]
        variances = [(float(np.var(values, ddof=1)), len(values)) for values in several]
        if variances:
            degrees = sum(count - 1 for _, count in variances)
            variance = sum(each * (count - 1) for each, count in variances) / degrees
            count = float(np.mean([len(each.values) for each in self.settings]))
            return float((variance / count) ** 0.5), "between trainings"
        if self.paired_noise is not None:
            return self.paired_noise, "over the same images"
        low, high = (f"{self.objective.metric}_{end}" for end in ("low", "high"))
        widths = [
            (each[high] - each[low]) / 2 / 1.96
            for setting in self.settings
            for each in setting.metrics
            if each.get(low) is not None and each.get(high) is not None
        ]
        return (float(np.median(widths)), "over images") if widths else None

    def command(self, verb: str, *names: object, flags: tuple[object, ...] = ()) -> str:
        """Return a command about this study that a user may copy."""
        return f"`{coldtune_command(verb, self.home, self.name, *names, flags=flags)}`"


def observe(reader: StudyReader, home: Path) -> StudyFacts:
    """Read the facts of a study from its storage."""
    spec, space = reader.spec, reader.space
    counted = [each for each in reader.settings() if each.finished and not each.pruned]
    records = {trial.number: TrialRecord.of(trial) for each in counted for trial in each.finished.values()}
    rungs = spec.base.get("rungs") or {}
    protocols = [protocol for each in records.values() if (protocol := each.judged_under) is not None]
    states = Counter(trial.state for trial in reader.trials())
    searched = space.size is None and spec.search.algorithm != "grid"
    paired = None
    if searched and len(spec.objectives) == 1 and len(counted) >= LEAST and shares_network(counted):
        paired = read_paired_noise(reader, sorted(counted, key=reader.rank_setting), spec.objective.metric)
    return StudyFacts(
        name=reader.study.study_name,
        home=home,
        objectives=spec.objectives,
        settings=tuple(_facts_of(each, records, reader.replicated) for each in counted),
        paths=dict(space.paths),
        distributions=dict(space.distributions),
        searched=searched,
        adaptive=space.size is None and spec.search.algorithm not in _NOT_ADAPTIVE,
        replicated=reader.replicated,
        race=spec.race is not None,
        rung_metric=str(rungs.get("metric", "kid")),
        steps=tuple(rungs.get("steps", ())),
        pruned=_pruned(reader),
        ended=reader.ended(),
        failures=tuple((TrialRecord.of(trial).reason.splitlines() or [""])[0] for trial in reader.failed()),
        protocol=protocols[0] if protocols else None,
        mixed=_difference(protocols),
        running=bool(states[TrialState.RUNNING] or states[TrialState.WAITING]) or _asks_more(reader),
        paired_noise=paired,
    )


def _asks_more(reader: StudyReader) -> bool:
    """Return True if a study has asked fewer settings than it shall have, and did not end before."""
    planned = StudyRecord.of(reader.study).trials
    return planned is not None and reader.finished() < planned and not reader.settled()


def _difference(protocols: Sequence[Protocol]) -> str:
    try:
        check_same(protocols)
    except ValueError as error:
        return str(error)
    return ""


def _facts_of(setting: Setting, records: Mapping[int, TrialRecord], replicated: bool) -> SettingFacts:
    trials = list(setting.finished.values())
    known = [records[trial.number] for trial in trials]
    return SettingFacts(
        number=setting.number if replicated else trials[0].number,
        point=dict(setting.point),
        values=tuple(tuple(trial.values) for trial in trials),
        metrics=tuple(record.metrics for record in known),
        rungs=tuple(record.rungs for record in known),
    )


def _pruned(reader: StudyReader) -> tuple[int, ...]:
    settings = [each for each in reader.settings() if each.asked and not each.imported]
    continued = {each.promoted_from for each in settings}
    ended = [each for each in settings if each.pruned and each.first.number not in continued]
    if reader.replicated:
        return tuple(each.number for each in ended)
    return tuple(trial.number for each in ended for trial in each.in_state(TrialState.PRUNED).values())
