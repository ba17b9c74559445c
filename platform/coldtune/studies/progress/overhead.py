"""The share of a run's wall time that was not training, sampling or measuring."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from coldtune.durations import format_clock
from coldtune.studies.progress.events import Events
from coldtune.studies.storage.outcome import Rung, StoredStage, TrialOutcome
from coldtune.studies.worker.job import RUNG


class WallTime(Events):
    """The wall time of a run, split into work (training, sampling, measuring) and overhead.

    Args:
        at_once: How many trials run at the same time.
        begun: When the command began, by `time.monotonic`. Imports, checks and the start of Ray count as overhead.
    """

    def __init__(self, at_once: int, begun: float) -> None:
        self.at_once, self.begun, self.work_s, self.trials = at_once, begun, 0.0, 0
        self._at_rung: dict[int, float] = {}

    def progressed(self, number: int, result: Mapping[str, Any]) -> None:
        """Remember the work of a trial up to a rung, because the trial may end there."""
        if result["stage"] == RUNG:
            self._at_rung[number] = _computed(Rung.from_json(result["rung"]).stages)

    def pruned(self, number: int, step: int) -> None:
        """Add the seconds of the stages that the trial computed."""
        self.work_s += self._at_rung[number]
        self.trials += 1

    def completed(self, number: int, outcome: TrialOutcome) -> None:
        """Add the seconds of the stages that the trial computed."""
        self.work_s += _computed(outcome.stages)
        self.trials += 1

    def overhead_percent(self) -> float:
        """Return the part of the wall time that was not work, in percent, averaged over the trials at once."""
        return 100 * max(0.0, 1 - self.work_s / (self.at_once * (time.monotonic() - self.begun)))

    def __str__(self) -> str:
        elapsed, rest = time.monotonic() - self.begun, self.overhead_percent()
        trials = f"{self.trials} trial{'s' * (self.trials != 1)}"
        return (
            f"{trials} in {format_clock(elapsed)}, {self.at_once} at once: {100 - rest:.0f} % training, sampling and "
            f"measuring, {rest:.0f} % starting processes, importing, waiting and bookkeeping"
        )


def _computed(stages: Sequence[StoredStage]) -> float:
    """Return the seconds of the stages that were not found in the store."""
    return sum(stage.seconds for stage in stages if not stage.found)
