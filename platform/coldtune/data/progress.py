"""Progress bars with rate and remaining time. They show on a terminal only, and disappear when the work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Advance = Callable[[float], None]
"""Called with the number of units that were just done."""


class _Rate(ProgressColumn):
    """A column of the form "done/total unit, rate unit/s"."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        total = "?" if task.total is None else f"{task.total:,.0f}"
        rate = f", {task.speed:,.0f} {unit}/s" if task.speed else ""
        return Text(f"{task.completed:,.0f}/{total} {unit}{rate}")


class Bars:
    """The progress bars of a piece of work. Without a `Progress` to draw them, they show nothing."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress

    def start(self, label: str, total: float | None, unit: str) -> Advance:
        """Start a bar over `total` units (None if unknown). Call the result with the units that were just done."""
        progress = self._progress
        if progress is None:
            return lambda done: None
        task = progress.add_task(label, total=total, unit=unit)
        return lambda done: progress.advance(task, done)


@contextmanager
def show(enabled: bool) -> Iterator[Bars]:
    """Show progress bars on standard error while the block runs, if `enabled` and standard error is a terminal."""
    console = Console(stderr=True)
    if not (enabled and console.is_terminal):
        yield Bars()
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=12), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress)
