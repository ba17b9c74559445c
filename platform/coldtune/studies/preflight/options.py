"""How a person wants a study run."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)[a-z]*\s*")


@dataclass(frozen=True)
class Limits:
    """What a study puts up with; none of it changes what the study is.

    retries: how often a trial whose process died is started again; it goes on from its last checkpoint.
    max_failures: so many trials that fail one after the other, none between them ending well, stop the study; 0: never.
    trial_timeout: seconds that a trial may run (waiting not counted) before it counts as failed; None: for ever.
    patience: seconds to wait while the cluster is too small for even one trial.
    """

    retries: int = 2
    max_failures: int = 5
    trial_timeout: float | None = None
    patience: float = 600.0

    def __post_init__(self) -> None:
        for flag, value in (("--retries", self.retries), ("--max-failures", self.max_failures)):
            if value < 0:
                raise ValueError(f"{flag} {value}: 0 or more")


def seconds(flag: str, text: str) -> float:
    """The duration `text` of a command line's `flag` in seconds: 90s, 30m, 1h30m, 1.5 hours. ValueError otherwise."""
    compact = text.strip().lower()
    parts = _PART.findall(compact)
    if _PART.sub("", compact) or not parts:
        unit = "; say the unit" if re.fullmatch(r"[\d.]+", compact) else ""
        raise ValueError(f"{flag} {text}: not a duration{unit}; allowed are such as 90s, 30m, 2h, 1h30m")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise ValueError(f"{flag} {text}: must be longer than nothing")
    return total


@dataclass(frozen=True)
class RunOptions:
    """How a study is run; none of it changes what the study is.

    trials: how many there shall be in all (None: as many as last time, or `default_trials`).
    name: the study's (None: the one that follows from the spec). resume: refuse to start anew. store: where finished
    work is kept (None: where it was last time, or `home/store`).
    command: what a person types to do this again. begun: when this process began, of `time.monotonic`.
    join: run trials beside the drivers that run the study already.
    """

    home: Path
    command: str
    trials: int | None = None
    default_trials: int = 12
    name: str | None = None
    resume: bool = False
    join: bool = False
    data_dir: Path | None = None
    tracking_uri: str | None = None
    storage: str | None = None
    store: str | None = None
    workers: int = 1
    gpus_per_trial: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    limits: Limits = field(default_factory=Limits)
