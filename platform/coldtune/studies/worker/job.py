"""The job that a driver hands to the process of a trial, and the words in which that process reports."""

from __future__ import annotations

from coldtune.config import Config
from coldtune.metrics.protocol import Protocol
from coldtune.stages.trial import TrialConfig

RUNNING = "running"  # the `state` of every report except a trial's last
RUNG = "rung"  # the `stage` of a report from a rung, at which the trial may end
LATE = "late"  # the `state` of a trial whose process is about to be ended by force
FAULT = "fault"  # the `state` of a trial that a fault of the machine ended, so that it can be asked again


class TrialJob(Config):
    """Everything that a worker process needs to run a trial. All paths are absolute.

    Attributes:
        again: Whether the trial was interrupted before and resumes.
        protocol: The protocol under which the study judges. None: the protocol that the trial resolves to in its
            process.
        leftover: The leftover of its degradation, to be logged.
        store: The place of the store. None: the home's own store.
        environments: The folder for the software that ran.
        tags: The tags of its MLflow run.
        cpus: The CPUs that Ray reserves for each process of the trial.
        threads: The CPU threads of each process, if it computes on the CPU.
        unknown_threads: Whether the trial may use work of an unknown number of threads, because its study began with
            such work.
        timeout: The seconds that it may run. None: no limit.
        name: The name of the trial for users, such as `2.1`. "" stands for its number.
        title: The name of its run in MLflow, with the settings that vary. "" stands for `trial 2.1`.
        objectives: The metrics that the study optimises.
        system_metrics: Whether the use of the machine is recorded.
    """

    study: str
    number: int
    again: bool
    trial: TrialConfig
    protocol: Protocol | None = None
    leftover: float | None
    home: str
    store: str | None = None
    dataset_path: str
    source_path: str | None
    spool: str
    environments: str
    tags: dict[str, str]
    workers: int
    cpus: int
    gpus: float
    threads: int = 1
    unknown_threads: bool = False
    timeout: float | None = None
    name: str = ""
    title: str = ""
    objectives: tuple[str, ...] = ()
    system_metrics: bool = True

    @property
    def label(self) -> str:
        """The name of the trial for users."""
        return self.name or str(self.number)
