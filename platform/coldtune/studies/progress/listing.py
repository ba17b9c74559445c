"""A study in a line: when it ran, how its trials ended, what varies and what is best so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune.stages.trial import short_name
from coldtune.studies.drivers.election import Driver
from coldtune.studies.progress.text import STATE_NAMES, metric_name, value_and_interval
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.record import TrialRecord, is_imported
from coldtune.studies.storage.settings import Spread
from coldtune.studies.trials.reading import StudyReader, read_study

INTERRUPTED = "interrupted"
STATES = ("finished", "pruned", "failed", INTERRUPTED, "running")
_TAIL = 0.975  # of Student's t, for a 95 % interval


@dataclass(frozen=True)
class BestValue:
    """The best value of the first objective.

    Attributes:
        number: The number of the trial or setting.
        value: The value of a trial, or the mean over the trainings of a setting.
        low: The lower end of the 95 % interval. None if it is not known.
        high: The upper end.
        trainings: The number of trainings behind the value. With one, the interval is about the images that were
            judged. With more, the interval of the mean is about the trainings.
    """

    metric: str
    number: int
    value: float
    low: float | None = None
    high: float | None = None
    trainings: int = 1

    def describe(self, replicated: bool) -> str:
        """Return the value in words, as a trial or, for a study with replicates, as a setting."""
        who = f"trial {self.number}"
        if replicated:
            who = f"setting {self.number}, {self.trainings} training{'s' * (self.trainings != 1)}"
        return f"{metric_name(self.metric)} {value_and_interval(self.value, self.low, self.high)} ({who})"


@dataclass(frozen=True)
class StudySummary:
    """A study as a list of studies shows it.

    Attributes:
        trials: How many trials the study asks in all. With replicates, how many settings.
        ended: How many of them have ended.
        settled: Whether the study ended before its last trial, because its search had settled.
        imported: How many trials came from other studies.
        trainings: How many trainings have ended. Without replicates, that is `ended`.
        states: How many trials (with replicates: trainings) are in each of `STATES`. A failed trial that was asked
            again does not count.
        varies: The dotted keys that the study searches.
        variants: The names of the settings that the study lists.
        started: When the first trial began. None if no trial was asked.
        changed: When a trial last began or ended.
        drivers: The drivers that run the study now.
    """

    name: str
    dataset: str
    trials: int
    ended: int
    settled: bool
    imported: int
    replicates: int
    replicated: bool
    trainings: int
    states: Mapping[str, int]
    varies: Sequence[str]
    variants: Sequence[str]
    objectives: Mapping[str, str]
    best: BestValue | None
    started: datetime | None
    changed: datetime | None
    drivers: Sequence[Driver]

    def record(self) -> dict[str, Any]:
        """Return the summary for JSON, with the keys that docs/studies.md explains."""
        best = self.best
        return {
            "name": self.name,
            "dataset": self.dataset,
            "started": self.started,
            "changed": self.changed,
            "trials": self.trials,
            "ended": self.ended,
            "settled": self.settled,
            "imported": self.imported,
            "replicates": self.replicates,
            "trainings": self.trainings,
            "states": dict(self.states),
            "varies": list(self.varies),
            "variants": list(self.variants),
            "objectives": [{"metric": name, "direction": way} for name, way in self.objectives.items()],
            "best": None
            if best is None
            else {
                "setting" if self.replicated else "trial": best.number,
                "metric": best.metric,
                "value": best.value,
                "low": best.low,
                "high": best.high,
                "trainings": best.trainings,
            },
            "drivers": [
                {
                    "host": driver.process["host"],
                    "pid": driver.process["pid"],
                    "since": datetime.fromtimestamp(driver.started, UTC),
                }
                for driver in self.drivers
            ],
        }

    def ended_text(self) -> str:
        """Return how many trials have ended, with imported trials and trainings."""
        text = f"{self.ended}" + (f" + {self.imported} imported" if self.imported else "")
        text += ", settled" * self.settled
        return f"{text} ({self.trainings} trainings)" if self.replicated else text

    def states_text(self) -> str:
        """Return the states of the trials, for example `10 finished, 2 pruned`."""
        return ", ".join(f"{count} {state}" for state, count in self.states.items() if count) or "-"

    def varies_text(self) -> str:
        """Return what varies: short names of keys, and how many listed settings there are."""
        listed = [f"{len(self.variants)} variants"] if self.variants else []
        return ", ".join([*map(short_name, self.varies), *listed]) or "-"


def summarize(folder: StudyFolder) -> StudySummary:
    """Read a study for the list of studies. ValueError or OSError if it cannot be read."""
    return summarize_reader(read_study(folder), folder)


def summarize_reader(reader: StudyReader, folder: StudyFolder) -> StudySummary:
    """Return the summary of a study that is already open."""
    own = [trial for trial in reader.trials() if not is_imported(trial) and trial.state != TrialState.WAITING]
    config = reader.space.config
    return StudySummary(
        name=folder.name,
        dataset=str(reader.spec.base["data"]["name"]),
        trials=int(folder.start()["trials"]),
        ended=reader.finished(),
        settled=reader.settled(),
        imported=reader.imported(),
        replicates=reader.replicates,
        replicated=reader.replicated,
        trainings=reader.ended(),
        states=_count(reader, own),
        varies=list(config.varied),
        variants=list(config.variants),
        objectives={objective.metric: objective.direction for objective in reader.spec.objectives},
        best=find_best_value(reader),
        started=min(_times(trial.datetime_start for trial in own), default=None),
        changed=max(
            _times(time for each in own for time in (each.datetime_start, each.datetime_complete)), default=None
        ),
        drivers=reader.lease.others(),
    )


def find_best_value(reader: StudyReader) -> BestValue | None:
    """Return the best trial or setting by the first objective, with its interval.

    None if none has finished, or if their values were judged under several protocols, so that none is the best.
    """
    best, metric = reader.best_setting(), reader.spec.objective.metric
    if best is None or _mixes_protocols(reader):
        return None
    spread = Spread.of(best.values())
    if spread.error is not None:
        from scipy.special import stdtrit  # imported late, because it takes a while

        half = float(stdtrit(spread.n - 1, _TAIL)) * spread.error
        return BestValue(metric, best.number, spread.mean, spread.mean - half, spread.mean + half, spread.n)
    metrics = TrialRecord.of(next(iter(best.finished.values()))).metrics
    return BestValue(metric, best.number, spread.mean, metrics.get(f"{metric}_low"), metrics.get(f"{metric}_high"))


def _mixes_protocols(reader: StudyReader) -> bool:
    distinct: list[TrialRecord] = []
    for trial in reader.trials():
        record = TrialRecord.of(trial)
        if record.protocol and all(record.protocol != other.protocol for other in distinct):
            distinct.append(record)
    keys = {protocol.key for record in distinct if (protocol := record.judged_under) is not None}
    return len(keys) > 1


def _count(reader: StudyReader, own: Sequence[FrozenTrial]) -> dict[str, int]:
    interrupted, retried = set(reader.interrupted()), reader.retried()
    states = dict.fromkeys(STATES, 0)
    for trial in own:
        if trial.number not in retried:
            states[INTERRUPTED if trial.number in interrupted else STATE_NAMES[trial.state]] += 1
    return states


def _times(times: Iterable[datetime | None]) -> list[datetime]:
    """Return the known times. Optuna's times are local times without a time zone."""
    return [time.astimezone(UTC) for time in times if time is not None]
