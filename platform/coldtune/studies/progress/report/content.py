"""The study as all parts of its report see it, read once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune.reports.tables import TrialRow
from coldtune.studies.designs.effect_report import EffectReport, report_effects
from coldtune.studies.progress.results import describe_ended
from coldtune.studies.progress.table import TableContent, table_content
from coldtune.studies.progress.text import metric_name
from coldtune.studies.search.objective import NFE
from coldtune.studies.space.config import VARIANT
from coldtune.studies.space.distributions import write_value
from coldtune.studies.spec.confirmation import JOB
from coldtune.studies.spec.folder import StudyFolder, studies
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.storage.settings import Setting, Spread
from coldtune.studies.trials.judging import base_point, have_same_images
from coldtune.studies.trials.reading import StudyReader

_MOST_PARAMS = 8  # of a setting, in the text of a point


@dataclass(frozen=True)
class StudyContent:
    """A study, its table, and the options of its last start.

    Attributes:
        start: The content of its start.json.
        equal_within: A difference of the first objective that does not matter. None takes that of the spec.
    """

    reader: StudyReader
    folder: StudyFolder
    start: Mapping[str, Any]
    equal_within: float | None = None

    @property
    def spec(self) -> StudySpec:
        """The definition of the study."""
        return self.reader.spec

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.folder.name

    @cached_property
    def table(self) -> TableContent:
        """The content of the table, with its verdicts."""
        return table_content(self.reader, equal_within=self.equal_within)

    @cached_property
    def effects(self) -> EffectReport | None:
        """The effects of a design. None if there are none."""
        return report_effects(self.reader)

    @property
    def planned(self) -> int:
        """The number of trials or settings that the study shall have."""
        return max(int(self.start["trials"]), self.reader.finished())

    @property
    def state(self) -> str:
        """The progress of the study, such as `7 of 12 trials ended`."""
        said = describe_ended(self.planned, self.reader)
        early = self.reader.settled() and self.reader.finished() < self.planned
        return f"{said}, and no more are asked, because the search has settled" if early else said

    @cached_property
    def complete(self) -> bool:
        """True if all trials of the study have ended."""
        reader = self.reader
        running = reader.states().get(TrialState.RUNNING) or reader.race_goes_on()
        return (reader.finished() >= self.planned or reader.settled()) and not running

    @property
    def what(self) -> str:
        """The name of a row of the table: `trial` or `setting`."""
        return self.table.what

    @property
    def objective(self) -> str:
        """The metric of the first objective."""
        return self.spec.objective.metric

    @property
    def judging_objectives(self) -> list[str]:
        """The metrics of the objectives that judge images. The cost of a sampler is left out, if there is another."""
        metrics = [objective.metric for objective in self.spec.objectives]
        return [metric for metric in metrics if metric != NFE] or metrics[:1]

    @cached_property
    def settings(self) -> dict[int, Setting]:
        """The settings that were asked, by number. Without replicates, a setting is a trial."""
        if not self.reader.replicated:
            asked = (trial for trial in self.reader.trials() if trial.state != TrialState.WAITING)
            return {trial.number: Setting(trial.number, trial, {0: trial}) for trial in asked}
        return {setting.number: setting for setting in self.reader.settings() if setting.asked}

    @cached_property
    def ranked(self) -> list[Setting]:
        """The settings with a mean of the first objective, from the best on.

        Settings with too few trainings to be called the best follow, and so do those that are out of a race.
        """
        measured = [each for each in self.settings.values() if each.finished and not each.pruned]
        first = {}
        if self.reader.replicated:
            first = {each.number: place for place, each in enumerate(self.reader.ranked_settings())}
        return sorted(measured, key=lambda each: (first.get(each.number, len(first)), self.reader.rank_setting(each)))

    @cached_property
    def leaders(self) -> list[tuple[Setting, int]]:
        """The settings from the best on, each with the number of further settings that gave the same images."""
        leaders: list[tuple[Setting, int]] = []
        for setting in self.ranked:
            if leaders and have_same_images(leaders[-1][0], setting):
                leaders[-1] = (leaders[-1][0], leaders[-1][1] + 1)
            else:
                leaders.append((setting, 0))
        return leaders

    @cached_property
    def rows(self) -> list[TrialRow]:
        """The rows of the table: measured rows from the best on, then all others by number."""
        place = {setting.number: i for i, setting in enumerate(self.ranked)}
        return sorted(self.table.rows, key=lambda row: (place.get(row.number, len(place)), row.number))

    @cached_property
    def base(self) -> Setting | None:
        """The setting of the base, if it was asked."""
        point = base_point(self.reader.space)
        return next((setting for setting in self.settings.values() if dict(setting.point) == point), None)

    @cached_property
    def confirmations(self) -> list[StudyFolder]:
        """The studies of the home that confirm this search."""
        prefix = JOB.format(search=self.name)
        found = []
        for other in studies(self.folder.home):
            with suppress(ValueError, OSError):  # an unreadable study must not hide the others
                if other.name.startswith(prefix) and (record := other.spec().confirmation) is not None:
                    found += [other] if record.study == self.name else []
        return found

    def value(self, setting: Setting, metric: str) -> float | None:
        """Return a metric of a setting, the mean over its trainings. None if it was not measured."""
        objectives = [objective.metric for objective in self.spec.objectives]
        if metric in objectives:  # the value that the search knows, even if a record has lost it
            return Spread.of(setting.values(objectives.index(metric))).mean if setting.finished else None
        spread = setting.spread(metric)
        return None if spread is None else spread.mean

    def interval(self, setting: Setting, metric: str) -> tuple[float, float] | None:
        """Return the 95 % interval of a setting of a single training over images. None if it is not known."""
        if self.reader.replicated or not setting.finished:
            return None
        metrics = TrialRecord.of(self.first(setting)).metrics
        low, high = metrics.get(f"{metric}_low"), metrics.get(f"{metric}_high")
        return None if low is None or high is None or math.isnan(low) or math.isnan(high) else (low, high)

    def reach(self, setting: Setting, metric: str) -> tuple[float, float] | None:
        """Return the ends of the line through a point: its interval, or a standard deviation to both sides.

        None if they are not known, or if no training changes the metric.
        """
        if not self.reader.replicated:
            return self.interval(setting, metric)
        spread = setting.spread(metric)
        return None if spread is None or not spread.sd else (spread.mean - spread.sd, spread.mean + spread.sd)

    def first(self, setting: Setting) -> FrozenTrial:
        """Return the first finished training of a setting."""
        return next(iter(setting.finished.values()))

    def label(self, setting: Setting) -> str:
        """Return the name of a setting in figures: that of its variant, or its number. The base is marked."""
        point = setting.point
        name = str(point[VARIANT]) if list(point) == [VARIANT] else f"{self.what} {setting.number}"
        is_base = self.base is not None and setting.number == self.base.number
        return f"{name} (base)" if is_base and name != "base" else name

    def describe(self, setting: Setting, only: str | None = None, metrics: Sequence[str] = ()) -> str:
        """Return the name of a setting with its metrics and its values.

        Args:
            only: The only key whose value is shown. None shows all keys.
            metrics: The metrics. Empty stands for the first objective.
        """
        known = [(metric, self.value(setting, metric)) for metric in dict.fromkeys(metrics or (self.objective,))]
        said = ", ".join(f"{metric_name(metric)} {value:.4g}" for metric, value in known if value is not None)
        return f"{self.what} {setting.number}: {'; '.join(filter(None, (said, self.describe_values(setting, only))))}"

    def describe_values(self, setting: Setting, only: str | None = None) -> str:
        """Return the values of a setting, or the name of its variant alone.

        Args:
            only: As in `describe`.
        """
        point = setting.point
        if list(point) == [VARIANT]:
            return str(point[VARIANT])
        values = [f"{name} {write(value)}" for name, value in point.items() if only in (None, name)]
        return ", ".join([*values[:_MOST_PARAMS], *(["..."] if len(values) > _MOST_PARAMS else [])])


def write(value: Any) -> str:
    """Return a value as the file of a space writes it, in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else write_value(value)
