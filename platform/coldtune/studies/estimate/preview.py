"""The preview of a study before it runs: the space as a table, sampled points, and the cost."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from coldtune.durations import format_estimate
from coldtune.metrics.protocol import Protocol
from coldtune.stages.trial import short_name
from coldtune.studies.estimate.timing import Timing
from coldtune.studies.search.sampler import listed_points
from coldtune.studies.space.config import VARIANT, Vary
from coldtune.studies.space.distributions import write_value
from coldtune.studies.space.space import Space
from coldtune.studies.spec.study import StudySpec

MOST_DRAWN = 300
"""The number of points from which the cost of a study is estimated at most. More would take longer than they help."""


def likely(space: Space, spec: StudySpec, trials: int) -> list[dict[str, Any]]:
    """Return points that a study would ask: the listed points, or else the first points and uniform draws.

    Of a study of many trials, it returns only the first `MOST_DRAWN`.
    """
    listed, count = listed_points(space, spec.search, spec.seed), min(trials, MOST_DRAWN)
    return listed[:count] if listed is not None else _points(space, count, space.enqueued)


def preview(
    space: Space,
    protocol: Protocol,
    timing: Timing,
    costs: Sequence[str],
    about: Sequence[str] = (),
    count: int = 10,
) -> RenderableType:
    """Return the space as a table, sampled points with the cost of each alone, and the cost of the whole study.

    Args:
        costs: The cost of the trials that the study would ask, and of its confirmation, a line each.
        about: Lines that are shown first.
        count: How many points are shown.
    """
    points = _points(space, count)
    alone = [timing.seconds(space.resolve(point), protocol.num_images) for point in points]
    lines = [
        f"\nthe space: {_size(space)}",
        f"this machine trains {timing.images_per_s:,.0f} images/s and evaluates {timing.evaluations_per_s:,.0f} a "
        "second with the base's restorer, on the threads of one trial",
        *costs[:-1],
        f"{costs[-1]}, without judging and start-up, and without what the store has already",
    ]
    parts = [Text("\n".join(about)), Text()] if about else []
    return Group(*parts, _space_table(space), Text(), _points_table(space, points, alone), Text("\n".join(lines)))


def _points(space: Space, count: int, first: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return `first` or the point of the base, then feasible points that are drawn uniformly."""
    if space.size is not None:
        return [{VARIANT: name} for name in list(space.config.variants)[:count]]
    rng = random.Random(0)
    points = [dict(point) for point in first or [space.first]][:count]
    for _ in range(200 * count):
        if len(points) == count:
            break
        point = space.sample(rng)
        if space.feasible(point) and point not in points:
            points.append(point)
    return points


def _size(space: Space) -> str:
    if space.size is not None:
        return f"{space.size} variants"
    share = f"{space.feasible_share():.0%} of it may be asked"
    try:
        return f"{len(space.grid()):,} points as a grid, {share}"
    except ValueError:  # no grid: a range without steps
        count = len(space.distributions)
        return f"{'1 continuous key' if count == 1 else f'{count} keys, some of them continuous'}, {share}"


def _space_table(space: Space) -> Table:
    table = _folding_table(*SPACE_HEADS)
    for row in describe_space(space):
        table.add_row(*row)
    return table


SPACE_HEADS = ("key", "in tables", "values", "only where")
"""The headings of the rows of `describe_space`."""


def describe_space(space: Space) -> Iterator[tuple[str, str, str, str]]:
    """Yield for each key of a space its path, its name in tables, its values, and where it has an effect."""
    if space.config.variants:
        yield VARIANT, VARIANT, ", ".join(space.config.variants), ""
    for path, vary in space.vary.items():
        where = ", ".join(f"{key} is {' or '.join(map(write_value, values))}" for key, values in vary.when.items())
        yield path, short_name(path), _values(vary), where
    for path, derive in space.config.derive.items():
        yield path, short_name(path), f"derived: holds {derive.hold} at {space.targets[path]:.3g}", ""
    for name, bound in space.config.constrain.items():
        yield name, "", f"kept {bound}", ""


def _values(vary: Vary) -> str:
    if vary.choices is not None:
        return ", ".join(map(_written, vary.choices))
    step = f", in steps of {vary.step:g}" if vary.step else ""
    return f"{vary.low:g} to {vary.high:g}{step}{', logarithmic' if vary.log else ''}"


def _points_table(space: Space, points: list[dict[str, Any]], costs: list[float]) -> Table:
    names = list(space.distributions)
    table = _folding_table("", *names, "about")
    for number, (point, seconds) in enumerate(zip(points, costs, strict=True)):
        cells = [_shown(point, name) for name in names]
        table.add_row("base" if not number else "", *cells, format_estimate(seconds))
    return table


def _folding_table(*heads: str) -> Table:
    """Return a table in which a word that is too long for its column goes on in the next line."""
    return Table(*(Column(head, overflow="fold") for head in heads), box=None, pad_edge=False)


def _shown(point: Mapping[str, Any], name: str) -> str:
    return _written(point[name]) if name in point else ""


def _written(value: Any) -> str:
    """Return a value as the space file writes it, with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else write_value(value)
