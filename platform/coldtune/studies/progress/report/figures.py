"""The figures of a study, as data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from coldtune.metrics.registry import higher_is_better, label
from coldtune.reports.page.document import (
    BACKGROUND,
    Axis,
    Chart,
    Estimate,
    Figure,
    Forest,
    Line,
    Parallel,
    Path,
    Point,
)
from coldtune.studies.designs.effect_report import EffectReport
from coldtune.studies.progress.report.content import StudyContent, write
from coldtune.studies.progress.text import metric_name, spread_value, value_and_interval
from coldtune.studies.search.objective import NFE
from coldtune.studies.space.config import VARIANT
from coldtune.studies.spec.pruning_checks import rungs_of
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.storage.settings import Setting, Spread
from coldtune.verdicts.levels import LEAST

_MOST_ROWS = 12  # of a forest plot
_MOST_EFFECTS = 24
_MOST_KEYS = 16  # with a slice each
_MOST_PATHS = 300  # of parallel coordinates
_MOST_CURVES = 200
_WIDE_RANGE = 20  # a larger ratio of the largest to the smallest value is shown on a logarithmic axis
_BEST = "best tenth"
_FRONT = "not beaten by another"


def headline(content: StudyContent) -> Figure | None:
    """Return the figure that shows the answer. None if nothing has finished."""
    if not content.ranked:
        return None
    if len(content.spec.objectives) > 1:
        return next(pareto_charts(content), None)
    if content.effects is not None and any(row.difference is not None for row in content.effects.rows):
        return effects_forest(content.effects)
    return ranking(content)


def search_figures(content: StudyContent) -> Iterator[Figure]:
    """Yield the figures of the search, without those that would be empty."""
    several = len(content.spec.objectives) > 1
    if len(content.ranked) > 1 and content.reader.space.size is None:
        yield from (_history(content, metric) for metric in content.judging_objectives)
    if several:
        yield from itertools.islice(pareto_charts(content), 1, None)  # the first is the headline
    if (chart := _quality_against_cost(content)) is not None:
        yield chart
    yield from _slices(content)
    if (parallel := _parallel(content)) is not None:
        yield parallel
    if (curves := _learning_curves(content)) is not None:
        yield curves


def effects_forest(report: EffectReport) -> Forest:
    """Return the effects of a design with their intervals."""
    rows = []
    for row in report.rows:
        if row.difference is None:
            continue
        low, high = (None, None) if row.interval is None else (row.interval.low, row.interval.high)
        enough = row.difference.least >= LEAST
        certain = enough and row.interval is not None and row.interval.excludes_zero
        group = "differs from 0" if certain else "not told apart from 0" if enough else "too few trainings"
        rows.append(
            Estimate(row.effect.name, row.difference.value, " ".join(filter(None, row.cells())), low, high, (), group)
        )
    shown, metric = rows[:_MOST_EFFECTS], label(report.metric)
    judged = [row for row in rows if row.low is not None and row.group != "too few trainings"]
    certain_ones = sum(row.group == "differs from 0" for row in judged)
    summary = f"{len(rows)} effect{'s' * (len(rows) != 1)} on mean {metric}."
    if judged:
        summary += f" {certain_ones} of {len(judged)} differ{'s' * (certain_ones == 1)} from 0."
    else:
        intervals = any(row.low is not None for row in rows)
        summary += " There are too few trainings for verdicts." if intervals else " There are no intervals yet."
    more = f" {len(rows) - len(shown)} more effects are in the table." * (len(rows) > len(shown))
    better = "larger" if higher_is_better(report.metric) else "smaller"
    axis = Axis(f"difference of mean {metric} ({better} is better)")
    return Forest("Effects", summary, axis, tuple(shown), zero=True, note=f"Lines are 95 % intervals.{more}")


def ranking(content: StudyContent) -> Forest:
    """Return the best settings and the base, with the spread of their trainings or their intervals over images."""
    alike = {setting.number: more for setting, more in content.leaders}
    shown = [setting for setting, _ in content.leaders[:_MOST_ROWS]]
    if content.base is not None and content.base in content.ranked and content.base not in shown:
        shown = [*shown[: _MOST_ROWS - 1], content.base]
    metric, replicated = content.objective, content.reader.replicated
    name, better = metric_name(metric), "larger" if higher_is_better(metric) else "smaller"
    rivals = set(content.table.bold) if len(content.table.bold) > 1 else set()
    rows = tuple(_ranked_row(content, setting, rivals, alike.get(setting.number, 0)) for setting in shown)
    best = content.ranked[0]
    summary = f"{len(shown)} of {len(content.ranked):,} {content.what}s by {name}, the best first: {rows[0].label}, "
    summary += f"{rows[0].text}."
    if content.base is not None and content.base in shown and content.base.number != best.number:
        summary += f" The base has {rows[shown.index(content.base)].text}."
    note = (
        "Filled marks are means, circles are single trainings, and lines reach a standard deviation to both sides."
        if replicated
        else "Lines are 95 % intervals over images. They say how well a network was measured, and nothing about other "
        "trainings of the same setting."
    )
    values = [value for row in rows for value in (row.value, *row.each)]
    return Forest(f"{content.what.capitalize()}s by {name}", summary,
                  Axis(f"{name} ({better} is better)", _is_wide(values)), rows, note=note)  # fmt: skip


def _ranked_row(content: StudyContent, setting: Setting, rivals: set[int], alike: int) -> Estimate:
    metric = content.objective
    spread = Spread.of(setting.values())
    group = "" if not rivals else "not told apart from the best" if setting.number in rivals else "other settings"
    name = content.label(setting) + f" and {alike:,} with the same images" * (alike > 0)
    if content.reader.replicated:
        reach = spread.sd or 0.0
        low, high = (spread.mean - reach, spread.mean + reach) if spread.sd is not None else (None, None)
        return Estimate(name, spread.mean, spread_value(spread), low, high, tuple(setting.values()), group)
    interval = content.interval(setting, metric)
    low, high = interval or (None, None)
    text = f"{metric_name(metric)} {value_and_interval(spread.mean, low, high)}"
    return Estimate(name, spread.mean, text, low, high, (), group)


def _history(content: StudyContent, metric: str) -> Chart:
    """Return an objective of each setting in the order of the search."""
    ordered = sorted(content.ranked, key=lambda setting: setting.number)
    sign = -1 if higher_is_better(metric) else 1
    points: list[Point] = []
    steps: list[tuple[float, float]] = []
    best, reached = math.inf, ordered[0].number
    for setting in ordered:
        value = content.value(setting, metric)
        if value is None:
            continue
        points.append(Point(setting.number, value, content.describe(setting, metrics=[metric]), "finished"))
        if sign * value < best:
            steps += [(float(setting.number), sign * best)] if steps else []
            best, reached = sign * value, setting.number
            steps.append((float(setting.number), value))
    last = max(setting.number for setting in ordered)
    steps.append((float(last), sign * best))
    values = [point.y for point in points]
    name, what = metric_name(metric), content.what
    missing = len(content.settings) - len(ordered)
    summary = (
        f"{len(points):,} {what}s. The best {name} after the first {what} was {points[0].y:.4g}, "
        f"and is {sign * best:.4g} now, reached by {what} {reached}."
    )
    are = f"{what} without a final {name} is" if missing == 1 else f"{what}s without a final {name} are"
    note = f"{missing} {are} left out." if missing else ""
    line = Line("best so far", tuple(steps), "best so far")
    return Chart(f"{name} in the order of the search", summary, Axis(what), Axis(name, _is_wide(values)),
                 tuple(points), (line,), note)  # fmt: skip


def pareto_charts(content: StudyContent) -> Iterator[Chart]:
    """Yield a chart for each two objectives, with the settings that no other beats in all objectives."""
    metrics = [objective.metric for objective in content.spec.objectives]
    front = {setting.number for setting in content.reader.front()}
    for first, second in itertools.combinations(metrics, 2):
        yield _trade_off(content, second, first, front, f"{metric_name(first)} against {metric_name(second)}")


def _quality_against_cost(content: StudyContent) -> Chart | None:
    """Return an objective against the network evaluations.

    None if all settings have the same number of evaluations, or if that number is an objective, which has a front.
    """
    costs = {content.value(setting, NFE) for setting in content.ranked}
    if len(costs - {None}) < 2 or any(objective.metric == NFE for objective in content.spec.objectives):
        return None
    metric = content.objective
    return _trade_off(content, NFE, metric, set(), f"{metric_name(metric)} against NFE")


def _trade_off(content: StudyContent, across: str, up: str, front: set[int], title: str) -> Chart:
    points = []
    for setting in content.ranked:
        x, y = content.value(setting, across), content.value(setting, up)
        if x is None or y is None:
            continue
        low, high = content.reach(setting, up) or (None, None)
        x_low, x_high = content.reach(setting, across) or (None, None)
        group = _FRONT if setting.number in front else "finished" if front else _sampler(setting)
        text = content.describe(setting, metrics=[up, across])
        points.append(Point(x, y, text, group, low, high, x_low, x_high))
    points.sort(key=lambda point: point.group != _FRONT)  # so the front always has the first colour
    best = sorted((point.x, point.y) for point in points if point.group == _FRONT)
    # Of three objectives, the front is a surface, and a line through its points would mean nothing.
    flat = len(content.spec.objectives) == 2
    lines = (Line("front", tuple(best), _FRONT),) if len(best) > 1 and flat else ()
    names = metric_name(across), metric_name(up)
    xs, ys = [point.x for point in points], [point.y for point in points]
    summary = f"{len(points):,} {content.what}s."
    if points:
        summary += f" {names[1]} from {min(ys):.4g} to {max(ys):.4g}, {names[0]} from {min(xs):.4g} to {max(xs):.4g}."
    if front:
        verb = "is" if len(front) == 1 else "are"
        summary += f" {len(front)} {verb} not beaten in all objectives by another."
    meaning = (
        "reach a standard deviation of the trainings to both sides"
        if content.reader.replicated
        else "are 95 % intervals over images"
    )
    intervals = any(point.low is not None or point.x_low is not None for point in points)
    note = f"Lines through points {meaning}." if intervals else ""
    axes = (Axis(names[0], _is_wide(xs)), Axis(names[1], _is_wide(ys)))
    return Chart(title, summary, *axes, tuple(points), lines, note)


def _sampler(setting: Setting) -> str:
    """Return the sampler of a setting if it varies, because it decides the cost."""
    return str(setting.point.get("sampler", "finished"))


def _slices(content: StudyContent) -> Iterator[Chart]:
    """Yield the objectives over each key that varies."""
    space = content.reader.space
    if space.size is not None or len(content.ranked) < 2:
        return
    varied = [name for name, each in space.distributions.items() if not each.single()]
    for metric, name in itertools.product(content.judging_objectives, varied[:_MOST_KEYS]):
        if (chart := _slice(content, name, space.distributions[name], metric)) is not None:
            yield chart


def _slice(content: StudyContent, name: str, distribution: BaseDistribution, metric: str) -> Chart | None:
    axis = _axis(name, distribution)
    points = []
    for setting in content.ranked:
        value = content.value(setting, metric)
        if name in setting.point and value is not None:
            at = _place(setting.point[name], distribution)
            points.append(Point(at, value, content.describe(setting, name, [metric]), "finished"))
    if len(points) < 2:
        return None
    missing = len(content.ranked) - len(points)
    verb = "do" if missing > 1 else "does"
    note = f"{missing} {content.what}{'s' * (missing > 1)} {verb} not have this key." if missing else ""
    ys = [point.y for point in points]
    best = (max if higher_is_better(metric) else min)(points, key=lambda point: point.y)
    where = axis.choices[int(best.x)] if axis.choices else f"{best.x:.4g}"
    summary = (
        f"{len(points):,} {content.what}s. The best of them has {name} {where} and {metric_name(metric)} {best.y:.4g}."
    )
    return Chart(f"{metric_name(metric)} over {name}", summary, axis, Axis(metric_name(metric), _is_wide(ys)),
                 tuple(points), (), note)  # fmt: skip


def _parallel(content: StudyContent) -> Parallel | None:
    """Return all keys and the objectives side by side. None for a study that has fewer than two keys."""
    space = content.reader.space
    keys = {
        name: each
        for name, each in space.distributions.items()
        if (name != VARIANT or space.config.vary) and not each.single()
    }
    if len(keys) < 2 or len(content.ranked) < 3 or space.size is not None:
        return None
    keys = dict(list(keys.items())[:_MOST_KEYS])
    metrics = [objective.metric for objective in content.spec.objectives]
    if len(metrics) > 1:
        front = {setting.number for setting in content.reader.front()}
        best = [setting for setting in content.ranked if setting.number in front]
        group_of_best, said = _FRONT, f"the {len(best)} not beaten in all objectives by another"
    else:
        best = content.ranked[: max(1, round(len(content.ranked) / 10))]
        group_of_best, said = _BEST, f"the best {len(best)}"
    chosen = {setting.number for setting in best}
    rest = [setting for setting in content.ranked if setting.number not in chosen]
    every = -(-len(rest) // _MOST_PATHS) or 1
    paths = []
    for group, members in ((group_of_best, best[:_MOST_PATHS]), (BACKGROUND, rest[::every])):
        for setting in members:
            places = [
                _place(setting.point[name], each) if name in setting.point else None for name, each in keys.items()
            ]
            values = (content.value(setting, metric) for metric in metrics)
            paths.append(Path((*places, *values), content.describe(setting, metrics=metrics), group))
    axes = (*(_axis(name, each) for name, each in keys.items()), *(_metric_axis(content, each) for each in metrics))
    summary = f"The keys of {len(paths):,} of {len(content.ranked):,} {content.what}s. In colour: {said}."
    missing = any(value is None for path in paths for value in path.values)
    note = "A line below an axis has no value there, because the key has no effect." * missing
    return Parallel("Keys side by side", summary, axes, tuple(paths), note)


def _learning_curves(content: StudyContent) -> Chart | None:
    """Return the metric at the rungs of each training. None for a study without rungs."""
    rungs = rungs_of(content.spec)
    curves = []
    for trial in content.reader.trials():
        known = TrialRecord.of(trial).rungs
        points = tuple(
            (float(step), float(known[step][rungs.metric])) for step in sorted(known) if rungs.metric in known[step]
        )
        if points:
            pruned = trial.state == TrialState.PRUNED
            group = "pruned" if pruned else "finished" if trial.state == TrialState.COMPLETE else "not ended"
            curves.append((points, group, f"trial {content.reader.label(trial.number)}"))
    if not curves:
        return None
    every = -(-len(curves) // _MOST_CURVES)
    shown = curves[::every]
    lines = [Line(f"{name} ({group})", points, group) for points, group, name in shown if len(points) > 1]
    marks = [
        Point(x, y, f"{name} ({group}) at step {x:,.0f}: {rungs.metric.upper()} {y:.4g}", group)
        for points, group, name in shown
        for x, y in points
    ]
    name, ended = rungs.metric.upper(), sum(group == "pruned" for _, group, _ in curves)
    summary = f"{name} at the rungs of {len(shown)} of {len(curves)} trainings"
    summary += f", of which {ended} {'was' if ended == 1 else 'were'} pruned."
    note = f"Rungs have fewer images than the end of a training. So {name} here is not the {name} of a table."
    ys = [mark.y for mark in marks]
    return Chart("Learning curves", summary, Axis("training step"), Axis(f"{name} at the rung", _is_wide(ys)),
                 tuple(marks), tuple(lines), note)  # fmt: skip


def _metric_axis(content: StudyContent, metric: str) -> Axis:
    values = (content.value(setting, metric) for setting in content.ranked)
    return Axis(metric_name(metric), _is_wide([value for value in values if value is not None]))


def _axis(name: str, distribution: BaseDistribution) -> Axis:
    if isinstance(distribution, CategoricalDistribution):
        return Axis(name, choices=tuple(write(choice) for choice in distribution.choices))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return Axis(name, log=distribution.log)


def _place(value: Any, distribution: BaseDistribution) -> float:
    """Return the coordinate of a value: itself, or its place among the choices."""
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.choices.index(value))
    return float(value)


def _is_wide(values: Sequence[float]) -> bool:
    """Return True for positive values over such a range that only a logarithmic axis shows them all."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > _WIDE_RANGE * min(finite)
