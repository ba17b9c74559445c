"""Tables of commands that list things. Nothing in them is ever cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_GAP = 1  # between columns
_LEAST = 12  # characters of a column of sentences


@dataclass
class ListTable:
    """A table whose columns `left`, `right` and `last` follow each other. Print it with rich.

    The columns `last` hold sentences, which are wrapped. The other columns are wrapped only if the table does not fit
    otherwise. A word that is too long for its column continues in the next line.

    Attributes:
        title: The line above the table, or "".
        right: The columns that are aligned to the right.
        edge: True to leave a space left of the table.
    """

    title: str
    left: Sequence[str]
    right: Sequence[str] = ()
    last: Sequence[str] = ()
    rows: list[list[Text]] = field(default_factory=list)
    edge: bool = False

    def add_row(self, *cells: str | Text) -> None:
        """Add a row. Its cells are in the order of the columns."""
        self.rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    @property
    def width(self) -> int:
        """The characters of a line in which only the columns of sentences are wrapped, each to a small width."""
        firm = [*self.left, *self.right]
        widths = [max([len(head), *(row[i].cell_len for row in self.rows if row)]) for i, head in enumerate(firm)]
        gap = _GAP + self.edge
        return sum(widths) + gap * len(firm) + (_LEAST + gap) * len(self.last)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table for the width of the console."""
        heads = [*self.left, *self.right, *self.last]
        fits = self.width <= options.max_width
        table = Table(
            title=Text(self.title) if self.title else None,
            title_justify="left",
            box=None,
            pad_edge=self.edge,
            padding=(0, _GAP, 0, int(self.edge)),
        )
        for head in heads:
            justify: Literal["left", "right"] = "right" if head in self.right else "left"
            table.add_column(Text(head), justify=justify, no_wrap=fits and head not in self.last, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        yield table
