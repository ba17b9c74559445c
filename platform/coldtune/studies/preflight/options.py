"""How a person wants a study run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from coldtune.studies.execution.stopping import Limits


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
