"""The work that a study hands to the cluster: its trials as jobs, and its best trial once more on the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console

from coldtune.config import plain
from coldtune.diffusion import build_degradation, source_of
from coldtune.faults import MachineFaultError, describe_error, machine_fault
from coldtune.studies.preflight.capacity import TrialResources
from coldtune.studies.preflight.checks import Checked
from coldtune.studies.progress.events import StoppedError
from coldtune.studies.progress.mlflow_runs import MlflowRuns
from coldtune.studies.progress.text import run_name
from coldtune.studies.space.config import VARIANT
from coldtune.studies.storage.record import StudyRecord, TestResult, write_study
from coldtune.studies.storage.settings import Setting, is_measured_alone, spreads_of
from coldtune.studies.trials.ledger import Ledger, TrialRequest
from coldtune.studies.worker.job import TrialJob

Jobs = Callable[[TrialRequest], TrialJob]
"""Returns the job of a trial that the study asks."""


def jobs(checked: Checked, resources: TrialResources, tags: Mapping[str, object]) -> Jobs:
    """Return the function that makes the job of a trial.

    Args:
        resources: The resources of each trial.
        tags: The tags of its run.
    """

    def job(request: TrialRequest) -> TrialJob:
        degradation = build_degradation(request.config.degradation, checked.dataset.image_shape)
        source = source_of(request.config.degradation)
        named: dict[str, object] = {VARIANT: request.point[VARIANT]} if VARIANT in request.point else {}
        if request.promoted_from is not None:
            named["promoted_from"] = request.promoted_from
        if request.retry_of is not None:
            named["retry_of"] = request.retry_of
        named |= {"setting": request.setting, "replicate": request.replicate}
        return TrialJob(
            study=checked.folder.name,
            number=request.number,
            again=request.again,
            trial=request.config,
            protocol=checked.protocol,
            leftover=getattr(degradation, "leftover", None),
            home=str(checked.options.home),
            store=checked.store.where,
            dataset_path=str(checked.dataset.path),
            source_path=str(checked.sources[source].path) if source else None,
            spool=str(checked.folder.spool),
            environments=str(checked.folder.environments),
            tags={key: str(value) for key, value in {**tags, **named}.items()},
            workers=resources.workers,
            cpus=resources.cpus,
            gpus=resources.gpus,
            threads=checked.spec.threads or 1,
            unknown_threads=checked.spec.threads is None,
            timeout=checked.options.limits.trial_timeout,
            name=request.label,
            title=run_name(request.label, request.point),
            objectives=tuple(objective.metric for objective in checked.spec.objectives),
            system_metrics=not checked.options.no_system_metrics,
        )

    return job


def on_test(
    checked: Checked, ledger: Ledger, runs: MlflowRuns, job: Jobs, resources: TrialResources, console: Console
) -> None:
    """Measure the best trial on the test split, unless it was measured before or no trial has completed.

    With replicates, every finished training of the best setting is measured, and the result has their means.

    Raises:
        MachineFaultError: If a fault of the machine ended the measurement. The next run measures again.
        StoppedError: If the measurement failed.
    """
    best = ledger.best_setting()
    tested = StudyRecord.of(ledger.study).test
    if best is None or (tested is not None and _is_measured(tested, best)):
        return
    first = next(iter(best.finished.values()))
    measured = {
        trial.number: _measure(checked, ledger, trial, job, resources, console) for trial in best.finished.values()
    }
    each = {str(number): values for number, (values, _) in measured.items()} if len(measured) > 1 else {}
    _, protocol = measured[first.number]
    spreads = spreads_of([values for values, _ in measured.values()])
    result = TestResult(first.number, {name: spread.mean for name, spread in spreads.items()}, protocol, each)
    write_study(ledger.study, test=result)
    errors = {key: spread.error for key, spread in spreads.items() if is_measured_alone(key)}
    runs.tested(result, errors, best.number)


def _is_measured(tested: TestResult, best: Setting) -> bool:
    """Return True if exactly the finished trainings of the best setting were measured."""
    measured = {int(number) for number in tested.each} or {tested.trial}
    return measured == {trial.number for trial in best.finished.values()}


def _measure(
    checked: Checked, ledger: Ledger, trial: FrozenTrial, job: Jobs, resources: TrialResources, console: Console
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the metrics of a trial on the test split, and their protocol."""
    import ray

    from coldtune.studies.worker.trial import measure_on_test

    name = ledger.label(trial.number)
    request = TrialRequest(trial.number, trial.params, ledger.config(trial), again=False, name=name)
    # Ray itself would repeat a task without end whose process it kills for its memory.
    remote = ray.remote(measure_on_test).options(
        num_cpus=resources.cpus, num_gpus=resources.gpus, name="coldtune_test", max_retries=0
    )
    with console.status(f"measuring trial {name}, the best, on the test split"):
        try:
            return _run_task(remote, plain(job(request)), checked.options.limits.retries)
        except Exception as error:
            what = f"the measurement of trial {name} on the test split"
            if (fault := machine_fault(error)) is not None:
                raise MachineFaultError(f"{what}: {fault}") from error
            raise StoppedError(f"{what} failed: {describe_error(getattr(error, 'cause', None) or error)}") from error


def _run_task(remote: Any, argument: object, retries: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the result of a task, and start it again up to `retries` times if its process dies."""
    import ray

    for left in reversed(range(retries + 1)):
        try:
            values, protocol = ray.get(remote.remote(argument))
            return values, protocol
        except ray.exceptions.RayTaskError:
            raise  # the error of the task itself, which would come again
        except ray.exceptions.RayError:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")
