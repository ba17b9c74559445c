"""What a person sees while a study runs: one live view in a terminal, a line now and then in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coldtune.studies.progress.events import Events
from coldtune.studies.search.pruner import Rung
from coldtune.studies.trials.ledger import TrialRequest
from coldtune.studies.worker.job import RUNG

_TRAINING_SHARE = 0.9  # of a trial's progress; the rest is sampling and measuring
_LOG_SECONDS = 15.0
_SHOWN_ENDED = 5


@dataclass
class _Running:
    point: Mapping[str, Any]
    again: bool = False
    share: float = 0.0
    start: float | None = None  # its share when first heard of: what a resumed trial had done before
    text: str = "waiting for a place"
    images_per_s: float = 0.0


@dataclass
class View(Events):
    """Progress, rate, ETA and the best so far of `total` trials, of which `ended` had ended before."""

    console: Console
    name: str
    total: int
    ended: int
    metric: str
    minimize: bool
    best: tuple[float, int] | None = None
    running: dict[int, _Running] = field(default_factory=dict)
    recent: list[Text] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._begun = time.monotonic()
        self._first_report: float | None = None
        self._done = 0.0
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

    def asked(self, asked: TrialRequest) -> None:
        """Show a trial that starts."""
        with self._lock:
            self.running[asked.number] = _Running(asked.point, asked.again)
        self._say(f"trial {asked.number} {'goes on' if asked.again else 'starts'}: {_point(asked.point)}")

    def started(self, number: int) -> None:
        """Show that a trial has its place."""
        with self._lock:
            self.running[number].text = "starting"

    def progressed(self, number: int, result: Mapping[str, Any]) -> None:
        """Show how far a trial is."""
        if "micro_batch" in result:
            self.notice(f"trial {number}: out of memory; goes on with {result['micro_batch']:.0f} images at a time")
        with self._lock:
            trial = self.running[number]
            if result["stage"] == "waiting":
                trial.text = f"waiting for {result['for']}"
                return
            stage, _, at_rung = result["stage"].partition("_")
            if stage != "sample" or at_rung:
                trial.share = _TRAINING_SHARE * result["step"] / result["steps"]
            if stage == RUNG:
                trial.text = str(Rung.of(result))
            elif at_rung:
                trial.images_per_s = 0.0
                trial.text = f"sampling at step {result['step']:,} / {result['steps']:,}, to be judged there"
            elif stage == "train":
                trial.images_per_s = float(result.get("images_per_s", 0.0))
                if "loss" in result:  # a validation may be due without it
                    trial.text = f"training {result['step']:>6,} / {result['steps']:,}  loss {result['loss']:.4f}"
            else:
                trial.share = _TRAINING_SHARE + (1 - _TRAINING_SHARE) * float(result.get("share", 0.0))
                trial.images_per_s = 0.0
                trial.text = "sampling and measuring"
            if trial.start is None:
                # A training that was found is no work of an earlier run: the trials to come may find theirs too.
                trial.start = 0.0 if stage == "sample" and not trial.again else trial.share
                self._first_report = self._first_report or time.monotonic()

    def completed(self, number: int, result: Mapping[str, Any]) -> None:
        """Show a trial's value, and whether it is the best so far."""
        value = float(result["metrics"][self.metric])
        if self.best is None or (value < self.best[0] if self.minimize else value > self.best[0]):
            self.best = (value, number)
        self._ended(number, f"{self.metric.upper()} {value:.4g}", "green" if self.best[1] == number else "")

    def failed(self, number: int, reason: str) -> None:
        """Show why a trial failed."""
        self._ended(number, f"failed: {reason.splitlines()[0][:120]}", "red")

    def pruned(self, number: int, step: int) -> None:
        """Show at which rung a trial ended, and what it was worth there."""
        self._ended(number, f"pruned {self.running[number].text}", "yellow")

    def lost(self, number: int) -> None:
        """Show that another driver goes on with a trial."""
        with self._lock:
            self.running.pop(number)
        self._say(f"trial {number}: another driver took it over while this one was stopped")

    def elsewhere(self, ended: int, running: int, best: tuple[float, int] | None) -> None:
        """Count what other drivers did: trials `ended` in all, how many of them are `running`, and the best of all."""
        with self._lock:
            self._done += max(0, ended - self.ended)
            self.ended, self._elsewhere, self.best = ended, running, best

    def restarted(self, number: int) -> None:
        """Show that a trial's process died, and that nothing is lost by it."""
        with self._lock:
            self.running[number].text = "its process died; starting again"
        self._say(f"trial {number}: its process died; it goes on from its last checkpoint")

    def notice(self, text: str) -> None:
        """Show a sentence about the study as a whole."""
        with self._lock:
            self.recent = [*self.recent, Text(text, style="yellow")][-_SHOWN_ENDED:]
        self._say(text)

    def tick(self) -> None:
        """In a log, a line now and then."""
        if self._live is None and time.monotonic() - self._logged >= _LOG_SECONDS and (self.running or self._elsewhere):
            self._logged = time.monotonic()
            trials = "; ".join(f"trial {n} {t.text}" for n, t in sorted(self.running.items()))
            self.console.print(Text(f"{self._headline()} | {trials}"), soft_wrap=True)

    def _ended(self, number: int, text: str, style: str) -> None:
        with self._lock:
            trial = self.running.pop(number)
            self.ended += 1
            self._done += 1.0 - (trial.start or 0.0)
            line = Text(f"trial {number:>3}  {text}   {_point(trial.point)}", style=style)
            self.recent = [*self.recent, line][-_SHOWN_ENDED:]
        self._say(line.plain)

    def _say(self, text: str) -> None:
        if self._live is None:
            self.console.print(Text(text), soft_wrap=True)

    def _headline(self) -> str:
        elapsed = time.monotonic() - self._begun
        parts = [f"{self.ended} of {self.total} trials"]
        if self._elsewhere:
            parts.append(f"{self._elsewhere} run by other drivers")
        if self.best:
            parts.append(f"best {self.metric.upper()} {self.best[0]:.4g} (trial {self.best[1]})")
        if rate := sum(trial.images_per_s for trial in self.running.values()):
            parts.append(f"{rate:,.0f} images/s")
        parts.append(f"elapsed {_clock(elapsed)}")
        if (left := self._seconds_left()) is not None:
            parts.append(f"ETA {_clock(left)}")
        return ", ".join(parts)

    def _seconds_left(self) -> float | None:
        """From the rate since the first report of this run, over work done in this run."""
        if self._first_report is None:
            return None
        shares = [(trial.share, trial.start or 0.0) for trial in self.running.values()]
        done = self._done + sum(share - start for share, start in shares)
        left = (self.total - self.ended) - sum(share for share, _ in shares)
        elapsed = time.monotonic() - self._first_report
        return elapsed * left / done if done > 0.02 else None

    def _render(self) -> RenderableType:
        with self._lock:
            share = (self.ended + sum(trial.share for trial in self.running.values())) / max(self.total, 1)
            whole, rows = Table.grid(), Table.grid(padding=(0, 2))  # a bar alone ends without a line break
            whole.add_row(ProgressBar(total=1.0, completed=share, width=min(80, self.console.width)))
            for number, trial in sorted(self.running.items()):
                rate = f"{trial.images_per_s:,.0f} images/s" if trial.images_per_s else ""
                bar = ProgressBar(total=1.0, completed=trial.share, width=24)
                rows.add_row(f"trial {number:>3}", bar, trial.text, rate, Text(_point(trial.point), style="dim"))
            return Group(
                Text(f"{self.name}: {self._headline()}", style="bold"),
                whole,
                *self.recent,
                rows,
            )


def _point(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in point.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
