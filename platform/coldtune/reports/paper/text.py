"""A filled table of the paper as Markdown, as LaTeX and for a terminal of any width."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from coldtune.metrics.values import Value
from coldtune.reports.latex import NEEDS, latex_line, latex_table, tex
from coldtune.reports.markdown import md, md_prose, md_row
from coldtune.reports.paper.tables import FilledTable, PaperColumn
from coldtune.reports.tables import ANY_WIDTH, MISSING, Printed

_DECIMALS = {"fid": 2, "ssim": 3, "rmse": 3}  # as in the paper


def markdown(filled: FilledTable) -> str:
    """Return the table as GitHub's Markdown, with the lines below it as a list."""
    heads = ["Dataset", *(column.title for column in filled.table.columns)]
    lines = [md_row(map(md, heads)), md_row([":--", *("--:" for _ in filled.table.columns)])]
    lines += [md_row(map(md, [label, *map(str, cells)])) for label, cells in rows_of(filled)]
    foot = [f"- {head}: {md_prose(text)}" for head, text in foot_of(filled)]
    return "\n".join([f"**{md(filled.heading)}**", "", *lines, "", *foot, ""])


def latex(filled: FilledTable) -> str:
    r"""Return the table as a LaTeX float, with the intervals in smaller lines below the values.

    The document needs `\usepackage{booktabs}`.
    """
    columns = filled.table.columns
    spans = [(group, len(list(items))) for group, items in itertools.groupby(columns, key=lambda column: column.group)]
    heads = [latex_line(["Dataset", *(tex(column.short) for column in columns)])]
    if any(column.group for column in columns):
        above, rules, first = [""], [], 2
        for group, count in spans:
            above.append(rf"\multicolumn{{{count}}}{{c}}{{{tex(group)}}}")
            rules.append(rf"\cmidrule(lr){{{first}-{first + count - 1}}}")
            first += count
        heads = [latex_line(above), " ".join(rules), *heads]
    body: list[str] = []
    for label, cells in rows_of(filled):
        body += [r"\midrule"] if label == next(iter(filled.papers())) else []
        body.append(latex_line([tex(label), *(tex(cell.value) for cell in cells)]))
        if any(cell.interval for cell in cells):
            small = [rf"{{\scriptsize {tex(cell.interval)}}}" if cell.interval else "" for cell in cells]
            body.append(latex_line(["", *small]))
    notes = [rf"\emph{{{tex(head)}:}} {tex(text)}" for head, text in foot_of(filled)]
    lines = latex_table(
        f"l{'r' * len(columns)}",
        heads,
        body,
        notes,
        caption=f"{tex(filled.heading)}.",
        settings=[
            rf"\label{{tab:cold-diffusion-{filled.number.lower().replace('.', '-')}-{filled.dataset}}}",
            r"\small",
            r"\setlength{\tabcolsep}{4pt}",
        ],
    )
    return "\n".join([NEEDS, *lines, ""])


@dataclass(frozen=True)
class TerminalTable:
    """A filled table for a terminal. Print it with rich.

    If the paper's columns do not fit, they become rows. So no number is ever cut.
    """

    filled: FilledTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the heading, the table and the lines below it, laid out for the width of the console."""
        yield Text(self.filled.heading, style="bold")
        everything = options.update(max_width=ANY_WIDTH)
        layouts = (self._wide(2), self._wide(1), self._turned())
        fitting = [x for x in layouts if console.measure(x, options=everything).maximum <= options.max_width]
        yield [*fitting, layouts[-1]][0]
        foot = Table.grid(padding=(0, 2))
        for head, text in foot_of(self.filled):
            foot.add_row(Text(head, style="dim"), Text(text, style="dim", overflow="fold"))
        yield foot

    def _wide(self, space: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, space, 0, 0))
        grouped = any(column.group for column in self.filled.table.columns)
        table.add_column("\nDataset" if grouped else "Dataset", no_wrap=True)
        group = ""
        for column in self.filled.table.columns:
            above = column.group if column.group != group else ""
            group = column.group
            head = f"{above}\n{column.short}" if grouped else column.short
            table.add_column(head, justify="right", no_wrap=True)
        for label, cells in rows_of(self.filled):
            ours = label == self.filled.ours
            lines = [f"{cell.value}\n{cell.interval}".rstrip() for cell in cells]
            table.add_row(label, *lines, style="bold" if ours else "")
        return table

    def _turned(self) -> Table:
        rows = list(rows_of(self.filled))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("")
        for label, _ in rows:
            table.add_column(label.replace(", ", "\n"), justify="right", no_wrap=True)
        for number, column in enumerate(self.filled.table.columns):
            table.add_row(column.title, *(str(cells[number]) for _, cells in rows))
        return table


def rows_of(filled: FilledTable) -> Iterator[tuple[str, list[Printed]]]:
    """Yield the label and the cells of each row: the measurements, then the numbers of the paper."""
    columns = filled.table.columns
    cells = zip(columns, filled.cells, strict=True)
    yield (
        filled.ours,
        [_measured(column, cell, filled.spreads.get(place)) for place, (column, cell) in enumerate(cells)],
    )
    for label, figures in filled.papers().items():
        yield label, [_printed(column, figure) for column, figure in zip(columns, figures, strict=True)]


def _measured(column: PaperColumn, cell: Value | str, spread: tuple[float | None, int] | None) -> Printed:
    if isinstance(cell, str):
        return Printed(MISSING)
    decimals = _DECIMALS[column.metric]
    if 0 < abs(cell.value) < 0.1 and math.isfinite(cell.value):
        decimals = max(decimals, 1 - math.floor(math.log10(abs(cell.value))))
    if spread is not None:
        sd, count = spread
        return Printed(f"{cell.value:.{decimals}f}", f"{'' if sd is None else f'± {sd:.{decimals}f} '}({count})")
    if cell.low is None or cell.high is None:
        return Printed(f"{cell.value:.{decimals}f}")
    return Printed(f"{cell.value:.{decimals}f}", f"[{cell.low:.{decimals}f}, {cell.high:.{decimals}f}]")


def _printed(column: PaperColumn, figure: float | None) -> Printed:
    return Printed(MISSING if figure is None else f"{figure:.{_DECIMALS[column.metric]}f}")


def foot_of(filled: FilledTable) -> list[tuple[str, str]]:
    """Return the lines below: the given notes, the protocol, the origin of the paper's numbers, and missing values."""
    protocol = filled.protocol
    lines = list(filled.foot)
    if protocol is not None:
        lines.append(("protocol", protocol.describe()))
        if filled.spreads:
            lines.append(("means", "± the standard deviation between trainings (number of trainings)"))
        else:
            lines.append(("intervals", "95 %, over the images judged; the luck of a training (--seed) is not in them"))
        n, least = min(protocol.num_images, protocol.reference_images), 4 * protocol.dim
        if n < least:
            lines.append(
                (
                    "few images",
                    f"N = {n:,} is below 4 d = {least:,}: of close sets, such FIDs can favour the over-smoothed one",
                )
            )
    lines.append(
        (
            "paper",
            f"as printed ({filled.table.source}), FIDs of Inception features. FIDs of other features, another N or "
            "other images have another scale: compare the order of the columns, not the size of the numbers",
        )
    )
    return lines + [("empty", line) for line in filled.absent()]
