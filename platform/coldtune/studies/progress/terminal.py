"""The progress of a run: a live display in a terminal, and lines in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coldtune.durations import format_clock
from coldtune.studies.progress.eta import StudyProgress
from coldtune.studies.progress.events import Events
from coldtune.studies.progress.text import key_value
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.storage.settings import Spread
from coldtune.studies.trials.ledger import TrialRequest
from coldtune.studies.trials.reading import StudyReader
from coldtune.studies.worker.job import RUNG

_LOG_S = 15.0  # between two lines of progress in a log
_RECENT = 5  # sentences that stay on the screen
_WIDEST_BAR, _BAR = 80, 24  # characters: the study's bar, and the bar of a trial
_PADDING = 2  # characters between the columns of the trials
_NARROWEST = 8  # characters of a column that is cut


@dataclass
class _Running:
    """A running trial on the screen."""

    point: Mapping[str, Any]
    name: str
    text: str = "waiting for resources"
    before_wait: str | None = None


@dataclass(frozen=True)
class Best:
    """The best trial so far, or the best setting with the mean over its trainings.

    Attributes:
        value: The value of the trial, or the mean.
        number: The number of the trial or setting.
        trainings: The number of trainings in the mean. None for a study without replicates.
    """

    value: float
    number: int
    trainings: int | None = None

    def __str__(self) -> str:
        if self.trainings is None:
            return f"{self.value:.4g} (trial {self.number})"
        return f"{self.value:.4g} (setting {self.number}, {self.trainings} training{'s' * (self.trainings != 1)})"


def find_best(reader: StudyReader) -> Best | None:
    """Return the best trial or setting of a study so far."""
    best = reader.best_setting()
    if best is None:
        return None
    spread = Spread.of(best.values())
    return Best(spread.mean, best.number, spread.n if reader.replicated else None)


@dataclass
class View(Events):
    """The progress of a run on the screen: its trials, the rate of training, the ETA and the best trial so far.

    Attributes:
        total: The number of trials that the study asks in all.
        ended: The number of trials that ended before this run.
        metric: The objective. `minimize` says if its lowest value is the best.
        best: The best trial or setting so far.
        find_best: Finds the best setting after a trial has finished. None for a study without replicates, in which the
            view compares the values of the trials itself.
        what: The word for the trials that `total` counts.
        begun: When the run began, by `time.monotonic`.
        running: The running trials by number.
        recent: The latest sentences, which stay below the progress bar for a while.
    """

    console: Console
    name: str
    total: int
    ended: int
    metric: str
    minimize: bool
    best: Best | None = None
    find_best: Callable[[], Best | None] | None = None
    what: str = "trials"
    begun: float = field(default_factory=time.monotonic)
    running: dict[int, _Running] = field(default_factory=dict)
    recent: list[Text] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.progress = StudyProgress(self.total, self.ended)
        self._logged = 0.0
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._elsewhere = 0

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def asked(self, request: TrialRequest) -> None:
        """Show a trial that starts."""
        with self._lock:
            self.running[request.number] = _Running(request.point, request.label)
            self.progress.begin(request.number, request.again)
        self._say(f"trial {request.label} {'goes on' if request.again else 'starts'}: {_point(request.point)}")

    def started(self, number: int) -> None:
        """Show that a trial has its resources."""
        with self._lock:
            self.running[number].text = "starting"

    def waits(self, number: int, text: str) -> None:
        """Show what a trial waits for that has not started."""
        with self._lock:
            if number in self.running:
                self.running[number].text = text

    def progressed(self, number: int, result: Mapping[str, Any]) -> None:
        """Show how far a trial is."""
        if "micro_batch" in result:
            self.notice(
                f"trial {self._name(number)}: out of memory; goes on with {result['micro_batch']:.0f} images at a time"
            )
        with self._lock:
            self._show_stage(number, result)

    def _show_stage(self, number: int, result: Mapping[str, Any]) -> None:
        trial, progress = self.running[number], self.progress
        stage, _, at_rung = result["stage"].partition("_")
        step, steps = result["step"], result["steps"]
        before = trial.before_wait or trial.text
        trial.before_wait = before if stage == "waiting" else None
        if stage == "waiting":
            trial.text = f"waiting for {result['for']}"
        elif stage == "resumed":
            trial.text = before
        elif stage == RUNG:
            progress.trained(number, step / steps)
            trial.text = str(Rung.from_json(result["rung"]))
        elif at_rung:
            progress.trained(number, step / steps, images_per_s=0.0, sampling=True)
            trial.text = f"sampling at step {step:,} / {steps:,}, to be judged there"
        elif stage == "train":
            progress.trained(number, step / steps, float(result.get("images_per_s", 0.0)))
            if "loss" in result:  # a validation may report without it
                trial.text = f"training {step:>6,} / {steps:,}  loss {result['loss']:.4f}"
        else:
            progress.sampled(number, float(result.get("share", 0.0)))
            trial.text = "sampling and measuring"

    def completed(self, number: int, outcome: TrialOutcome) -> None:
        """Show a trial's value, and whether it is the best so far."""
        value = float(outcome.metrics[self.metric])
        before = self.best
        if self.find_best is not None:
            self.best = self.find_best()
        elif before is None or (value < before.value if self.minimize else value > before.value):
            self.best = Best(value, number)
        self._ended(number, f"{self.metric.upper()} {value:.4g}", "green" if self.best != before else "")

    def failed(self, number: int, reason: str) -> None:
        """Show why a trial failed."""
        self._ended(number, f"failed: {reason.splitlines()[0][:120]}", "red")

    def pruned(self, number: int, step: int) -> None:
        """Show at which rung a trial ended, and its value there."""
        self._ended(number, f"pruned {self.running[number].text}", "yellow")

    def lost(self, number: int) -> None:
        """Show that another driver took a trial over."""
        with self._lock:
            name = self.running.pop(number).name
            self.progress.forget(number)
        self._say(f"trial {name}: another driver took it over while this one was stopped")

    def interrupted(self, number: int) -> None:
        """Show that the driver of a trial is gone."""
        with self._lock:
            name = self.running.pop(number).name
            self.progress.forget(number)
        self._say(f"trial {name}: interrupted, because its driver is gone")

    def elsewhere(self, ended: int, running: int, best: Best | None) -> None:
        """Count the work of other drivers.

        Args:
            ended: How many trials of the study have ended in all.
            running: How many trials other drivers run.
            best: The best trial or setting of all drivers.
        """
        with self._lock:
            self.progress.set_ended(ended)
            self._elsewhere, self.best = running, best

    def restarted(self, number: int) -> None:
        """Show that a trial's process died and starts again from the last checkpoint."""
        with self._lock:
            self.running[number].text = "its process died; starting again"
        self._say(f"trial {self._name(number)}: its process died; it goes on from its last checkpoint")

    def notice(self, text: str) -> None:
        """Show a sentence about the study as a whole."""
        with self._lock:
            self.recent = [*self.recent, Text(text, style="yellow")][-_RECENT:]
        self._say(text)

    def tick(self) -> None:
        """Print a line of progress every 15 s, if the output is a log."""
        if self._live is None and time.monotonic() - self._logged >= _LOG_S and (self.running or self._elsewhere):
            self._logged = time.monotonic()
            trials = "; ".join(f"trial {t.name} {t.text}" for _, t in sorted(self.running.items()))
            self.console.print(Text(f"{self._headline()} | {trials}"), soft_wrap=True)

    def _ended(self, number: int, text: str, style: str) -> None:
        with self._lock:
            trial = self.running.pop(number)
            self.progress.end(number)
            line = Text(f"trial {trial.name:>3}  {text}   {_point(trial.point)}", style=style)
            self.recent = [*self.recent, line][-_RECENT:]
        self._say(line.plain)

    def _say(self, text: str) -> None:
        if self._live is None:
            self.console.print(Text(text), soft_wrap=True)

    def _name(self, number: int) -> str:
        return self.running[number].name if number in self.running else str(number)

    def _headline(self) -> str:
        parts = [f"{self.progress.ended} of {self.total} {self.what}"]
        if self._elsewhere:
            parts.append(f"{self._elsewhere} run by other drivers")
        if self.best:
            parts.append(f"best {self.metric.upper()} {self.best}")
        if rate := self.progress.images_per_s():
            parts.append(f"{rate:,.0f} images/s")
        parts.append(f"elapsed {format_clock(time.monotonic() - self.begun)}")
        if (left := self.progress.seconds_left()) is not None:
            parts.append(f"ETA {format_clock(left)}")
        return ", ".join(parts)

    def _render(self) -> RenderableType:
        with self._lock:
            whole = Table.grid()  # a bar alone ends without a line break
            whole.add_row(_bar(self.progress.share(), min(_WIDEST_BAR, self.console.width)))
            return Group(
                Text(f"{self.name}: {self._headline()}", style="bold"),
                whole,
                *self.recent,
                self._rows(),
            )

    def _rows(self) -> Table:
        """Return a line for each running trial. What does not fit into the terminal is left out or cut at its end."""
        running = sorted(self.running.items())
        names = [f"trial {trial.name:>3}" for _, trial in running]
        texts = [trial.text for _, trial in running]
        points = [_point(trial.point) for _, trial in running]
        progress = [self.progress.trials[number] for number, _ in running]
        rates = [f"{each.images_per_s:,.0f} images/s" if each.images_per_s else "" for each in progress]
        room = self.console.width - _width(names)
        columns: list[list[RenderableType]] = []
        for column, width in ((texts, _width(texts)), (points, _width(points))):
            if room - _PADDING >= min(width, _NARROWEST):
                width = min(width, room - _PADDING)
                columns.append([_cut(text, width, "dim" if column is points else "") for text in column])
                room -= width + _PADDING
        if room >= _BAR + _PADDING:
            columns.insert(0, [_bar(each.share, _BAR) for each in progress])
            room -= _BAR + _PADDING
            if room >= _width(rates) + _PADDING:
                columns.insert(2, [Text(rate) for rate in rates])
        rows = Table.grid(padding=(0, _PADDING, 0, 0), pad_edge=False)
        for name, *cells in zip(names, *columns, strict=True):
            rows.add_row(Text(name), *cells)
        return rows


def _width(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _cut(text: str, width: int, style: str) -> Text:
    cut = Text(text, style=style, no_wrap=True)
    cut.truncate(width, overflow="ellipsis")
    return cut


def _bar(share: float, width: int) -> ProgressBar:
    return ProgressBar(total=1.0, completed=share, width=width)


def _point(point: Mapping[str, Any]) -> str:
    return ", ".join(key_value(key, value) for key, value in point.items())
