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

    If the columns do not fit into a line, they continue in further tables. Each begins with the columns of names, which
    people copy. So a name is only wrapped if the names need more than two thirds of a line. The columns `last` hold
    sentences, which are wrapped between words. A word that is longer than a line continues in the next line.

    Attributes:
        title: The line above the table, or "".
        right: The columns that are aligned to the right.
        edge: True to leave a space left of the table.
        names: The number of columns that name a row, which are the first.
    """

    title: str
    left: Sequence[str]
    right: Sequence[str] = ()
    last: Sequence[str] = ()
    rows: list[list[Text]] = field(default_factory=list)
    edge: bool = False
    names: int = 1

    def add_row(self, *cells: str | Text) -> None:
        """Add a row. Its cells are in the order of the columns."""
        self.rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    @property
    def _heads(self) -> list[str]:
        return [*self.left, *self.right, *self.last]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table for the width of the console, in as many parts as necessary."""
        least, most = self._widths(), options.max_width
        gap = _GAP + self.edge
        names = slice(self.names)
        if sum(least) + gap * len(least) > most:
            while sum(least[names]) + gap * self.names > max(most * 2 // 3, self.names * (gap + 1)):
                widest = max(range(self.names), key=least.__getitem__)
                least[widest] -= 1
        named = sum(least[names]) + gap * self.names
        parts: list[list[int]] = []
        room = 0
        for place in range(self.names, len(least)):
            if not parts or least[place] + gap > room:
                parts.append([])
                room = most - named
            parts[-1].append(place)
            room -= least[place] + gap
        for number, part in enumerate(parts or [[]]):
            yield from ([Text()] if number else [])
            yield self._part([*range(self.names), *part], least, most, self.title if number == 0 else "")

    def _widths(self) -> list[int]:
        """Return the width of each column at which no word is wrapped, and of columns of sentences at least a few."""
        widths = []
        for place, head in enumerate(self._heads):
            cells = [Text(head), *(row[place] for row in self.rows if row)]
            whole = max(cell.cell_len for cell in cells)
            if head in self.last:
                word = max(Text(word).cell_len for cell in cells for word in cell.plain.split() or [""])
                whole = min(whole, max(word, _LEAST))
            widths.append(whole)
        return widths

    def _part(self, places: Sequence[int], least: Sequence[int], most: int, title: str) -> Table:
        table = Table(
            title=Text(title) if title else None,
            title_justify="left",
            box=None,
            pad_edge=self.edge,
            padding=(0, _GAP, 0, int(self.edge)),
        )
        heads = self._heads
        room = most - sum(least[place] + _GAP + self.edge for place in places)
        for place in places:
            cells = [Text(heads[place]), *(row[place] for row in self.rows if row)]
            # A column of sentences takes the room that is left. A column that is wider than a line gets all of it.
            wished = max(cell.cell_len for cell in cells) - least[place]
            more = min(wished, room) if place >= self.names else 0
            room -= max(more, 0)
            justify: Literal["left", "right"] = "right" if heads[place] in self.right else "left"
            table.add_column(Text(heads[place]), justify=justify, overflow="fold", width=max(least[place] + more, 1))
        for row in self.rows:
            table.add_row(*([row[place] for place in places] if row else []))
        return table
