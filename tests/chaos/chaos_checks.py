"""Checks of a study that was killed and resumed, by itself and against an unbroken study."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
from chaos_plan import Scenario
from chaos_study import Study, TroubleError
from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.storage.backends import stored_study
from coldtune.tracking import trial_metrics
from coldtune.tracking.spool import Spool, sizes

STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}
STATUS = "FINISHED"
ARTIFACTS = {"config.yaml", "grid.png", "strip.png"}


def table(study: Study) -> list[dict[str, Any]]:
    """Return the study's trials with exact floats, as stored. The last row is the best trial on the test split."""
    stored = storage_of(study)
    rows = [
        {
            "number": trial.number,
            "state": trial.state.name,
            "params": trial.params,
            "values": trial.values,
            "metrics": trial.user_attrs.get("metrics"),
        }
        for trial in stored.get_trials()
    ]
    return [*rows, {"number": "test", "state": "COMPLETE", "metrics": stored.user_attrs.get("test")}]


def trials(study: Study) -> list[FrozenTrial]:
    return storage_of(study).get_trials()


def storage_of(study: Study) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    stored = stored_study(study.home / "studies" / study.name, study.name, study.database)
    if stored is None:
        raise TroubleError("there is no study in the storage")
    return stored


def check(study: Study, unbroken: list[dict[str, Any]]) -> None:
    """Raise TroubleError, naming the first difference, if the study is not as it should be."""
    found = table(study)
    _expect("how the trials ended", {t["state"] for t in found} - {state.name for state in STATES}, set())
    if study.scenario.identical:
        _expect("the table", found, unbroken)
    else:
        _expect("trials", [t["number"] for t in found], [t["number"] for t in unbroken])
    _expect("a measurement on test", found[-1]["metrics"] is None, False)
    _runs(study)
    _spools(study.home / "studies" / study.name / "spool")


def _runs(study: Study) -> None:
    """Check that each trial has a single run in the same state, with each of its measurements once."""
    from mlflow import MlflowClient

    client = MlflowClient(study.mlflow.uri)
    experiment = client.get_experiment_by_name("coldtune")
    runs = client.search_runs([experiment.experiment_id], f"tags.`coldtune.study` = '{study.name}'")
    kinds = Counter((run.data.tags["coldtune.kind"], run.data.tags.get("coldtune.trial", "")) for run in runs)
    ended = trials(study)
    _expect("runs", kinds, Counter([("study", ""), *(("trial", str(trial.number)) for trial in ended)]))
    by_number = {run.data.tags.get("coldtune.trial", ""): run for run in runs}
    state = by_number[""].info.status, by_number[""].data.tags["coldtune.state"]
    _expect("the study's run", state, (STATUS, "finished"))
    _expect("the study's curve", _steps(client, by_number[""], "study/trials_ended"), _counts(ended))
    for trial in ended:
        _run(client, by_number[str(trial.number)], trial, study.scenario)


def _run(client: Any, run: Any, trial: FrozenTrial, scenario: Scenario) -> None:
    name = f"trial {trial.number}"
    _expect(f"{name}'s run", (run.info.status, run.data.tags["coldtune.state"]), (STATUS, STATES[trial.state]))
    steps = _steps(client, run, "train/loss")
    if trial.state == TrialState.PRUNED:
        whole = list(range(5, max(steps, default=0) + 1, 5))
    else:
        whole = list(range(5, scenario.steps + 1, 5))
        measured = trial_metrics(trial.user_attrs["metrics"], ["fid"])
        metrics = {key: run.data.metrics.get(key) for key in measured}
        _expect(f"{name}'s metrics in MLflow", metrics, measured)
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        _expect(f"{name}'s artifacts that are missing", ARTIFACTS - files, set())
    _expect(f"{name}'s steps", steps, whole)


def _counts(ended: list[FrozenTrial]) -> list[int]:
    """Return the counts of ended trials at which the study's curve has a point, from the first complete trial on."""
    order = sorted(ended, key=lambda trial: (trial.datetime_complete, trial.number))
    first = next(count for count, trial in enumerate(order, 1) if trial.state == TrialState.COMPLETE)
    return list(range(first, len(order) + 1))


def _steps(client: Any, run: Any, metric: str) -> list[int]:
    return sorted(row.step for row in client.get_metric_history(run.info.run_id, metric))


def _spools(spool: Path) -> None:
    for name in sizes(spool):
        journal = Spool(spool, name)
        _expect(f"what was delivered of {name}", journal.state().offset, journal.size())
        if journal.rejected_path.exists():
            raise TroubleError(f"{name}: the server refused {journal.rejected_path.read_text()}")
    _expect("files that wait", [str(path) for path in spool.glob("*.files/**/*") if path.is_file()], [])


def _expect(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise TroubleError(f"{what}:\n  found  {found}\n  wanted {wanted}")
