"""The effects of a design or an ablation with their intervals, from the trainings of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.table import Column, Table
from rich.text import Text

from coldtune.metrics.intervals import LEVEL, Interval
from coldtune.metrics.paired import rounded
from coldtune.metrics.registry import higher_is_better, label
from coldtune.reports.markdown import md, md_prose, md_row
from coldtune.studies.designs.effects import Effect, effects_of_ablation, effects_of_design
from coldtune.studies.space.config import VARIANT
from coldtune.studies.spec.replicates import Racing
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.trials.judging import network_of, read_training
from coldtune.studies.trials.reading import StudyReader
from coldtune.verdicts.estimate import Difference, Pair, contrast
from coldtune.verdicts.levels import LEAST, per_comparison
from coldtune.verdicts.trainings import Panel, Setting, Training

_EXACT = 1e-9  # relative: larger differences between a sum and the whole are no rounding

HEADS = {
    "effect": "effects",
    "step": "taken back one after the other",
    "alone": "alone on the base",
    "whole": "together",
    "interaction": "interactions",
}
"""The headings of the groups of effects."""


@dataclass(frozen=True)
class EstimatedEffect:
    """An effect with its estimate.

    Attributes:
        effect: The effect.
        difference: The difference of means. None if it is not known.
        interval: Its interval, which is adjusted for all effects of the study. None if trainings are missing.
        problem: Why there is no difference.
    """

    effect: Effect
    difference: Difference | None = None
    interval: Interval | None = None
    problem: str = ""

    def cells(self) -> tuple[str, str]:
        """Return the difference and its interval as text, or why there is none."""
        if self.difference is None:
            return "", self.problem
        if self.interval is None:
            return f"{self.difference.value:.3g}", ""
        value, low, high = rounded(self.interval)
        return value, f"[{low}, {high}]"


@dataclass(frozen=True)
class EffectReport:
    """The effects of a study.

    Attributes:
        metric: The metric of the differences.
        rows: The effects.
        notes: Sentences below the table.
    """

    metric: str
    rows: tuple[EstimatedEffect, ...]
    notes: tuple[str, ...]

    def table(self) -> Table:
        """Return the effects as a table for a terminal."""
        heads = (Column("effect", overflow="fold"), Column(label(self.metric), justify="right"), "95 % CI")
        table = Table(*heads, box=box.SIMPLE_HEAD)
        for group, rows in self.groups().items():
            table.add_row(Text(HEADS[group], style="bold"))
            for row in rows:
                table.add_row(*(Text(cell) for cell in ("  " + row.effect.name, *row.cells())))
        return table

    def markdown(self) -> str:
        """Return the effects as a table in Markdown, with the notes below it."""
        lines = [f"| effect | {label(self.metric)} | 95 % CI |", "|:--|--:|:--|"]
        for group, rows in self.groups().items():
            lines.append(f"| **{HEADS[group]}** | | |")
            lines += [md_row(map(md, (row.effect.name, *row.cells()))) for row in rows]
        return "\n".join([*lines, "", *(f"- {md_prose(note)}" for note in self.notes), ""])

    def groups(self) -> dict[str, list[EstimatedEffect]]:
        """Return the effects by their group, a key of `HEADS`."""
        groups: dict[str, list[EstimatedEffect]] = {}
        for row in self.rows:
            groups.setdefault(row.effect.group, []).append(row)
        return groups


def report_effects(reader: StudyReader) -> EffectReport | None:
    """Return the effects of a study's design or ablation. None if the study has neither, or no arm was measured.

    Intervals are given when no training is missing any more, so that looking earlier costs nothing. A race has none,
    because it stops by the comparisons of arms and not by the effects. All intervals together miss in at most 5 % of
    studies. An effect that the table shows twice, such as the only step of an ablation and the whole, counts once.
    """
    spec = reader.spec
    if spec.design is not None:
        effects = effects_of_design(spec.design)
    elif spec.ablation is not None:
        effects = effects_of_ablation(spec.ablation)
    else:
        return None
    metric = spec.objective.metric
    trials = trials_by_arm(reader)
    if not any(trials.values()):
        return None
    missing = count_missing(reader)
    settings, with_images = _settings(reader, trials, metric)
    family = {effect.question for effect in effects if effect.weights}
    plan = reader.plan()
    look = plan.due(reader.replicates) or plan.looks[-1]
    alpha = None if missing or spec.race is not None else plan.alpha_at(look, per_comparison(1 - LEVEL, len(family)))
    panel = Panel.of(settings)
    rows = tuple(_estimate(effect, panel, spec.comparisons.pair, alpha) for effect in effects)
    if spec.race is not None:
        return EffectReport(metric, rows, (_direction(metric), _no_intervals_in_race(spec.race)))
    wanted = reader.replicates * len(trials)
    notes = _notes(rows, missing, wanted) or _notes_of_intervals(rows, len(family), len(plan.counted), with_images)
    return EffectReport(metric, rows, (_direction(metric), *notes, *_note_of_sums(rows)))


def trials_by_arm(reader: StudyReader) -> dict[str, list[FrozenTrial]]:
    """Return the finished trials of each arm, in the order in which they were asked."""
    arms: dict[str, list[FrozenTrial]] = {name: [] for name in reader.spec.space.variants}
    for trial in reader.trials():
        if trial.state == TrialState.COMPLETE and trial.params.get(VARIANT) in arms:
            arms[trial.params[VARIANT]].append(trial)
    return arms


def count_missing(reader: StudyReader) -> int:
    """Return how many trainings of the arms still have to end. Failed trainings are not missing."""
    settings = {setting.point.get(VARIANT): setting for setting in reader.settings()}
    missing = 0
    for arm in reader.spec.space.variants:
        setting = settings.get(arm)
        missing += reader.replicates if setting is None else reader.missing(setting)
    return missing


def _settings(
    reader: StudyReader, trials: Mapping[str, Sequence[FrozenTrial]], metric: str
) -> tuple[list[Setting], bool]:
    """Return the measured arms with their trainings, and whether all of their judgements are known.

    Without a judgement, or for a metric without influences, only the values are known. Then no training has a part of
    the images, because the parts of the others could not be compared with it.
    """
    found = {arm: [_training(reader, trial, metric) for trial in those] for arm, those in trials.items()}
    known = all(training is not None for those in found.values() for training in those)
    settings = []
    for arm, those in trials.items():
        trainings = found[arm] if known else [_value(reader, trial, metric) for trial in those]
        # A trial that was asked again uses the network of the first: it counts once.
        distinct = {training.network: training for training in trainings if training is not None}
        if distinct:
            settings.append(Setting(arm, tuple(distinct.values())))
    return settings, known


def _training(reader: StudyReader, trial: FrozenTrial, metric: str) -> Training | None:
    """Return the training of a trial. None without a judgement in the store, or without influences of the metric."""
    try:
        return read_training(trial, metric, _seed(reader, trial), reader.local_folder)
    except (KeyError, OSError, ValueError):
        return None


def _value(reader: StudyReader, trial: FrozenTrial, metric: str) -> Training | None:
    value = TrialRecord.of(trial).metrics.get(metric)
    return None if value is None else Training(value, torch.zeros(2), _seed(reader, trial), network_of(trial))


def _seed(reader: StudyReader, trial: FrozenTrial) -> int:
    return reader.config(trial).training.seed


def _estimate(effect: Effect, panel: Panel, pair: Pair, alpha: float | None) -> EstimatedEffect:
    if effect.problem:
        return EstimatedEffect(effect, problem=effect.problem)
    if not effect.weights:
        return EstimatedEffect(effect, problem="0, because both settings are the same trial")
    if absent := [arm for arm in effect.weights if arm not in panel.settings]:
        return EstimatedEffect(effect, problem=f"no training of {absent[0]} has finished")
    difference = contrast(panel, effect.weights, pair)
    if alpha is None or difference.least == 1:
        return EstimatedEffect(effect, difference)
    return EstimatedEffect(effect, difference, difference.interval(alpha))


def _no_intervals_in_race(race: Racing) -> str:
    return (
        "A race stops by the comparisons of its arms, so effects have no intervals. A fixed number of trainings "
        f"(replicates: {race.most}) has them"
    )


def _direction(metric: str) -> str:
    better = "larger" if higher_is_better(metric) else "smaller"
    return f"Differences of mean {label(metric)}, of which {better} is better"


def _notes(rows: Sequence[EstimatedEffect], missing: int, wanted: int) -> list[str]:
    """Return why there are no intervals. An empty list if there are intervals."""
    if missing:
        return [f"{wanted - missing} of {wanted} trainings, no intervals yet"]
    if any(row.difference is not None and row.difference.least == 1 for row in rows):
        return ["An arm has a single training, so the differences are those of networks and not of settings"]
    return []


def _notes_of_intervals(rows: Sequence[EstimatedEffect], family: int, looks: int, with_images: bool) -> list[str]:
    counts = [count for row in rows if row.difference is not None for count in row.difference.counts.values()]
    if not counts:
        return []
    least, most = min(counts), max(counts)
    trainings = f"{least}" if least == most else f"{least} to {most}"
    notes = [] if least >= LEAST else [f"{least} trainings of an arm are too few for a verdict about settings"]
    different = "different " if family < sum(row.difference is not None for row in rows) else ""
    adjusted = f"{family} {different}effect{'s' * (family > 1)}{f' and {looks} looks' if looks > 1 else ''}"
    over = "trainings and images" if with_images else "trainings"
    return [*notes, f"Intervals are over {over}, with {trainings} trainings of each arm, adjusted for {adjusted}"]


def _note_of_sums(rows: Sequence[EstimatedEffect]) -> list[str]:
    """Return why the steps of an ablation do not sum to the whole, if they do not."""
    values = {group: [row.difference for row in rows if row.effect.group == group] for group in ("step", "whole")}
    known = {group: [each.value for each in those if each is not None] for group, those in values.items()}
    if len(known["whole"]) != 1 or len(known["step"]) < len(values["step"]):
        return []
    (whole,), steps = known["whole"], known["step"]
    if math.isclose(sum(steps), whole, rel_tol=_EXACT, abs_tol=_EXACT * max(map(abs, steps))):
        return []
    return [
        "Trainings of some arms are missing, and arms of the same networks are compared by their common trainings. So "
        "the steps do not sum exactly to the whole"
    ]
