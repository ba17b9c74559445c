"""The table of sets of images that were judged under the same protocol: for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from coldtune.config import plain
from coldtune.metrics import (
    DISTANCES,
    IMAGE_SCORES,
    Comparison,
    Judgement,
    Protocol,
    Value,
    check_same,
    higher_is_better,
)
from coldtune.metrics.intervals import Interval
from coldtune.reports.tables import ANY_WIDTH, MISSING, Printed

NFE = "nfe"
# The columns in order. A table that is too wide for a terminal is split between the groups first.
GROUPS = (tuple(DISTANCES), (*IMAGE_SCORES, NFE))
HEADS = {"fid_infinity": "FID∞", "precision": "precision", "recall": "recall"}
_GAP = 2
_LEAST_LABEL = 16  # characters of the labels at the left
_DIFFERENCE, _OF = "difference ", " of "  # in the names of columns


@dataclass(frozen=True, eq=False)
class JudgedSet:
    """A set of images, which becomes a row of the table.

    Attributes:
        name: The key of the set in the JSON record.
        label: The text at the left of its row.
        judgement: Its metrics under the protocol.
        nfe: The network evaluations for each image, or None if unknown.
    """

    name: str
    label: str
    judgement: Judgement
    nfe: int | None = None


@dataclass(frozen=True)
class EvaluationTable:
    """A table of judged sets for a terminal of any width. Print it with rich.

    If a single table does not fit, the image scores follow below the distances, in as many tables as necessary. So no
    number is ever cut.
    """

    title: str
    labels: list[str]
    columns: dict[str, list[Printed]]
    foot: list[str]
    groups: Sequence[Sequence[str]] = GROUPS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables and the lines below them, laid out for the width of the console."""
        yield Text(self.title, style="bold")
        for part in self._parts(console, options):
            yield self._table(part, options.max_width)
        for line in self.foot:
            yield Text(line, style="dim")

    def _parts(self, console: Console, options: ConsoleOptions) -> list[list[str]]:
        """Return the columns of each table: all in a single table if they fit, otherwise each group in few tables."""

        def fits(names: Sequence[str]) -> bool:
            wide = options.update(max_width=ANY_WIDTH)
            return console.measure(self._table(names, options.max_width), options=wide).maximum <= options.max_width

        everything = list(self.columns)
        groups = [[name for name in everything if name in group] for group in self.groups]
        if fits(everything) or groups[1] == [NFE]:
            groups = [everything]
        parts: list[list[str]] = []
        for group in groups:
            parts.append([])
            for name in group:
                if parts[-1] and not fits([*parts[-1], name]):
                    parts.append([])
                parts[-1].append(name)
        return [part for part in parts if part]

    @cached_property
    def _widest(self) -> int:
        """The characters of the widest column of figures."""
        widths = [len(_head(name)) for name in self.columns]
        for cells in self.columns.values():
            widths.append(max(len(cell.value) for cell in cells) + max(len(f" {cell.interval}") for cell in cells))
        return max(widths, default=0)

    def _table(self, names: Sequence[str], width: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP, 0, 0))
        # A label is the name of a run, which people copy. It is only wrapped if the widest figure needs the room.
        table.add_column("", overflow="fold", max_width=max(_LEAST_LABEL, width - self._widest - 2 * _GAP))
        for name in names:
            table.add_column(_head(name), no_wrap=True)
        widths = {name: max(len(cell.value) for cell in self.columns[name]) for name in names}
        for i, label in enumerate(self.labels):
            cells = [(self.columns[name][i], widths[name]) for name in names]
            shown = [Text.assemble(cell.value.rjust(width), (f" {cell.interval}", "dim")) for cell, width in cells]
            table.add_row(Text(label), *shown)
        return table

    def markdown(self) -> str:
        """Return the table as GitHub's Markdown, with the lines below it as a list."""
        rows = [["", *map(_head, self.columns)], [":--", *("--:" for _ in self.columns)]]
        rows += [[label, *(str(cells[i]) for cells in self.columns.values())] for i, label in enumerate(self.labels)]
        lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
        heading = [f"**{self.title}**", ""] if self.title else []
        return "\n".join([*heading, *lines, "", *(f"- {line}" for line in self.foot), ""])


def evaluation_table(sets: Sequence[JudgedSet], title: str = "") -> EvaluationTable:
    """Return the table with a row for each set. Metrics that no set has get no column.

    Raises:
        ValueError: If the protocols of the sets differ. The message names the parts that differ.
    """
    protocol = _protocol(sets)
    columns: dict[str, list[Printed]] = {}
    for name in (name for group in GROUPS for name in group):
        cells = [_nfe(item.nfe) if name == NFE else _cell(item.judgement.values.get(name)) for item in sets]
        if any(cell.value != MISSING for cell in cells):
            columns[name] = cells
    return EvaluationTable(title, [item.label for item in sets], columns, _foot(protocol, NFE in columns))


def runs_table(
    runs: Mapping[str, Sequence[JudgedSet]], own: str, comparisons: Sequence[Comparison], about: Sequence[str] = ()
) -> EvaluationTable:
    """Return the table with a row for each run, which compares the runs with the first of them.

    A column such as `ΔFID` has the paired differences. FIDs of the other sets of images follow if they are not equal
    in all runs.

    Args:
        runs: The sets of images of each run, by its name.
        own: The name of the set that each run is judged by.
        comparisons: The comparisons of the runs' own sets with that of the first run.
        about: Lines about the runs, which stand below the table.

    Raises:
        ValueError: If the protocols of the sets differ.
    """
    protocol = _protocol([item for sets in runs.values() for item in sets])
    by_name = {run: {item.name: item for item in sets} for run, sets in runs.items()}
    first, differences = next(iter(runs)), {(item.metric, item.a): item.difference for item in comparisons}
    columns: dict[str, list[Printed]] = {}
    for metric in (*DISTANCES, *IMAGE_SCORES):
        columns[metric] = [_cell(sets[own].judgement.values.get(metric)) for sets in by_name.values()]
        columns[f"{_DIFFERENCE}{metric}"] = [_cell(differences.get((metric, run))) for run in runs]
    columns[NFE] = [_nfe(sets[own].nfe) for sets in by_name.values()]
    shown = {name: cells for name, cells in columns.items() if any(cell.value != MISSING for cell in cells)}
    others = {item.name: item.label for item in runs[first] if item.name != own}
    for name, label in others.items():
        cells = [_cell(sets[name].judgement.values.get("fid")) for sets in by_name.values()]
        if len(set(cells)) > 1:
            shown[f"fid{_OF}{label}"] = cells
        else:
            about = [*about, f"FID {label} in all: {cells[0]}"]
    compared = f"Δ: the run minus {first}, image by image"
    groups = [[name for name in shown if name.removeprefix(_DIFFERENCE) in group] for group in GROUPS]
    groups.append([f"fid{_OF}{label}" for label in others.values()])
    foot = [*_foot(protocol, NFE in shown), compared, *about]
    return EvaluationTable("sampled images of each run", list(runs), shown, foot, groups)


def evaluation_markdown(sets: Sequence[JudgedSet], title: str = "") -> str:
    """Return the table of `evaluation_table` as GitHub's Markdown, with the lines below it as a list.

    Raises:
        ValueError: If the protocols of the sets differ.
    """
    return evaluation_table(sets, title).markdown()


def evaluation_record(sets: Sequence[JudgedSet]) -> dict[str, Any]:
    """Return the values of the sets with intervals and N, the protocol and its key, ready for JSON.

    A value or bound that is not finite is written as text. For example, the PSNR of images without error is "inf".

    Raises:
        ValueError: If the protocols of the sets differ.
    """
    protocol = _protocol(sets)
    return {
        "protocol": plain(protocol),
        "protocol_key": protocol.key,
        "sets": {
            item.name: {
                "label": item.label,
                "nfe": item.nfe,
                "metrics": {name: _value_record(value) for name, value in item.judgement.values.items()},
            }
            for item in sets
        },
    }


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Return a paired comparison with its sentences, ready for JSON."""
    return {
        "a": comparison.a,
        "b": comparison.b,
        "metric": comparison.metric,
        "difference": _written(comparison.difference.value),
        "low": _written(comparison.difference.low),
        "high": _written(comparison.difference.high),
        "better": comparison.better,
        "n": comparison.protocol.num_images,
        "protocol_key": comparison.protocol.key,
        "score": comparison.score,
        "wins": comparison.wins,
        "p_value": comparison.p_value,
        "sentence": str(comparison),
        "per_image": comparison.per_image(),
    }


def _protocol(sets: Sequence[JudgedSet]) -> Protocol:
    protocols = [item.judgement.protocol for item in sets]
    check_same(protocols)
    return protocols[0]


def _foot(protocol: Protocol, nfe: bool) -> list[str]:
    key = "[low, high]: 95 % interval; ↓ the lower the better, ↑ the higher"
    lines = [f"{key}; NFE: network evaluations for each image" if nfe else key, protocol.describe()]
    n, least = min(protocol.num_images, protocol.reference_images), 4 * protocol.dim
    if n < least:
        note = f"N = {n:,} < 4 d = {least:,}: FID's bias may rank an over-smoothed set first; KID has no bias"
        lines.insert(0, note)
    return lines


def _head(name: str) -> str:
    if name.startswith(_DIFFERENCE):
        return f"Δ{_head(name.removeprefix(_DIFFERENCE))}"
    if _OF in name:
        metric, _, images = name.partition(_OF)
        return f"{_head(metric)} {images}"
    head = HEADS.get(name, name.upper())
    return head if name == NFE else f"{head} {'↑' if higher_is_better(name) else '↓'}"


def _nfe(count: int | None) -> Printed:
    return Printed(MISSING if count is None else f"{count:,}")


def _cell(value: Value | Interval | None) -> Printed:
    """Format a value and its interval.

    The last decimal shown is the first or second digit of the interval's half width. A value without an interval, or
    with an interval of no width, has 3 digits.
    """
    if value is None:
        return Printed(MISSING)
    half = _half_width(value)
    if half is None:
        return Printed(_three_digits(value.value))
    decimals = max(-math.floor(math.log10(half / 5)), 0)
    shown, low, high = (_rounded(x, decimals) for x in (value.value, value.low, value.high))
    return Printed(shown, f"[{low}, {high}]")


def _half_width(value: Value | Interval) -> float | None:
    """Return half the width of the value's interval, or None if it is missing, zero or infinite."""
    if value.low is None or value.high is None:
        return None
    half = (value.high - value.low) / 2
    return half if math.isfinite(half) and half > 0 else None


def _rounded(x: float | None, decimals: int) -> str:
    return "" if x is None else f"{round(x, decimals) + 0.0:,.{decimals}f}"  # + 0.0: never -0


def _three_digits(value: float) -> str:
    if not math.isfinite(value):
        return "∞" if value > 0 else str(value)
    if value == 0:
        return "0"
    decimals = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(decimals, 0), 6)}f}"


def _value_record(value: Value) -> dict[str, Any]:
    numbers = {"value": value.value, "low": value.low, "high": value.high}
    return {**{name: _written(number) for name, number in numbers.items()}, "n": value.n}


def _written(number: float | None) -> float | str | None:
    """Return the number for JSON, which has no infinity."""
    return number if number is None or math.isfinite(number) else str(number)
