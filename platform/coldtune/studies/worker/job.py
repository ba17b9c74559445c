"""What a driver hands to the process that runs a trial, and the words in which that process reports."""

from __future__ import annotations

from coldtune.config import Config
from coldtune.metrics.protocol import Protocol
from coldtune.stages.trial import TrialConfig

RUNNING = "running"  # the `state` of every report but a trial's last
RUNG = "rung"  # the `stage` of a report from a rung, at which the trial may end
LATE = "late"  # of a trial whose process is about to be ended by force, with the reason


class TrialJob(Config):
    """Everything a worker process needs to run one trial; all paths absolute."""

    study: str
    number: int
    again: bool
    trial: TrialConfig
    protocol: Protocol | None = None  # under which the study judges; None: whatever the trial resolves to here
    leftover: float | None
    home: str
    store: str | None = None  # None: the home's own
    dataset_path: str
    source_path: str | None
    spool: str
    tags: dict[str, str]
    workers: int
    cpus: int
    gpus: float
    timeout: float | None = None  # seconds that it may run
