"""The cells of `coldtune grid`: the trial that represents each setting, and its images in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import check_same
from coldtune.reports.matrix import Axis
from coldtune.studies.progress.text import STATE_NAMES, mean_and_sd, metric_name
from coldtune.studies.space.distributions import write_value
from coldtune.studies.space.space import Space
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.storage.settings import Setting, Spread
from coldtune.studies.trials.reading import StudyReader

_MOST_VALUES = 12  # of a numeric key, before its values are grouped
_GROUPS = 6
_MOST_LABELS = 60
_UNSET = "(unset)"  # the label of a key that has no effect in a trial, because its `when` is not met


@dataclass(frozen=True)
class Group:
    """Values of a key that share a row or a column.

    Attributes:
        holds: Whether the parameters of a trial belong to this group.
    """

    label: str
    holds: Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Choice:
    """The settings of a cell.

    Attributes:
        trial: The first finished training of the best setting by the mean of the first objective. It is not the best
            training, because that would show luck. None if no trial has finished.
        finished: The number of settings with finished trials.
        others: The trials of the other settings, by number.
        spread: The first objective over the finished trainings of the best setting.
        name: Returns the name of a trial for users from its number.
    """

    trial: FrozenTrial | None
    finished: int
    others: Sequence[FrozenTrial]
    spread: Spread | None = None
    name: Callable[[int], str] = str

    def describe(self) -> str:
        """Return the name of the trial, and out of how many it was chosen, or why there is no trial."""
        if self.trial is not None:
            several = f", best of {self.finished}" if self.finished > 1 else ""
            return f"trial {self.name(self.trial.number)}{several}"
        if not self.others:
            return "no trial"
        if len(self.others) > 1:
            return f"{len(self.others)} trials, none finished"
        return f"trial {self.name(self.others[0].number)} {STATE_NAMES[self.others[0].state]}"


def find_key(space: Space, flag: str, key: str) -> str:
    """Return the short name of a varied key that the user named by its short or its dotted name.

    Raises:
        ValueError: If the key does not vary. The message lists the keys that vary.
    """
    by_path = {path: name for name, path in space.paths.items()}
    name = by_path.get(key, key)
    if name not in space.distributions:
        there = ", ".join(space.distributions)
        raise ValueError(f"{flag} {key}: does not vary in this study; allowed: {there}")
    return name


def group_values(space: Space, flag: str, name: str, trials: Iterable[FrozenTrial]) -> list[Group]:
    """Return the values that trials have of a key, in the order of the space.

    Many numbers are divided into a few ranges with about as many different values each.

    Raises:
        ValueError: If there are too many values for a picture.
    """
    distribution = space.distributions[name]
    values: list[Any] = []
    unset = False
    for trial in trials:
        if name not in trial.params:
            unset = True
        elif trial.params[name] not in values:
            values.append(trial.params[name])
    if isinstance(distribution, CategoricalDistribution):
        values.sort(key=distribution.choices.index)
    else:
        values.sort()
    if len(values) > _MOST_VALUES and all(_is_number(value) for value in values):
        parts = [part for part in np.array_split(np.array(values), _GROUPS) if len(part)]
        groups = [_range(name, part[0].item(), part[-1].item()) for part in parts]
    else:
        groups = [_single(name, value) for value in values]
    if unset:
        groups.append(Group(_UNSET, lambda params: name not in params))
    if len(groups) > _MOST_LABELS:
        raise ValueError(f"{flag} {name}: has {len(groups):,} values, but at most {_MOST_LABELS} fit into a picture")
    return groups


def choose(reader: StudyReader, rows: Sequence[Group], columns: Sequence[Group]) -> list[list[Choice]]:
    """Return the trial that represents each cell: of several settings, the best by the mean of the first objective."""
    settings = [setting for setting in reader.settings() if setting.asked]
    chosen = []
    for row in rows:
        there = [setting for setting in settings if row.holds(setting.point)]
        chosen.append(
            [_choice(reader, [setting for setting in there if column.holds(setting.point)]) for column in columns]
        )
    return chosen


def axis(name: str | None, groups: Sequence[Group]) -> Axis:
    """Return an axis with the labels of its groups."""
    return Axis([group.label for group in groups], name or "")


def everything() -> list[Group]:
    """Return the single group of an axis that no key was named for."""
    return [Group("", lambda params: True)]


def protocol_of(study: str, choices: Iterable[Choice]) -> Protocol:
    """Return the protocol under which all chosen trials were judged, so that image i is the same in all of them.

    Raises:
        ValueError: If no trial has finished, or if the protocols differ.
    """
    records = [TrialRecord.of(choice.trial) for choice in choices if choice.trial is not None]
    protocols = [record.judged_under for record in records]
    found = [protocol for protocol in protocols if protocol is not None]
    if not found:
        raise ValueError(f"study {study}: none of its trials has finished, so there is nothing to show")
    check_same(found)
    return found[0]


def describe_value(reader: StudyReader, choice: Choice) -> str:
    """Return the first objective of a choice, for example `FID 1.03`, or `FID 1.03 ± 0.20 (5)` of five trainings."""
    assert choice.spread is not None
    spread, name = choice.spread, metric_name(reader.spec.objective.metric)
    return f"{name} {mean_and_sd(spread)}{f' ({spread.n})' * (spread.sd is not None)}"


def _choice(reader: StudyReader, settings: Sequence[Setting]) -> Choice:
    finished = [setting for setting in settings if setting.finished]
    others = [trial for setting in settings if not setting.finished for trial in setting.trials.values()]
    if not finished:
        return Choice(None, 0, others, name=reader.label)
    best = min(finished, key=reader.rank_setting)
    return Choice(next(iter(best.finished.values())), len(finished), others, Spread.of(best.values()), reader.label)


def _single(name: str, value: Any) -> Group:
    return Group(_text(value), lambda params: name in params and params[name] == value)


def _range(name: str, low: float, high: float) -> Group:
    label = _text(low) if low == high else f"{_text(low)} to {_text(high)}"
    return Group(label, lambda params: name in params and low <= params[name] <= high)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else write_value(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
