"""One driver's run of a study: the missing trials on the cluster, then the wrap-up."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Console

from coldtune import tracking
from coldtune.studies.execution import cluster, dispatch
from coldtune.studies.execution.executor import execute
from coldtune.studies.execution.joined import JoinedDrivers, wait_for_others
from coldtune.studies.execution.ray_watchdog import ray_endpoints, watch
from coldtune.studies.execution.stopping import StopConditions
from coldtune.studies.preflight import nodes
from coldtune.studies.preflight.capacity import Capacity, TrialResources, plan_resources
from coldtune.studies.preflight.checks import Checked
from coldtune.studies.preflight.options import RunOptions
from coldtune.studies.progress import closing, opening
from coldtune.studies.progress.events import EventBroadcast
from coldtune.studies.progress.mlflow_runs import MlflowRuns
from coldtune.studies.progress.overhead import WallTime
from coldtune.studies.progress.terminal import View
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.record import TrialRecord, imported
from coldtune.studies.trials.ledger import Ledger


def run_trials(
    checked: Checked,
    ledger: Ledger,
    options: RunOptions,
    target: tracking.Target,
    console: Console,
    close: Callable[[bool], None],
) -> bool:
    """Run the missing trials, then measure the best trial on test.

    Args:
        close: Prints the end of a study and how to resume it. It is used if the process must exit from here.

    Returns:
        True if all trials ended, False if the run was interrupted.
    """
    tags = dispatch.tags(checked)
    records = _records(checked, ledger, target, tags)
    run = _Run(checked, ledger, options, target, console, records, tags)
    try:
        with (
            cluster.connect(checked.folder.name) as context,
            watch(ray_endpoints(context["own"]), partial(run.end_without_ray, close, context["own"])),
            run.shown,
        ):
            return run.on(context)
    except BaseException as error:
        records.interrupted(ledger.running())
        if isinstance(error, KeyboardInterrupt):
            return False
        raise
    finally:
        if left := records.close():
            console.print(
                f"[yellow]{left:,} bytes of this study's records wait in {checked.folder.spool}: the tracking server "
                "did not take them; the next run delivers them[/]"
            )


@dataclass(frozen=True)
class _Run:
    """One driver's run of a study. `shown` is open while the view is on the screen."""

    checked: Checked
    ledger: Ledger
    options: RunOptions
    target: tracking.Target
    console: Console
    records: MlflowRuns
    tags: Mapping[str, object]
    shown: ExitStack = field(default_factory=ExitStack)

    def on(self, context: dict[str, Any]) -> bool:
        """Run on the connected cluster. Return False if trials are still missing at the end."""
        checked, options = self.checked, self.options
        nodes.check_nodes(dispatch.needs(checked, options, self.target))
        resources = plan_resources(cluster.nodes(), options.workers, options.gpus_per_trial, checked.trials)
        capacity = Capacity(resources, checked.trials, cluster.nodes)
        opening.running(self.console, resources, context)
        _interrupt_on_sigterm()
        view = self._view()
        job = dispatch.jobs(checked, options, resources, self.tags)
        wall_time = WallTime(resources.count, options.begun)
        self.shown.enter_context(view)
        missing = not self._all_ended()  # False if an earlier driver finished the trials but died before the wrap-up
        self._execute(job, capacity, view, wall_time)
        self.shown.close()
        if missing:
            self.console.print(f"\n{wall_time}", highlight=False)
        if not self.records.leads():
            return True
        if missing:
            self.records.parent.metrics({"overhead_percent": wall_time.overhead_percent()}, self.ledger.finished())
        if not self._all_ended():
            self.records.interrupted(self.ledger.running())
            return False
        self._wrap_up(job, resources)
        return True

    def _all_ended(self) -> bool:
        return self.ledger.finished() >= self.checked.trials

    def _view(self) -> View:
        best, objective = self.ledger.best(), self.checked.spec.objective
        return View(
            console=self.console,
            name=self.checked.folder.name,
            total=self.checked.trials,
            ended=self.ledger.finished(),
            metric=objective.metric,
            minimize=objective.direction == "minimize",
            best=(best.values[0], best.number) if best else None,
        )

    def _execute(self, job: dispatch.Jobs, capacity: Capacity, view: View, wall_time: WallTime) -> None:
        """Run trials until nothing is left to ask, including the trials of other drivers that die meanwhile."""
        ledger, trials, limits = self.ledger, self.checked.trials, self.options.limits
        others = JoinedDrivers(ledger, view)
        events = EventBroadcast([self.records, view, wall_time, StopConditions(limits, capacity, view.notice), others])
        more = ledger.wanted(trials) > 0 or wait_for_others(ledger, others, trials)
        while more:
            execute(ledger, events, job, capacity, trials, self.options.home / "ray", retries=limits.retries)
            more = wait_for_others(ledger, others, trials)

    def _wrap_up(self, job: dispatch.Jobs, resources: TrialResources) -> None:
        """Measure the best trial on test and write the table. Only the leading driver does, after the last trial."""
        if self.checked.space.size is None:
            dispatch.on_test(self.checked, self.ledger, self.records, job, resources, self.console)
        for path in closing.write_table(self.checked.folder, self.ledger):
            self.records.parent.artifact(path)
        self.records.finished()

    def end_without_ray(self, close: Callable[[bool], None], own: bool, why: str) -> None:
        """Mark the runs as interrupted and print how to resume, after Ray died.

        Args:
            own: True if this driver started Ray.
            why: What died, as a sentence.
        """
        self.shown.close()
        again = "" if own else "; start the cluster again before you resume"
        self.console.print(f"\n[red]{why}, and its trials with it{again}[/]", highlight=False)
        self.records.interrupted(self.ledger.running())
        self.records.close()
        close(False)


def _records(checked: Checked, ledger: Ledger, target: tracking.Target, tags: Mapping[str, object]) -> MlflowRuns:
    """Return the study's MLflow records. Only the leading driver writes to the study's own run."""
    spool, of_study = checked.folder.spool, {**tags, "protocol": checked.protocol.key}
    records = MlflowRuns(ledger, checked.folder.name, spool, target, of_study)
    if records.leads():
        records.settle()
        records.parent.params({"objective": _objective_names(checked.spec), **_imported(ledger)})
        records.parent.tags({"trials": checked.trials})  # no parameter, because the number can grow
        records.parent.artifact(checked.folder.path / "spec.yaml")
    return records


def _interrupt_on_sigterm() -> None:
    """Treat SIGTERM, which `ray job stop` and schedulers send, like Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def _imported(ledger: Ledger) -> dict[str, object]:
    """Return how many trials were imported, and from which studies. Imported trials have no run in this study."""
    records = (TrialRecord.of(trial) for trial in imported(ledger.trials()))
    origins = Counter(record.imported_from.study for record in records if record.imported_from)
    return {"imported_trials": ledger.imported(), "imported_from": dict(origins)} if origins else {}


def _objective_names(spec: StudySpec) -> str:
    return ", ".join(objective.metric for objective in spec.objectives)
