"""The MLflow runs of a study and its trials, as the driver records them, and the study's gauges in Prometheus."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.progress.events import Events
from coldtune.studies.progress.reconcile import reconcile_trials
from coldtune.studies.progress.text import (
    STATE_NAMES,
    metric_name,
    metric_value,
    run_name,
    spread_value,
    value_and_interval,
)
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.record import TestResult, TrialRecord, imported, is_imported
from coldtune.studies.storage.settings import Setting, Spread
from coldtune.studies.trials.ledger import Ledger, TrialRequest
from coldtune.tracking import NOTE, Drainer, Status, Target, Tracker, chosen_metrics, trial_metrics
from coldtune.tracking.prometheus import StudyMetrics
from coldtune.tracking.spool import Spool, run_file

MODEL = "restorer"
"""The name of the logged model of a study's best trial."""

_LOOK_S = 2.0  # between two looks at the trials that other drivers ended


class MlflowRuns(Events):
    """A listener that ends the trials' runs, writes the study's own run, and delivers all records of the home.

    A trial's process only adds to its run. Its driver ends the run, because only the driver knows how the trial ended.

    Several drivers of a study may share the spool of a home. Each writes the files of the trials that it runs. Only the
    leading driver writes the study's own run. Any of them delivers, one at a time.

    Attributes:
        parent: The study's own run, the parent of the trials' runs.
    """

    def __init__(self, ledger: Ledger, study: str, spool: Path, target: Target, tags: Mapping[str, object]) -> None:
        self.ledger, self.study, self.spool, self.target = ledger, study, spool, target
        self.parent = Tracker(spool, study, tags={**tags, "coldtune.kind": "study"}, running=self.leads())
        self._recorded, self._looked = ledger.ended(), time.monotonic()  # ended trials in the study's run
        self._drainer = Drainer(spool, target, wait=True)
        self._gauges = StudyMetrics(study)
        self._saved_s = self._total_saved_s()
        self._imported = len(self._completed_imports())

    def leads(self) -> bool:
        """Return True if this driver writes the study's own run."""
        return self.ledger.lease.leads()

    def reconcile(self) -> None:
        """Record what a killed driver told the study and not the runs. Call this once, at the start."""
        self._reconcile_trials()
        metric = self.ledger.spec.objective.metric
        if self.parent.has_metric(f"best_{metric}") and not self.parent.has_metric(f"best/{metric}"):
            self._add_names()
        if self.ledger.replicated:
            self._name_settings()
            return  # the best mean is recorded from now on, because means of the past depend on the order of the ends
        own = [trial for trial in self._own_trials() if trial.datetime_complete]
        best: FrozenTrial | None = min(self._completed_imports(), key=self.ledger.rank, default=None)
        saved_s = 0.0
        for count, trial in enumerate(sorted(own, key=lambda t: (t.datetime_complete, t.number)), 1):
            if trial.state == TrialState.COMPLETE:
                best = trial if best is None else min(best, trial, key=self.ledger.rank)
            saved_s += TrialRecord.of(trial).effort.saved or 0.0
            if best is not None:
                self._record_best(best.values[:1], count, saved_s)

    def _add_names(self) -> None:
        """Record the values of a study of an older version again, under the names that metrics have now.

        Otherwise a list or a chart of the study would show either its old or its new trials.
        """
        objectives = [objective.metric for objective in self.ledger.spec.objectives]
        for trial in self._own_trials():
            if trial.state == TrialState.COMPLETE and Spool(self.spool, run_file(trial.number)).size():
                with Tracker(self.spool, self.study, trial.number, running=False) as tracker:
                    tracker.metrics(trial_metrics(TrialRecord.of(trial).metrics, objectives))

    def _name_settings(self) -> None:
        """Tag the runs of trials that began before the study had replicates, so that pages can group them."""
        for trial in self._own_trials():
            if TrialRecord.of(trial).setting is not None or Spool(self.spool, run_file(trial.number)).status() is None:
                continue
            with Tracker(self.spool, self.study, trial.number, running=False) as tracker:
                tracker.tags({"setting": self.ledger.label(trial.number), "replicate": 0})

    def asked(self, request: TrialRequest) -> None:
        """Count the trial as running."""
        self._update_gauges()

    def completed(self, number: int, outcome: TrialOutcome) -> None:
        """End the trial's run as finished."""
        self._saved_s += outcome.effort.saved or 0.0
        self._end_trial(number, "finished", verdict=self._describe_trial(number, outcome.metrics))

    def failed(self, number: int, reason: str) -> None:
        """End the trial's run as failed, with the reason."""
        self._end_trial(number, "failed", reason)

    def pruned(self, number: int, step: int) -> None:
        """End the trial's run as pruned, with its values at the rung."""
        record = TrialRecord.of(self.ledger.trials()[number])
        self._saved_s += record.effort.saved or 0.0
        self._end_trial(number, "pruned", record.reason)

    def tick(self) -> None:
        """Record the trials that other drivers ended."""
        if time.monotonic() - self._looked >= _LOOK_S:
            self._looked = time.monotonic()
            if self.ledger.ended() > self._recorded:
                self._saved_s = self._total_saved_s()
                self._record_progress()

    def interrupted(self, numbers: Iterable[int]) -> None:
        """End the runs of these unfinished trials as interrupted. A later driver may continue them.

        The study's own run is interrupted too, unless other drivers continue the study.
        """
        for number in numbers:
            self._end_run(number, "interrupted")
        if not self.ledger.lease.others():
            self.parent.end("interrupted")

    def tested(self, result: TestResult, errors: Mapping[str, float | None], number: int) -> None:
        """Record the values of the best trial, or setting, `number` on the test split, with their standard errors."""
        objectives = [objective.metric for objective in self.ledger.spec.objectives]
        chosen = chosen_metrics(result.metrics, objectives)
        values: dict[str, float | None] = {f"test/{name}": value for name, value in chosen.items()}
        values |= {f"test/{name}_se": error for name, error in errors.items() if name in chosen}
        self.parent.metrics(values, self.ledger.ended())
        self.parent.tags({"best_trial": number, "test_protocol": result.judged_under.key[:12]})

    def finished(self, results: Sequence[str] = ()) -> None:
        """End the study's run and any trial's run that is still open, and describe the results.

        Args:
            results: The study's results in sentences, which become the description of its run.
        """
        self._reconcile_trials()
        if self.ledger.replicated:
            self._record_settings()
        self.parent.tags({NOTE: "\n\n".join([self._describe_study(), *results])})
        best = self.ledger.best()
        if best is not None and Spool(self.spool, run_file(best.number)).size():  # an imported trial has no run here
            with Tracker(self.spool, self.study, best.number, running=False) as tracker:
                _note_verdict(tracker, self._describe_trial(best.number, TrialRecord.of(best).metrics, final=True))
                self._log_model(tracker, best)
        self.parent.end("finished")

    def _log_model(self, tracker: Tracker, best: FrozenTrial) -> None:
        """Log the restorer of the best trial as a model, unless it is no longer in the store."""
        from coldtune.stages.mlflow_model import write_model
        from coldtune.stages.weights import Weights

        record, config = TrialRecord.of(best), self.ledger.config(best)
        if tracker.has_model(MODEL) or record.checkpoint is None or (protocol := record.judged_under) is None:
            return
        with tempfile.TemporaryDirectory() as scratch, suppress(OSError, ValueError):
            training = str(record.checkpoint).rpartition("/")[0]  # the end of an address is its step
            steps = Weights.of(config.training, config.sampler).steps
            checkpoints = {step: self.ledger.local_folder(f"{training}/{step:08d}") for step in steps}
            write_model(Path(scratch) / MODEL, checkpoints, config, protocol.image_shape)
            tracker.model(Path(scratch) / MODEL, MODEL)

    def close(self, timeout: float = 20.0) -> int:
        """Deliver the remaining records, and return the bytes that could not be delivered and stay in the spool."""
        with ExitStack() as stack:
            stack.callback(self.parent.close)
            stack.callback(self._gauges.close)
            self._drainer.flush(timeout)
            self._drainer.close()
        return self._drainer.pending()

    def _reconcile_trials(self) -> None:
        interrupted = set(self.ledger.interrupted())
        trials = (t for t in self.ledger.trials() if t.state.is_finished() or t.number in interrupted)
        reconcile_trials(trials, self.study, self.spool)

    def _own_trials(self) -> list[FrozenTrial]:
        return [trial for trial in self.ledger.trials() if not is_imported(trial)]

    def _completed_imports(self) -> list[FrozenTrial]:
        return [trial for trial in imported(self.ledger.trials()) if trial.state == TrialState.COMPLETE]

    def _total_saved_s(self) -> float:
        return sum(TrialRecord.of(trial).effort.saved or 0.0 for trial in self._own_trials())

    def _end_trial(self, number: int, status: Status, reason: str | None = None, verdict: str = "") -> None:
        self._end_run(number, status, reason, verdict)
        self._record_progress()
        self._update_gauges()

    def _end_run(self, number: int, status: Status, reason: str | None = None, verdict: str = "") -> None:
        with Tracker(self.spool, self.study, number, name=self._run_name(number), running=False) as tracker:
            if verdict:
                _note_verdict(tracker, verdict)
            tracker.end(status, reason)

    def _run_name(self, number: int) -> str:
        """Return the name of the run of a trial whose process ended before it opened the run."""
        return run_name(self.ledger.label(number), self.ledger.trials()[number].params)

    def _describe_trial(self, number: int, metrics: Mapping[str, float], *, final: bool = False) -> str:
        """Describe a finished trial by its values and its place among the trials that have finished by now.

        Args:
            final: Describe the best trial of a finished study. Later trials may beat any other description.
        """
        what, best = "setting" if self.ledger.replicated else "trial", self.ledger.best_setting()
        done = self.ledger.states().get(TrialState.COMPLETE, 0) - self._imported
        count = f"{done} {'training' if self.ledger.replicated else 'trial'}{'s' * (done != 1)}"
        values = ", ".join(metric_value(name, metrics) for name in self._shown() if name in metrics)
        if best is None:
            return values
        is_best = any(trial.number == number for trial in best.finished.values())
        subject, mean = ("Its setting", "mean ") if self.ledger.replicated else ("It", "")
        if is_best and final:
            return f"{values}. {subject} has the best {mean}{self._objective} of {count}."
        if is_best:
            return f"{values}. When {count} had finished, {subject.lower()} had the best {mean}{self._objective}."
        return f"{values}. When {count} had finished, {what} {best.number} had the best {self._value_of(best)}."

    def _describe_study(self) -> str:
        """Describe the best trial or setting of the study, or say that its trials fill a table of the paper."""
        if self.ledger.spec.table is not None:
            return f"**{self.ledger.ended()} trials for the table {self.ledger.spec.table}.**"
        best = self.ledger.best_setting()
        if best is None:
            return "**No trial has finished.**"
        point = run_name(str(best.number), best.point).partition(": ")[2]
        what = "setting" if self.ledger.replicated else "trial"
        ended, where = self.ledger.ended(), f" ({point})" if point else ""
        return f"**After {ended} trials, {what} {best.number}{where} has the best {self._value_of(best)}.**"

    @property
    def _objective(self) -> str:
        return metric_name(self.ledger.spec.objective.metric)

    def _value_of(self, best: Setting) -> str:
        """Return the first objective of the best trial, or the mean of the best setting with its trainings."""
        spread, metric = Spread.of(best.values()), self.ledger.spec.objective.metric
        if self.ledger.replicated:
            return f"mean {self._objective}, {spread_value(spread)}"
        known = TrialRecord.of(next(iter(best.finished.values()))).metrics
        shown = value_and_interval(spread.mean, known.get(f"{metric}_low"), known.get(f"{metric}_high"))
        return f"{self._objective}, {shown}"

    def _shown(self) -> list[str]:
        """Return the metrics of a description."""
        objectives = [objective.metric for objective in self.ledger.spec.objectives]
        return list(dict.fromkeys([*objectives, "fid", "fid_direct", "ssim", "rmse", "nfe"]))

    def _record_progress(self) -> None:
        self._recorded = self.ledger.ended()
        best = self.ledger.best_setting()
        if best is None or not self.leads():
            return
        self._record_best(best.values(), self._recorded, self._saved_s)
        if self.ledger.spec.objective.metric == "fid":
            self._gauges.best_fid(Spread.of(best.values()).mean)

    def _record_best(self, values: Sequence[float], ended: int, saved_s: float) -> None:
        """Record the best trial, or the mean of the best setting, after `ended` trials.

        Steps are counts of ended trials, and a known step stays.
        """
        name, spread = f"best/{self.ledger.spec.objective.metric}", Spread.of(values)
        given = {name: spread.mean, "study/trials_ended": float(ended), "study/seconds_saved": saved_s}
        if spread.error is not None:
            given[f"{name}_se"] = spread.error
        self.parent.metrics(given, ended)

    def _record_settings(self) -> None:
        """Record the mean and the standard error of each setting. The step is the number of the setting.

        The name of a metric has the number of trainings, because a step that is known keeps its value, and a study may
        be given more trainings.
        """
        for setting in self.ledger.settings():
            for objective in self.ledger.spec.objectives:
                spread = setting.spread(objective.metric)
                if spread is not None and spread.error is not None:
                    name = f"settings/{objective.metric}_of_{spread.n}"
                    self.parent.metrics({f"{name}_mean": spread.mean, f"{name}_se": spread.error}, setting.number)

    def _update_gauges(self) -> None:
        counts = self.ledger.states()
        self._gauges.trials({name: count for state, name in STATE_NAMES.items() if (count := counts.get(state))})


def _note_verdict(tracker: Tracker, verdict: str) -> None:
    """Put a verdict before the description of a run, in the place of an earlier verdict."""
    rest = tracker.tag(NOTE)
    if rest.startswith("**"):
        rest = rest.partition("\n\n")[2]
    tracker.tags({NOTE: "\n\n".join(filter(None, [f"**{verdict}**", rest]))})
