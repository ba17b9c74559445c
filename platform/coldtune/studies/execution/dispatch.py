"""The work that a study hands to the cluster: its trials as jobs, and its best trial once more on the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from coldtune.config import plain
from coldtune.diffusion import build_degradation, source_of
from coldtune.faults import MachineFaultError, describe_error, machine_fault
from coldtune.studies.preflight.capacity import TrialResources
from coldtune.studies.preflight.checks import Checked
from coldtune.studies.progress.events import StoppedError
from coldtune.studies.progress.mlflow_runs import MlflowRuns
from coldtune.studies.space.config import VARIANT
from coldtune.studies.storage.record import StudyRecord, TestResult, write_study
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
        )

    return job


def on_test(
    checked: Checked, ledger: Ledger, runs: MlflowRuns, job: Jobs, resources: TrialResources, console: Console
) -> None:
    """Measure the best trial on the test split, unless it was measured before or no trial has completed.

    Raises:
        MachineFaultError: If a fault of the machine ended the measurement. The next run measures again.
        StoppedError: If the measurement failed.
    """
    best = ledger.best()
    tested = StudyRecord.of(ledger.study).test
    if best is None or (tested is not None and tested.trial == best.number):
        return
    import ray

    from coldtune.studies.worker.trial import measure_on_test

    config = checked.space.resolve(best.params)
    request = TrialRequest(best.number, best.params, config, again=False)
    # Ray itself would repeat a task without end whose process it kills for its memory.
    remote = ray.remote(measure_on_test).options(
        num_cpus=resources.cpus, num_gpus=resources.gpus, name="coldtune_test", max_retries=0
    )
    with console.status(f"measuring trial {best.number}, the best, on the test split"):
        try:
            values, protocol = _run_task(remote, plain(job(request)), checked.options.limits.retries)
        except Exception as error:
            what = f"the measurement of trial {best.number} on the test split"
            if (fault := machine_fault(error)) is not None:
                raise MachineFaultError(f"{what}: {fault}") from error
            raise StoppedError(f"{what} failed: {describe_error(getattr(error, 'cause', None) or error)}") from error
    result = TestResult(best.number, values, protocol)
    write_study(ledger.study, test=result)
    runs.parent.metrics({f"test_{key}": value for key, value in values.items()}, ledger.finished())
    runs.parent.tags({"best_trial": best.number, "test_protocol": result.judged_under.key})


def _run_task(remote: Any, argument: object, retries: int) -> Any:
    """Return the result of a task, and start it again up to `retries` times if its process dies."""
    import ray

    for left in reversed(range(retries + 1)):
        try:
            return ray.get(remote.remote(argument))
        except ray.exceptions.RayTaskError:
            raise  # the error of the task itself, which would come again
        except ray.exceptions.RayError:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")
