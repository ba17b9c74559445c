"""The cells of `coldtune grid`: the trial that represents each setting, and its images in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from coldtune.config import plain
from coldtune.dotted import leaves
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import check_same
from coldtune.reports.matrix import Axis
from coldtune.stages.trial import VARIANT, short_name
from coldtune.studies.progress.text import STATE_NAMES, mean_and_sd, metric_name
from coldtune.studies.space.distributions import write_value
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.storage.settings import Setting, Spread
from coldtune.studies.trials.reading import StudyReader

_MOST_VALUES = 12  # of a numeric key, before its values are grouped
_GROUPS = 6
_MOST_LABELS = 60
_UNSET = "(unset)"  # the label of a key that has no effect in a trial, because its `when` is not met


@dataclass(frozen=True)
class Key:
    """A key that varies between the settings of a study.

    Attributes:
        name: Its short name.
        values: Its value by number of a setting. A setting in which the key has no effect is left out.
        order: The order of the values, as far as the study states it.
    """

    name: str
    values: Mapping[int, Any]
    order: Sequence[Any] = ()


@dataclass(frozen=True)
class Group:
    """Values of a key that share a row or a column.

    Attributes:
        holds: Whether the setting of a number belongs to this group.
    """

    label: str
    holds: Callable[[int], bool]


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


def find_key(reader: StudyReader, flag: str, key: str) -> Key:
    """Return the key that the user named by its short or its dotted name.

    A key varies if the search varies it, if variants or the arms of a design differ in it, or if it is derived.

    Raises:
        ValueError: If the key does not vary. The message lists the keys that vary.
    """
    space, settings = reader.space, _asked(reader)
    name = {path: name for name, path in space.paths.items()}.get(key, key)
    if (distribution := space.distributions.get(name)) is not None:
        values = {each.number: each.point[name] for each in settings if name in each.point}
        return Key(name, values, distribution.choices if isinstance(distribution, CategoricalDistribution) else ())
    differing = _differing(reader, settings)
    for path, values in differing.items():
        if key in (path, short_name(path)):
            factors = reader.spec.design.factors if reader.spec.design else {}
            return Key(short_name(path), values, factors[path].levels if path in factors else ())
    there = ", ".join([*space.distributions, *map(short_name, differing)])
    raise ValueError(f"{flag} {key}: does not vary in this study; allowed: {there}")


def _asked(reader: StudyReader) -> list[Setting]:
    return [setting for setting in reader.settings() if setting.asked]


def _differing(reader: StudyReader, settings: Sequence[Setting]) -> dict[str, dict[int, Any]]:
    """Return the values of all keys that the search does not vary, and in which settings differ, by dotted key."""
    trees = {each.number: dict(leaves(plain(reader.space.resolve(each.point)))) for each in settings}
    paths = dict.fromkeys(path for tree in trees.values() for path in tree)
    found = {path: {number: tree[path] for number, tree in trees.items() if path in tree} for path in paths}
    if (design := reader.spec.design) is not None:  # it knows in which arms a factor has an effect
        arms = {each.number: design.arms[each.point[VARIANT]] for each in settings}
        for path in design.factors:
            found[path] = {number: levels[path] for number, levels in arms.items() if path in levels}
    varied = set(reader.space.paths.values())
    return {
        path: values
        for path, values in found.items()
        if path not in varied and (len(values) < len(trees) or len(set(map(repr, values.values()))) > 1)
    }


def group_values(reader: StudyReader, flag: str, key: Key) -> list[Group]:
    """Return the values that the settings have of a key, in the order of the study. Numbers are sorted.

    Many numbers are divided into a few ranges with about as many different values each.

    Raises:
        ValueError: If there are too many values for a picture.
    """
    values: list[Any] = []
    for value in key.values.values():
        if value not in values:
            values.append(value)
    numeric = all(_is_number(value) for value in values)
    if key.order:
        values.sort(key=list(key.order).index)
    elif numeric:
        values.sort()
    if len(values) > _MOST_VALUES and numeric:
        parts = [part for part in np.array_split(np.array(values), _GROUPS) if len(part)]
        groups = [_range(key, part[0].item(), part[-1].item()) for part in parts]
    else:
        groups = [_single(key, value) for value in values]
    if len(key.values) < len(_asked(reader)):
        groups.append(Group(_UNSET, lambda number: number not in key.values))
    if len(groups) > _MOST_LABELS:
        raise ValueError(
            f"{flag} {key.name}: has {len(groups):,} values, but at most {_MOST_LABELS} fit into a picture"
        )
    return groups


def choose(reader: StudyReader, rows: Sequence[Group], columns: Sequence[Group]) -> list[list[Choice]]:
    """Return the trial that represents each cell: of several settings, the best by the mean of the first objective."""
    settings = _asked(reader)
    chosen = []
    for row in rows:
        there = [setting for setting in settings if row.holds(setting.number)]
        chosen.append(
            [_choice(reader, [setting for setting in there if column.holds(setting.number)]) for column in columns]
        )
    return chosen


def axis(key: Key | None, groups: Sequence[Group]) -> Axis:
    """Return an axis with the labels of its groups."""
    return Axis([group.label for group in groups], key.name if key else "")


def everything() -> list[Group]:
    """Return the single group of an axis that no key was named for."""
    return [Group("", lambda number: True)]


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


def _single(key: Key, value: Any) -> Group:
    return Group(_text(value), lambda number: number in key.values and key.values[number] == value)


def _range(key: Key, low: float, high: float) -> Group:
    label = _text(low) if low == high else f"{_text(low)} to {_text(high)}"
    return Group(label, lambda number: number in key.values and low <= key.values[number] <= high)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else write_value(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
