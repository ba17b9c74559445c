"""A driver's run of a study: the missing trials on the cluster, then the wrap-up."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console
from rich.text import Text

import coldtune
from coldtune import tracking
from coldtune.faults import machine_fault
from coldtune.store.provenance import git_commit, keep_environment
from coldtune.studies.execution import cluster, dispatch
from coldtune.studies.execution.executor import execute
from coldtune.studies.execution.joined import JoinedDrivers, wait_for_others
from coldtune.studies.execution.ray_watchdog import parts_of_ray, watch
from coldtune.studies.execution.session import Session
from coldtune.studies.execution.stopping import StopConditions
from coldtune.studies.execution.worker_starts import WorkerStarts
from coldtune.studies.preflight.capacity import Capacity, TrialResources, plan_resources
from coldtune.studies.preflight.checks import Checked
from coldtune.studies.preflight.nodes import TrialRequirements, check_nodes
from coldtune.studies.progress.closing import print_closing
from coldtune.studies.progress.events import EventBroadcast
from coldtune.studies.progress.mlflow_runs import MlflowRuns
from coldtune.studies.progress.opening import print_resources
from coldtune.studies.progress.overhead import WallTime
from coldtune.studies.progress.reconcile import is_wrapped_up
from coldtune.studies.progress.report.log import log_confirmed, log_report
from coldtune.studies.progress.results import describe_results
from coldtune.studies.progress.table import build_table
from coldtune.studies.progress.terminal import View, find_best
from coldtune.studies.progress.text import print_warning
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.record import StudyRecord, TrialRecord, imported, write_study
from coldtune.studies.trials.ledger import Ledger
from coldtune.studies.worker.datasets import link_dataset


def is_complete(session: Session) -> bool:
    """Return True if nothing is left to do, after delivering any records that an earlier driver left behind."""
    spool = session.checked.folder.spool
    complete = _all_ended(session) and is_wrapped_up(spool)
    if complete and tracking.pending(spool, session.target):
        tracking.drain(spool, session.target)
    return complete


def run_trials(session: Session, ray: cluster.Cluster, console: Console) -> bool:
    """Run the missing trials, then measure the best trial on test, and close the connection to Ray.

    Returns:
        True if all trials ended, False if the run was interrupted.

    Raises:
        NotStartedError: If Ray does not start on this machine.
        MachineFaultError: If a fault of the machine ended a trial, for example a full disk. Any other error from which
            `coldtune.faults.machine_fault` tells such a fault was raised by the driver's own work.
        StoppedError: If the study reaches one of its own limits.
        StorageGoneError: If the study's storage is gone.
    """
    tags = _tags(session)
    runs = _open_runs(session, tags)
    run = _StudyRun(session, console, runs, tags)
    try:
        with (
            ray as connection,
            watch(parts_of_ray(connection.own), partial(run.end_without_ray, connection.own)),
            run.screen,
        ):
            return run.on_cluster(connection)
    except BaseException as error:
        with _in_spite_of_faults():
            runs.interrupted(session.ledger.running())
        if isinstance(error, KeyboardInterrupt):
            return False
        raise
    finally:
        with _in_spite_of_faults():
            if left := runs.close():
                text = (
                    f"{left:,} bytes of this study's records wait in {session.checked.folder.spool}: the tracking "
                    "server did not take them; the next run delivers them"
                )
                console.print(Text(text, style="yellow"))


@dataclass(frozen=True)
class _StudyRun:
    """A driver's run of a study on a cluster.

    Attributes:
        tags: The tags of every MLflow run of the study.
        screen: Open while the view is on the screen.
    """

    session: Session
    console: Console
    runs: MlflowRuns
    tags: Mapping[str, object]
    screen: ExitStack = field(default_factory=ExitStack)

    def on_cluster(self, connection: cluster.Connection) -> bool:
        """Run the missing trials and wrap up. Return False if trials are still missing at the end."""
        checked, ledger = self.session.checked, self.session.ledger
        check_nodes(_requirements(checked, self.session.target))
        resources = plan_resources(
            cluster.nodes(),
            checked.options.workers,
            checked.options.gpus_per_trial,
            ledger.trainings(checked.trials),
            checked.spec.threads or 1,
        )
        print_resources(self.console, resources, connection.own, connection.dashboard)
        ledger.lease.announce(connection.dashboard)
        for note in connection.notes:
            print_warning(self.console, note)
        _interrupt_on_sigterm()
        job = dispatch.jobs(checked, resources, self.tags)
        wall_time = WallTime(resources.count, checked.options.begun)
        missing = not _all_ended(self.session)  # False if a driver died between the last trial and the wrap-up
        self._execute(connection, job, resources, wall_time)
        if missing:
            self.console.print(f"\n{wall_time}", highlight=False)
        if not self.runs.leads():
            return True
        if missing:
            self.runs.parent.metrics({"study/overhead_percent": wall_time.overhead_percent()}, ledger.ended())
        if not _all_ended(self.session):
            self.runs.interrupted(ledger.running())
            return False
        self._wrap_up(job, resources)
        return True

    def _execute(
        self, connection: cluster.Connection, job: dispatch.Jobs, resources: TrialResources, wall_time: WallTime
    ) -> None:
        """Run trials until nothing is left to ask, including the trials of other drivers that die meanwhile."""
        checked, ledger = self.session.checked, self.session.ledger
        trials, limits, scratch = checked.trials, checked.options.limits, checked.options.home / "ray"
        capacity = Capacity(resources, ledger.trainings(trials), cluster.nodes)
        view = self.screen.enter_context(_view(self.session, self.console))
        others = JoinedDrivers(ledger, view)
        starts = WorkerStarts(connection, view.waits)
        stops = StopConditions(limits, capacity, view.notice)
        events = EventBroadcast([self.runs, view, wall_time, starts, stops, others])
        more = ledger.wanted(trials) > 0 or wait_for_others(ledger, others, trials)
        while more:
            execute(ledger, events, job, capacity, trials, scratch, retries=limits.retries)
            more = wait_for_others(ledger, others, trials)
        self.screen.close()

    def _wrap_up(self, job: dispatch.Jobs, resources: TrialResources) -> None:
        """Measure the best trial on test and write the table. Only the leading driver does, after the last trial.

        A confirmation replaces the measurement on test.
        """
        checked, ledger = self.session.checked, self.session.ledger
        if checked.space.size is None and not checked.options.confirm:
            dispatch.on_test(checked, ledger, self.runs, job, resources, self.console)
        # Before anything is written about the study, because a settled study has ended.
        early = ledger.settled_early(checked.trials)
        if early is not None:
            write_study(ledger.study, settled=ledger.finished())
        table = build_table(ledger, equal_within=checked.options.equal_within)
        for path in table.write(checked.folder.path):
            self.runs.parent.artifact(path)
        log_report(checked.folder, ledger, self.runs.parent, checked.options.equal_within)
        self.runs.finished([*filter(None, [early]), *describe_results(ledger, table)])
        if ledger.spec.confirmation is not None:
            search = StudyFolder(checked.options.home, ledger.spec.confirmation.study)
            log_confirmed(search, self.session.target, checked.options.equal_within)

    def end_without_ray(self, own_cluster: bool, reason: str) -> None:
        """Mark the runs as interrupted and print how to resume, after Ray died.

        Args:
            own_cluster: True if this driver started Ray.
            reason: Which part of Ray is gone, as a sentence.
        """
        session = self.session
        self.screen.close()
        restart = "" if own_cluster else "; start the cluster again before you resume"
        self.console.print(Text(f"\n{reason}, and its trials with it{restart}", style="red"))
        self.runs.interrupted(session.ledger.running())
        self.runs.close()
        print_closing(self.console, session.checked, session.ledger, session.target, finished=False)


@contextmanager
def _in_spite_of_faults() -> Iterator[None]:
    """Let a fault of the machine pass that hits the end of a run, because it must not hide why the run ended."""
    try:
        yield
    except Exception as error:
        if machine_fault(error) is None:
            raise
        logging.getLogger("coldtune.studies").warning("%s", machine_fault(error))


def _all_ended(session: Session) -> bool:
    return session.ledger.is_done(session.checked.trials)


def _tags(session: Session) -> dict[str, object]:
    """Return the tags of all MLflow runs of the study."""
    checked, identity = session.checked, StudyRecord.of(session.ledger.study).identity
    return {
        "job": checked.spec.job,
        "mlflow.source.name": checked.spec.job,
        "mlflow.source.type": "JOB",
        "mlflow.source.git.commit": git_commit() or f"coldtune {coldtune.__version__}",
        tracking.TAG_PROTOCOL: checked.protocol.key[:12],
        **({tracking.TAG_STUDY_ID: identity} if identity else {}),
    }


def _requirements(checked: Checked, target: tracking.Target) -> TrialRequirements:
    """Return the places that every node must see to run the study's trials."""
    datasets = {f"dataset {dataset.name}": dataset.path for dataset in [checked.dataset, *checked.sources.values()]}
    folders = {"home": checked.options.home} | ({} if checked.store.remote else {"store": checked.store.path})
    return TrialRequirements(folders, datasets, checked.store, target.uri, checked.options.storage)


def _open_runs(session: Session, tags: Mapping[str, object]) -> MlflowRuns:
    """Open the study's MLflow runs. Only the leading driver writes to the study's own run."""
    checked, ledger = session.checked, session.ledger
    environment = keep_environment(checked.folder.environments)
    versions = {name: environment[name] for name in ("host", "python", "torch")}
    # The counts are no parameters, because they can grow.
    replicates = checked.replicates if checked.spec.race is None else str(checked.spec.race)
    tags = {**tags, "trials": checked.trials, "replicates": replicates, **versions}
    runs = MlflowRuns(ledger, checked.folder.name, checked.folder.spool, session.target, tags)
    if runs.leads():
        runs.reconcile()
        objectives = ", ".join(objective.metric for objective in checked.spec.objectives)
        runs.parent.params({"objective": objectives, **_imported(ledger)})
        link_dataset(runs.parent, checked.dataset)
        runs.parent.artifact(checked.folder.environments / f"{environment['software']}.json")
        runs.parent.artifact(checked.folder.path / "spec.yaml")
    return runs


def _imported(ledger: Ledger) -> dict[str, object]:
    """Return how many trials were imported, and from which studies. Imported trials have no run in this study."""
    records = (TrialRecord.of(trial) for trial in imported(ledger.trials()))
    origins = Counter(record.imported_from.study for record in records if record.imported_from)
    return {"imported_trials": ledger.imported(), "imported_from": dict(origins)} if origins else {}


def _view(session: Session, console: Console) -> View:
    checked, ledger = session.checked, session.ledger
    objective = checked.spec.objective
    return View(
        console=console,
        name=checked.folder.name,
        total=ledger.trainings(checked.trials),
        ended=ledger.ended(),
        metric=objective.metric,
        minimize=objective.direction == "minimize",
        best=find_best(ledger),
        find_best=partial(find_best, ledger) if ledger.replicated else None,
        what="trials" if not ledger.replicated else "trainings" if ledger.race is None else "trainings at most",
    )


def _interrupt_on_sigterm() -> None:
    """Treat SIGTERM, which `ray job stop` and schedulers send, like Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
