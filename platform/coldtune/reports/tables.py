"""The table of a study's trials or settings, for a terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import check_same
from coldtune.reports.markdown import md, md_prose, md_row

BEST = "★"
MISSING = "–"  # noqa: RUF001 - an en dash, as tables print it
_STYLES = {
    **dict.fromkeys(("finished", "decided"), "green"),
    **dict.fromkeys(("pruned", "undecided"), "yellow"),
    "failed": "red",
    "interrupted": "magenta",
    "running": "cyan",
}
_MAX_DECIMALS = 5
_LEAST_SAVED = 0.5  # seconds: smaller savings get no column
_SAVED = "train: seconds of its training, or found in the store; saved: seconds of work that was found, not done again"
_LEAST_SD = 1e-5  # as a share of the largest value: a smaller spread is rounding
_SPREAD = "mean ± standard deviation between trainings (number of trainings)"
_LEAST_P = 0.001
P_HEAD = ("p", "Holm")
REPEATED = ("fid_sampled", "fid_reach")
"""Metrics that repeat others for the columns of a table. Files for programs leave them out."""
ANY_WIDTH = 10_000  # characters: wider than any table, so that the measured width is not limited


@dataclass(frozen=True)
class TrialRow:
    """A trial as tables show it.

    Attributes:
        number: The number of the trial.
        state: Its state, for example "finished".
        params: The varied parameters by short name. A name that only other rows have is shown as missing.
        metrics: The values by their key in `COLUMNS`. None means not measured.
        seconds: The wall time of the trial.
        note: The reason why the trial failed or was pruned.
        protocol: The protocol of the metrics. None is allowed only if nothing was measured.
        train: The part of `seconds` that the training took, or "found" if the store had the training.
        saved: The seconds of work that the trial found in the store and did not repeat.
        spreads: For a setting, whose metrics are means: by metric, the standard deviation between its trainings (None
            for a single training) and their number.
        p_value: For a setting, the adjusted p-value of its comparison with the reference of the table.
    """

    number: int
    state: str
    params: dict[str, Any]
    metrics: dict[str, float | None] = field(default_factory=dict)
    seconds: float | None = None
    note: str = ""
    protocol: Protocol | None = None
    train: float | str | None = None
    saved: float | None = None
    spreads: dict[str, tuple[float | None, int]] = field(default_factory=dict)
    p_value: float | None = None


@dataclass(frozen=True)
class Column:
    """The column of a metric.

    Attributes:
        key: The metric's key in `TrialRow.metrics`.
        head: The heading in two lines.
        decimals: The least number of decimals.
        baseline: True if the trial's own sampler is compared with this value. A baseline that is equal in all trials
            is printed once below the table instead of in a column.
    """

    key: str
    head: tuple[str, str]
    decimals: int
    baseline: bool = False


COLUMNS = (
    Column("fid_degraded", ("FID", "degraded"), 2, baseline=True),
    Column("fid_direct", ("FID", "direct"), 2, baseline=True),
    Column("fid_sampled", ("FID", "sampled"), 2),
    Column("fid_reach", ("95 %", "±"), 2),
    Column("fid_naive", ("FID", "alg. 1"), 2, baseline=True),
    Column("ssim", ("", "SSIM"), 3),
    Column("rmse", ("", "RMSE"), 3),
    Column("nfe", ("", "NFE"), 0),
)


@dataclass(frozen=True)
class Printed:
    """A cell as text: a value, and its 95 % interval if it is known."""

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".strip()


@dataclass(frozen=True)
class Grid:
    """The contents of a table as text, in the order of its rows.

    Attributes:
        heads: The heading of each column in two lines.
        numeric: True for each column of numbers.
        measured: True for each column of measurements, as opposed to the trial's number, state and parameters.
        keys: The key of each column of a metric, "" for the others.
        cells: The cells of each row.
        rows: The trials of the rows.
        foot: The lines below the table.
    """

    heads: list[tuple[str, str]]
    numeric: list[bool]
    measured: list[bool]
    keys: list[str]
    cells: list[list[str]]
    rows: list[TrialRow]
    foot: list[str]


@dataclass(frozen=True)
class TrialTable:
    """A table of trials for a terminal of any width. Print it with rich.

    If a single table does not fit, even with less space between its columns, the metrics follow in a second table below
    the parameters. In a narrow terminal, more tables follow. So no number and no name is ever cut.
    """

    grid: Grid
    best: Sequence[int]
    title: str | None
    bold: Sequence[int] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables and the lines below them, laid out for the width of the console."""
        everything, wide = range(len(self.grid.heads)), options.update(max_width=ANY_WIDTH)

        def measure(chosen: Sequence[int], space: int) -> int:
            return console.measure(self._table(chosen, space), options=wide).maximum

        for space in (1, 0):
            if measure(everything, space) <= options.max_width:
                yield self._table(everything, space)
                break
        else:
            widths = [measure([i], 1) for i in everything]
            gap = measure([0, 1], 1) - widths[0] - widths[1]
            for number, part in enumerate(self._parts(widths, gap, options.max_width)):
                yield self._table(part, 1, title=number == 0)
        for line in self.grid.foot:
            yield Text(line, style="dim")

    def _parts(self, widths: Sequence[int], gap: int, most: int) -> list[list[int]]:
        """Return the columns of each table, if a single table does not fit. Each begins with the number of the row.

        Args:
            widths: The width of each column.
            gap: The width that a further column adds to its own.
            most: The width that a table may have. Only a column that is wider alone exceeds it.
        """
        cut = next((i for i, measured in enumerate(self.grid.measured) if measured), len(self.grid.heads))
        parts: list[list[int]] = []
        for group in (range(1, cut), range(cut, len(self.grid.heads))):
            for i in group:
                if i == group[0] or sum(widths[j] + gap for j in (*parts[-1], i)) - gap > most:
                    parts.append([0])
                parts[-1].append(i)
        return parts

    def _table(self, chosen: Sequence[int], space: int, title: bool = True) -> Table:
        table = Table(
            title=self.title if title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, space, 0, 0),
        )
        lines = slice(0 if any(self.grid.heads[i][0] for i in chosen) else 1, 2)
        for i in chosen:
            justify: Literal["right", "left"] = "right" if self.grid.numeric[i] else "left"
            heading = Text("\n".join(self.grid.heads[i][lines]))
            table.add_column(heading, justify=justify, overflow="fold", vertical="bottom")
        for row, cells in zip(self.grid.rows, self.grid.cells, strict=True):
            line = [Text(cells[i], style=_style(row.state) if i == 1 else "") for i in chosen]
            table.add_row(*line, style="bold" if row.number in (self.bold or self.best) else "")
        return table


def trial_table(
    rows: Sequence[TrialRow],
    best: Sequence[int] = (),
    columns: Sequence[Column] = COLUMNS,
    title: str | None = None,
    what: str = "trial",
    bold: Sequence[int] = (),
    notes: Sequence[str] = (),
    partial: bool = False,
) -> TrialTable:
    """Return the table of trials for a terminal.

    Parameters that are equal in all rows are printed once below the table, followed by the protocol and the notes of
    the rows. Metrics that no row has get no column.

    Args:
        rows: The trials in any order.
        best: The numbers of the trials that are marked as best.
        columns: The columns of metrics in order.
        title: The heading above the table.
        what: What a row is: a `trial`, or a `setting` whose metrics are means over its trainings.
        bold: The numbers of the rows in bold: the best, and all that cannot be told apart from it. Empty: the best.
        notes: Further lines below the protocol.
        partial: True if the study has more rows than these.

    Raises:
        ValueError: If rows were measured under different protocols, or have metrics without a protocol. The message
            names the parts that differ.
    """
    return TrialTable(build_grid(rows, best, columns, what, bold, notes, partial), best, title, bold)


def markdown_table(
    rows: Sequence[TrialRow],
    best: Sequence[int] = (),
    columns: Sequence[Column] = COLUMNS,
    what: str = "trial",
    bold: Sequence[int] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return the table of `trial_table` as GitHub's Markdown, with the lines below it as a list.

    Arguments and errors are those of `trial_table`.
    """
    grid = build_grid(rows, best, columns, what, bold, notes)
    heads = [md(" ".join(part for part in head if part)) for head in grid.heads]
    lines = [md_row(heads), md_row(["--:" if numeric else ":--" for numeric in grid.numeric])]
    for row, cells in zip(grid.rows, grid.cells, strict=True):
        mark = "**" if what == "setting" and row.number in bold else ""
        lines.append(md_row([f"{mark}{md(cell)}{mark}" if cell != MISSING else cell for cell in cells]))
    return "\n".join([*lines, "", *(f"- {md_prose(line)}" for line in grid.foot), ""])


def build_grid(
    rows: Sequence[TrialRow],
    best: Sequence[int],
    columns: Sequence[Column],
    what: str,
    bold: Sequence[int] = (),
    notes: Sequence[str] = (),
    partial: bool = False,
) -> Grid:
    """Return the cells of a table as text. Arguments and errors are those of `trial_table`."""
    rows = sorted(rows, key=lambda row: row.number)
    protocols = _protocols(rows)
    # The trial with the most parameters determines their order, because a trial that lacks conditional parameters would
    # move them to the end.
    names = list(dict.fromkeys(name for row in sorted(rows, key=lambda row: -len(row.params)) for name in row.params))
    fixed = [name for name in names if len(rows) > 1 and len({_param(row, name) for row in rows}) == 1]
    varied = [name for name in names if name not in fixed]
    shown = [column for column in columns if any(row.metrics.get(column.key) is not None for row in rows)]
    params = [[_param(row, name) for row in rows] for name in varied]
    cells = {column: _cells(rows, column) for column in shown}
    equal = [column for column in shown if column.baseline and len(rows) > 1 and _alike(cells[column])]
    shown = [column for column in shown if column not in equal]
    tested = any(row.p_value is not None for row in rows)
    metrics = [*(cells[column] for column in shown), *([_p_values(rows)] if tested else [])]
    trials = [f"{BEST if row.number in best else ''}{row.number}" for row in rows]
    times = _times(rows)
    filled = [trials, [row.state for row in rows], *params, *metrics, *times.values()]
    numbers = [all(_is_number(row.params.get(name)) for row in rows) for name in varied]
    known = [f"{name} {_param(rows[0], name)}" for name in fixed]
    same = ", ".join([*known, *(f"{' '.join(column.head)} {cells[column][0]}" for column in equal)])
    foot = [f"{BEST} best{' mean' * (what == 'setting')}: {what} {best[0]}"] if len(best) == 1 else []
    foot += [f"{BEST} not beaten in all objectives by another: {what}s {_listed(best)}"] if len(best) > 1 else []
    told = len(bold) > 1 and set(bold) != set(best)  # otherwise, bold rows are the best of several objectives
    foot += [f"bold: cannot be told apart from the best {what}"] if told and what == "setting" else []
    foot += [_SPREAD] if any(row.spreads for row in rows) else []
    foot += [f"the same in all{' of these' * partial}: {same}"] if same else []
    foot += [protocols[0].describe()] if protocols else []
    foot += notes
    foot += [_SAVED] if "saved" in times else []
    foot += [f"{what} {row.number} {row.state}: {' '.join(row.note.split())}" for row in rows if row.note]
    names = [what, "state", *varied]
    measures = [*(column.head for column in shown), *([P_HEAD] if tested else [])]
    heads = [*(("", name) for name in names), *measures, *(("", name) for name in times)]
    numeric = [True, False, *numbers, *(True for _ in measures), *(True for _ in times)]
    measured = [i >= 2 + len(varied) for i in range(len(heads))]
    keys = ["" for _ in names] + [column.key for column in shown]
    keys += [""] * (len(heads) - len(keys))
    return Grid(heads, numeric, measured, keys, [list(line) for line in zip(*filled, strict=True)], rows, foot)


def _p_values(rows: Sequence[TrialRow]) -> list[str]:
    """Return the p-values with 3 decimals. A smaller one is `<0.001`."""
    return [
        MISSING if row.p_value is None else f"<{_LEAST_P:g}" if row.p_value < _LEAST_P else f"{row.p_value:.3f}"
        for row in rows
    ]


def _times(rows: Sequence[TrialRow]) -> dict[str, list[str]]:
    """Return the last columns: the trials' seconds and, if a trial found work in the store, what that saved."""
    times = {"seconds": _numbers([row.seconds for row in rows], 0)}
    if any(row.saved and row.saved >= _LEAST_SAVED for row in rows):
        train = [row.train if isinstance(row.train, str) else _numbers([row.train], 0)[0] for row in rows]
        times = {"train": train, "saved": _numbers([row.saved for row in rows], 0), **times}
    return times


def _protocols(rows: Sequence[TrialRow]) -> list[Protocol]:
    for row in rows:
        if row.protocol is None and any(value is not None for value in row.metrics.values()):
            raise ValueError(
                f"trial {row.number}: has metrics but no protocol; a metric without its protocol is not a number"
            )
    protocols = [row.protocol for row in rows if row.protocol is not None]
    check_same(protocols)
    return protocols


def _style(state: str) -> str:
    """Return the colour of a state. A setting that lacks trainings is shown as running."""
    return "cyan" if state[:1].isdigit() else _STYLES.get(state.split(" (")[0], "")


def _cells(rows: Sequence[TrialRow], column: Column) -> list[str]:
    """Return the cells of a metric: values, or `mean ± sd (n)` for settings."""
    values = [row.metrics.get(column.key) for row in rows]
    sds = [row.spreads[column.key][0] for row in rows if column.key in row.spreads]
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    varies = [sd is None or sd > _LEAST_SD * largest for sd in sds]
    # A quantity that no training changes, such as NFE, has no spread worth printing.
    if not varies or (not all(varies) and all(sd is None for sd, one in zip(sds, varies, strict=True) if one)):
        return _numbers(values, column.decimals)
    decimals, cells = _decimals(values, column.decimals), []
    for row, value in zip(rows, values, strict=True):
        if value is None or column.key not in row.spreads:
            cells.append(MISSING if value is None else f"{value:.{decimals}f}")
            continue
        sd, count = row.spreads[column.key]
        spread = "" if sd is None else f" ± {sd:.{decimals}f}"
        cells.append(f"{value:.{decimals}f}{spread} ({count})")
    return cells


def _numbers(values: Sequence[float | None], least: int) -> list[str]:
    """Format values with the same number of decimals: `least`, or enough for two digits of the smallest value."""
    decimals = _decimals(values, least)
    return [MISSING if value is None else f"{value:.{decimals}f}" for value in values]


def _decimals(values: Sequence[float | None], least: int) -> int:
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value) and value != 0]
    decimals = least
    if least and sizes and min(sizes) < 1:
        decimals = min(max(least, 1 - math.floor(math.log10(min(sizes)))), _MAX_DECIMALS)
    return decimals


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _alike(cells: Sequence[str]) -> bool:
    return len(set(cells)) == 1 and MISSING not in cells


def _param(row: TrialRow, name: str) -> str:
    """Return a parameter as the file of the space writes it, or MISSING if it has no effect in this trial."""
    return _value(row.params[name]) if name in row.params else MISSING


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
