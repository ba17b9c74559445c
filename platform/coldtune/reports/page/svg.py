"""Figures as static SVG. The style sheet of the page gives every mark its colour."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coldtune.reports.escape import escape
from coldtune.reports.page.document import BACKGROUND, Chart, Estimate, Figure, Forest, Line, Parallel, Point
from coldtune.reports.page.scales import Scale, shorten, shorten_all

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 28, 48
_ROW = 44  # of a forest plot
_SLANT, _SLANTED_WIDTH = 84, 18  # the room below an axis for slanted labels, and the width of each
_MERGE = 3.0  # units: points of a series that are closer than this are drawn once
_MOST_INTERVALS = 120  # points with an interval, before the intervals would hide the points
_MOST_NAMED = 4  # texts of points that are drawn as one
_VALUE, _LINE = 32, 54  # characters of a value, and of a row with its label, in a forest plot

SERIES = 6
"""The number of series with a colour and a shape of their own."""


@dataclass(frozen=True)
class Drawing:
    """A figure as SVG.

    Attributes:
        svg: The element.
        groups: The names of the series, in the order of their colours and shapes.
        lines: The series that only have lines.
        wide: True if the figure needs the whole width of the page.
        notes: Sentences about marks that are not drawn.
    """

    svg: str
    groups: tuple[str, ...]
    lines: frozenset[str] = frozenset()
    wide: bool = False
    notes: tuple[str, ...] = ()


def draw(figure: Figure, name: str) -> Drawing:
    """Draw a figure.

    Args:
        name: The prefix of its ids. No other figure of the page may have it.
    """
    if isinstance(figure, Chart):
        return _draw_chart(figure, name)
    if isinstance(figure, Forest):
        return _draw_forest(figure, name)
    return _draw_parallel(figure, name)


def draw_sign(group: int, line: bool) -> str:
    """Return the sign of a series for a legend: its line, or its mark. Screen readers skip it."""
    sign = '<path class="l" d="M1 8H15"/>' if line else _mark(8, 8, group, 4.5, "")
    return f'<svg class="g{group}" viewBox="0 0 16 16" aria-hidden="true" focusable="false">{sign}</svg>'


def is_faint(group: str) -> bool:
    """Return True for the series of the background. It has no entry in a legend."""
    return group == BACKGROUND


def _element(figure: Figure, name: str, width: float, height: float, body: Iterable[str]) -> str:
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {width:g} {height:g}" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(figure.title)}</title><desc id="{name}-d">{escape(figure.summary)}</desc>'
        f"{''.join(body)}</svg>"
    )


def _groups(names: Iterable[str]) -> dict[str, int]:
    """Return the number of each series. The number chooses the colour and the shape."""
    seen = dict.fromkeys(name for name in names if not is_faint(name))
    return {name: place % SERIES for place, name in enumerate(seen)}


def _class(group: str, numbers: dict[str, int]) -> str:
    return "gf" if is_faint(group) else f"g{numbers[group]}"


def _draw_chart(figure: Chart, name: str) -> Drawing:
    points = figure.points
    xs = [x for point in points for x in (point.x, point.x_low, point.x_high) if x is not None]
    xs += [x for line in figure.lines for x, _ in line.points]
    ys = [y for point in points for y in (point.y, point.low, point.high) if y is not None]
    ys += [y for line in figure.lines for _, y in line.points]
    x = Scale.of(figure.x, xs, _LEFT, _WIDTH - _RIGHT)
    y = Scale.of(figure.y, ys, _HEIGHT - _BOTTOM, _TOP)
    slanted = bool(figure.x.choices) and len(_spaced(x.ticks, x)) < len(x.ticks)
    numbers = _groups([*(point.group for point in points), *(line.group for line in figure.lines)])
    marks = _merged(points, x, y)
    notes = []
    of_points = {point.group for point in points}
    below = [line for line in figure.lines if line.group in of_points]
    body = [*_axes(figure, x, y, slanted), *(_line(line, x, y, numbers) for line in below)]
    shown, hidden = _with_intervals(marks)
    body += [_interval(each, x, y, numbers) for each in shown]
    if hidden:
        notes.append(f"The intervals of {hidden:,} points are not drawn, because they would hide the points.")
    body += [_point(each, numbers) for each in marks]
    # A line of its own, such as the best value so far, would be hidden by many points.
    body += [_line(line, x, y, numbers) for line in figure.lines if line.group not in of_points]
    if any(each.count > 1 for each in marks):
        notes.append("Points at the same place are drawn once.")
    svg = _element(figure, name, _WIDTH, _HEIGHT + _SLANT * slanted, body)
    lines = frozenset(numbers) - of_points
    return Drawing(svg, tuple(group for group in numbers if group), lines, notes=tuple(notes))


@dataclass(frozen=True)
class _Mark:
    """A drawn point. It may stand for several points."""

    x: float
    y: float
    point: Point
    text: str
    count: int


def _merged(points: Sequence[Point], x: Scale, y: Scale) -> list[_Mark]:
    """Return the marks of all points on the axes, a single mark for points that would cover each other.

    Small series come last, so they lie over large ones, such as a front among all other settings.
    """
    sizes = Counter(point.group for point in points)
    cells: dict[tuple[str, int, int], list[tuple[float, float, Point]]] = {}
    for point in points:
        at_x, at_y = x.at(point.x), y.at(point.y)
        if at_x is not None and at_y is not None:
            cell = (point.group, round(at_x / _MERGE), round(at_y / _MERGE))
            cells.setdefault(cell, []).append((at_x, at_y, point))
    marks = []
    for members in cells.values():
        at_x, at_y, first = members[0]
        texts = [point.text for _, _, point in members[:_MOST_NAMED]]
        more = len(members) - len(texts)
        text = "; ".join([*texts, *([f"{more} more"] if more else [])])
        marks.append(_Mark(at_x, at_y, first, text, len(members)))
    return sorted(marks, key=lambda mark: (-sizes[mark.point.group], mark.x))


def _axes(figure: Chart, x: Scale, y: Scale, slanted: bool) -> list[str]:
    """Return the axes.

    Args:
        slanted: Whether the labels of choices are slanted, because they do not fit beside each other.
    """
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value, label in y.ticks:
        at = y.at(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 5:.1f}" text-anchor="end">{escape(label)}</text>')  # type: ignore[operator]
    for value, label in _spaced(x.ticks, x, _SLANTED_WIDTH if slanted else None):
        at = x.at(value)
        place = f'x="{at:.1f}" y="{bottom + 18}" text-anchor="middle"'
        if slanted:
            place = f'transform="translate({at:.1f} {bottom + 14}) rotate(-50)" text-anchor="end"'
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        parts.append(f"<text {place}>{escape(label)}</text>")
    log = {True: " (log scale)", False: ""}
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    parts.append(f'<text class="strong" x="4" y="15">{escape(shorten(figure.y.label, 44))}{log[figure.y.log]}</text>')
    label = escape(shorten(figure.x.label, 44)) + log[figure.x.log]
    parts.append(
        f'<text class="strong" x="{(_LEFT + right) / 2:g}" y="{_HEIGHT - 8 + _SLANT * slanted}" '
        f'text-anchor="middle">{label}</text>'
    )
    return parts


def _spaced(ticks: Sequence[tuple[float, str]], scale: Scale, width: float | None = None) -> list[tuple[float, str]]:
    """Return the ticks whose labels do not touch each other.

    Args:
        width: The width of each label. None follows from its characters.
    """
    shown: list[tuple[float, str]] = []
    end = -1e9
    for value, label in ticks:
        at, half = scale.at(value), 4.5 * len(label) if width is None else width / 2
        if at is not None and at - half > end:
            shown.append((value, label))
            end = at + half
    return shown


def _line(line: Line, x: Scale, y: Scale, numbers: dict[str, int]) -> str:
    parts = []
    for px, py in line.points:
        at_x, at_y = x.at(px), y.at(py)
        if at_x is not None and at_y is not None:
            parts.append(f"{at_x:.1f} {at_y:.1f}")
    if not parts:
        return ""
    outline = "L".join(parts)
    return f'<path class="l t {_class(line.group, numbers)}" d="M{outline}">{_title(line.text)}</path>'


def _with_intervals(marks: Sequence[_Mark]) -> tuple[list[_Mark], int]:
    """Return the marks whose intervals are drawn, and the number of the others that have intervals.

    If there are too many, small series keep their intervals, such as a front among all other settings.
    """
    having = [each for each in marks if each.point.low is not None or each.point.x_low is not None]
    sizes, kept, room = Counter(each.point.group for each in having), set(), _MOST_INTERVALS
    for group, size in sorted(sizes.items(), key=lambda item: item[1]):
        if size <= room:
            kept.add(group)
            room -= size
    shown = [each for each in having if each.point.group in kept]
    return shown, len(having) - len(shown)


def _interval(mark: _Mark, x: Scale, y: Scale, numbers: dict[str, int]) -> str:
    point = mark.point
    up, across = _ends(y, point.low, point.high), _ends(x, point.x_low, point.x_high)
    outline = "" if up is None else f"M{mark.x:.1f} {up[0]:.1f}V{up[1]:.1f}"
    outline += "" if across is None else f"M{across[0]:.1f} {mark.y:.1f}H{across[1]:.1f}"
    return outline and f'<path class="i {_class(point.group, numbers)}" d="{outline}"/>'


def _ends(scale: Scale, low: float | None, high: float | None) -> tuple[float, float] | None:
    """Return the coordinates of the ends of an interval. None if the axis shows no part of it."""
    if low is None or high is None or math.isnan(low) or (to := scale.at(high)) is None:
        return None
    start = scale.at(low)
    return scale.start if start is None else start, to  # a logarithmic axis may begin above the lower end


def _point(mark: _Mark, numbers: dict[str, int]) -> str:
    group = mark.point.group
    number = 0 if is_faint(group) else numbers[group]
    size = 4.2 if mark.count == 1 else 5.4
    return _mark(mark.x, mark.y, number, size, f" t {_class(group, numbers)}", _title(mark.text))


def _mark(x: float, y: float, shape: int, size: float, more: str, inside: str = "") -> str:
    """Return a mark of the shape of a series, so that its colour is not needed to tell it from others."""
    if shape == 0:
        return f'<circle class="m{more}" cx="{x:.1f}" cy="{y:.1f}" r="{size:g}">{inside}</circle>'
    s = size * 1.15
    outlines = {
        1: [(0, -s), (s, s * 0.8), (-s, s * 0.8)],
        2: [(-s, -s), (s, -s), (s, s), (-s, s)],
        3: [(0, -1.3 * s), (1.3 * s, 0), (0, 1.3 * s), (-1.3 * s, 0)],
        4: [(0, s), (s, -s * 0.8), (-s, -s * 0.8)],
        5: [(-s, -s / 2.5), (s, -s / 2.5), (s, s / 2.5), (-s, s / 2.5)],
    }
    corners = "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in outlines[shape])
    return f'<path class="m{more}" d="M{corners}Z">{inside}</path>'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _draw_forest(figure: Forest, name: str) -> Drawing:
    values = [value for row in figure.rows for value in _extent(row)] + ([0.0] if figure.zero else [])
    scale = Scale.of(figure.axis, values, 12, _WIDTH - 12)
    numbers = _groups(row.group for row in figure.rows)
    bottom = _ROW * len(figure.rows) + 8
    body = []
    for value, label in _spaced(scale.ticks, scale):
        at = scale.at(value)
        body.append(f'<path class="grid" d="M{at:.1f} 4V{bottom}"/>')
        body.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(label)}</text>')
    if figure.zero and (at := scale.at(0.0)) is not None:
        body.append(f'<path class="zero" d="M{at:.1f} 4V{bottom}"/>')
    texts = [shorten(row.text, _VALUE) for row in figure.rows]
    labels = shorten_all([row.label for row in figure.rows], [_LINE - len(text) for text in texts])
    for place, (row, name_of_row, text) in enumerate(zip(figure.rows, labels, texts, strict=True)):
        body.append(_forest_row(row, name_of_row, text, _ROW * place, scale, numbers))
    label = escape(shorten(figure.axis.label, 60)) + (" (log scale)" if figure.axis.log else "")
    body.append(f'<text class="strong" x="{_WIDTH / 2:g}" y="{bottom + 38}" text-anchor="middle">{label}</text>')
    return Drawing(_element(figure, name, _WIDTH, bottom + 46, body), tuple(group for group in numbers if group))


def _extent(row: Estimate) -> list[float]:
    return [value for value in (row.value, row.low, row.high, *row.each) if value is not None]


def _forest_row(row: Estimate, label: str, text: str, top: float, scale: Scale, numbers: dict[str, int]) -> str:
    number, middle = numbers.get(row.group, 0), top + 30
    parts = [
        f'<text class="strong" x="12" y="{top + 17:g}">{escape(label)}</text>'
        f'<text x="{_WIDTH - 12}" y="{top + 17:g}" text-anchor="end">{escape(text)}</text>'
    ]
    if (ends := _ends(scale, row.low, row.high)) is not None:
        parts.append(f'<path class="i g{number}" d="M{ends[0]:.1f} {middle:g}H{ends[1]:.1f}"/>')
    for value in row.each:
        if (at := scale.at(value)) is not None:
            parts.append(f'<circle class="e g{number}" cx="{at:.1f}" cy="{middle:g}" r="4"/>')
    if (at := scale.at(row.value)) is not None:
        parts.append(_mark(at, middle, number, 5, f" t g{number}", _title(f"{row.label}: {row.text}")))
    return "".join(parts)


def _draw_parallel(figure: Parallel, name: str) -> Drawing:
    count = len(figure.axes)
    wide = count > 4
    width = max(_WIDTH, 118 * count) if wide else _WIDTH
    top, bottom, edge = 34, _HEIGHT - 26, 46
    places = [edge + (width - 2 * edge) * place / max(count - 1, 1) for place in range(count)]
    scales = [
        Scale.of(axis, [path.values[i] or 0.0 for path in figure.paths if path.values[i] is not None], bottom, top)
        for i, axis in enumerate(figure.axes)
    ]
    numbers = _groups(path.group for path in figure.paths)
    body = []
    for path in sorted(figure.paths, key=lambda path: not is_faint(path.group)):
        corners = []
        for at_x, scale, value in zip(places, scales, path.values, strict=True):
            at_y = None if value is None else scale.at(value)
            corners.append(f"{at_x:.1f} {bottom + 12 if at_y is None else at_y:.1f}")
        body.append(
            f'<path class="l t {_class(path.group, numbers)}" d="M{"L".join(corners)}">{_title(path.text)}</path>'
        )
    labels = shorten_all([axis.label for axis in figure.axes], [13] * count)
    for at_x, scale, name_of_axis in zip(places, scales, labels, strict=True):
        body.append(f'<path class="axis" d="M{at_x:.1f} {top}V{bottom}"/>')
        body.append(f'<text class="strong" x="{at_x:.1f}" y="18" text-anchor="middle">{escape(name_of_axis)}</text>')
        shown = shorten_all([label for _, label in scale.ticks], [10] * len(scale.ticks))
        for (value, _), label in zip(scale.ticks, shown, strict=True):
            at_y = scale.at(value)
            body.append(f'<text x="{at_x + 5:.1f}" y="{at_y + 5:.1f}">{escape(label)}</text>')  # type: ignore[operator]
    svg = _element(figure, name, width, _HEIGHT, body)
    names = tuple(group for group in numbers if group)
    return Drawing(svg, names, frozenset(names), wide)
