"""The work that a study hands to the cluster: its trials as jobs, and its best trial once more on the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console

import coldtune
from coldtune import tracking
from coldtune.config import plain
from coldtune.diffusion import build_degradation, source_of
from coldtune.store.provenance import git_commit
from coldtune.studies.preflight import nodes
from coldtune.studies.preflight.capacity import TrialResources
from coldtune.studies.preflight.checks import Checked
from coldtune.studies.progress.mlflow_runs import MlflowRuns
from coldtune.studies.space.config import VARIANT
from coldtune.studies.storage.record import StudyRecord, TestResult, write_study
from coldtune.studies.trials.ledger import Ledger, TrialRequest
from coldtune.studies.worker.job import TrialJob

Jobs = Callable[[TrialRequest], TrialJob]
"""Returns the job of a trial that the study asks."""


def needs(checked: Checked, target: tracking.Target) -> nodes.TrialRequirements:
    """Return what every node must have to run the study's trials."""
    datasets = {f"dataset {dataset.name}": dataset.path for dataset in [checked.dataset, *checked.sources.values()]}
    store = {} if checked.store.remote else {"store": checked.store.path}
    return nodes.TrialRequirements(
        {"home": checked.options.home, **store}, datasets, checked.store, target.uri, checked.options.storage
    )


def tags(checked: Checked) -> dict[str, object]:
    """Return the tags of the study's own run, which all runs of its trials have too."""
    return {
        "git_commit": git_commit() or f"coldtune {coldtune.__version__}",
        "job": checked.spec.job,
        "mlflow.source.name": checked.spec.job,
        "dataset_fingerprint": checked.dataset.fingerprint,
    }


def jobs(checked: Checked, slots: TrialResources, tags: Mapping[str, object]) -> Jobs:
    """Return the function that makes the job of a trial.

    Args:
        slots: The resources of each trial.
        tags: The tags of its run.
    """

    def job(asked: TrialRequest) -> TrialJob:
        degradation = build_degradation(asked.config.degradation, checked.dataset.image_shape)
        source = source_of(asked.config.degradation)
        named: dict[str, object] = {VARIANT: asked.point[VARIANT]} if VARIANT in asked.point else {}
        if asked.promoted_from is not None:
            named["promoted_from"] = asked.promoted_from
        return TrialJob(
            study=checked.folder.name,
            number=asked.number,
            again=asked.again,
            trial=asked.config,
            protocol=checked.protocol,
            leftover=getattr(degradation, "leftover", None),
            home=str(checked.options.home),
            store=checked.store.where,
            dataset_path=str(checked.dataset.path),
            source_path=str(checked.sources[source].path) if source else None,
            spool=str(checked.folder.spool),
            tags={key: str(value) for key, value in {**tags, **named}.items()},
            workers=slots.workers,
            cpus=slots.cpus,
            gpus=slots.gpus,
            timeout=checked.options.limits.trial_timeout,
        )

    return job


def on_test(
    checked: Checked, ledger: Ledger, records: MlflowRuns, job: Jobs, slots: TrialResources, console: Console
) -> None:
    """Measure the best trial on the test split, unless it was measured before or no trial has completed."""
    best = ledger.best()
    tested = StudyRecord.of(ledger.study).test
    if best is None or (tested is not None and tested.trial == best.number):
        return
    import ray

    from coldtune.studies.worker.trial import measure_on_test

    config = checked.space.resolve(best.params)
    asked = TrialRequest(best.number, best.params, config, again=False)
    remote = ray.remote(measure_on_test).options(num_cpus=slots.cpus, num_gpus=slots.gpus, name="coldtune_test")
    with console.status(f"measuring trial {best.number}, the best, on the test split"):
        values, protocol = ray.get(remote.remote(plain(job(asked))))
    result = TestResult(best.number, values, protocol)
    write_study(ledger.study, test=result)
    records.parent.metrics({f"test_{key}": value for key, value in values.items()}, ledger.finished())
    records.parent.tags({"best_trial": best.number, "test_protocol": result.judged_under.key})
