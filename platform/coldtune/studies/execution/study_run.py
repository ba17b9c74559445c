"""Running the trials that a study lacks on the cluster, and what comes after the last one."""

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
from coldtune.studies.execution import cluster
from coldtune.studies.execution import dispatch as tasks
from coldtune.studies.execution.executor import execute
from coldtune.studies.execution.joined import JoinedDrivers, wait_for_others
from coldtune.studies.execution.ray_watchdog import ray_places, watch
from coldtune.studies.execution.stopping import StopConditions
from coldtune.studies.preflight import nodes as reach
from coldtune.studies.preflight.capacity import Capacity, TrialResources, plan
from coldtune.studies.preflight.checks import Checked
from coldtune.studies.preflight.options import RunOptions
from coldtune.studies.progress import closing, opening
from coldtune.studies.progress.events import EventBroadcast
from coldtune.studies.progress.mlflow_runs import MlflowRuns
from coldtune.studies.progress.overhead import WallTime
from coldtune.studies.progress.terminal import View
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.record import IMPORTED_FROM, imported
from coldtune.studies.trials.ledger import Ledger


def run_trials(
    checked: Checked,
    ledger: Ledger,
    options: RunOptions,
    target: tracking.Target,
    console: Console,
    close: Callable[[bool], None],
) -> bool:
    """Run the trials that are missing, then measure the best one on test; False where it was interrupted.

    close: says how a study ended, and how to resume it; for an end that does not come back here.
    """
    tags = tasks.tags(checked)
    records = _records(checked, ledger, target, tags)
    run = _Run(checked, ledger, options, target, console, records, tags)
    try:
        with (
            cluster.connect(checked.folder.name) as context,
            watch(ray_places(context["own"]), partial(run.farewell, close, context["own"])),
            run.shown,
        ):
            return run.on(context)
    except BaseException as error:
        records.interrupted(ledger.live())
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
    """One driver's run of a study. shown: holds the view while trials run."""

    checked: Checked
    ledger: Ledger
    options: RunOptions
    target: tracking.Target
    console: Console
    records: MlflowRuns
    tags: Mapping[str, object]
    shown: ExitStack = field(default_factory=ExitStack)

    def on(self, context: dict[str, Any]) -> bool:
        """Run on the cluster of this context of Ray's; False where trials are still missing."""
        checked, options = self.checked, self.options
        reach.check(tasks.needs(checked, options, self.target))
        slots = plan(cluster.nodes(), options.workers, options.gpus_per_trial, checked.trials)
        room = Capacity(slots, checked.trials, cluster.nodes)
        opening.running(self.console, slots, context)
        _interrupt_on_sigterm()
        view = self._view()
        job = tasks.jobs(checked, options, slots, self.tags)
        spent = WallTime(slots.count, options.begun)
        self.shown.enter_context(view)
        missing = not self._all_ended()  # none is, where a driver died between the last trial and the end
        self._execute(job, room, view, spent)
        self.shown.close()
        if missing:
            self.console.print(f"\n{spent}", highlight=False)
        if not self.records.leads():
            return True
        if missing:
            self.records.parent.metrics({"overhead_percent": spent.overhead_percent()}, self.ledger.finished())
        if not self._all_ended():
            self.records.interrupted(self.ledger.live())
            return False
        self._end(job, slots)
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

    def _execute(self, job: tasks.Jobs, room: Capacity, view: View, spent: WallTime) -> None:
        """Run trials until none is left to ask, for this driver or after others have died."""
        ledger, trials, limits = self.ledger, self.checked.trials, self.options.limits
        together = JoinedDrivers(ledger, view)
        events = EventBroadcast([self.records, view, spent, StopConditions(limits, room, view.notice), together])
        more = ledger.wanted(trials) > 0 or wait_for_others(ledger, together, trials)
        while more:
            execute(ledger, events, job, room, trials, self.options.home / "ray", retries=limits.retries)
            more = wait_for_others(ledger, together, trials)

    def _end(self, job: tasks.Jobs, slots: TrialResources) -> None:
        """What the driver that leads does once all trials have ended."""
        if self.checked.space.size is None:
            tasks.on_test(self.checked, self.ledger, self.records, job, slots, self.console)
        for path in closing.write_table(self.checked.folder, self.ledger):
            self.records.parent.artifact(path)
        self.records.finished()

    def farewell(self, close: Callable[[bool], None], own: bool, why: str) -> None:
        """End a run whose Ray died (own: started by this driver), in the little time that is left."""
        self.shown.close()
        again = "" if own else "; start the cluster again before you resume"
        self.console.print(f"\n[red]{why}, and its trials with it{again}[/]", highlight=False)
        self.records.interrupted(self.ledger.live())
        self.records.close()
        close(False)


def _records(checked: Checked, ledger: Ledger, target: tracking.Target, tags: Mapping[str, object]) -> MlflowRuns:
    """The study's records, begun where this driver leads."""
    spool, of_study = checked.folder.spool, {**tags, "protocol": checked.protocol.key}
    records = MlflowRuns(ledger, checked.folder.name, spool, target, of_study)
    if records.leads():
        records.settle()
        records.parent.params({"objective": _and(checked.spec), **_imported(ledger)})
        records.parent.tags({"trials": checked.trials})  # a larger number extends the study; parameters stay
        records.parent.artifact(checked.folder.path / "spec.yaml")
    return records


def _interrupt_on_sigterm() -> None:
    """`ray job stop` and schedulers send SIGTERM: end as on Ctrl-C, saying how to resume."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def _imported(ledger: Ledger) -> dict[str, object]:
    """How many trials came from other studies, and from which: they have no run of their own in this one."""
    origins = Counter(trial.user_attrs[IMPORTED_FROM]["study"] for trial in imported(ledger.trials()))
    return {"imported_trials": ledger.imported(), "imported_from": dict(origins)} if origins else {}


def _and(spec: StudySpec) -> str:
    return ", ".join(objective.metric for objective in spec.objectives)
