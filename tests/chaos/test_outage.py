"""Longer outages of servers.

Trials continue without MLflow. Without its database a study ends and prints how to resume it.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from chaos_checks import check, table
from chaos_plan import Scenario
from chaos_servers import Mlflow
from chaos_study import Study, finish, study_of

import servers

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1800)]
SETTINGS = {"search.algorithm": "random"}


def begun(study: Study) -> set[int]:
    """Return the trials that have reported a loss."""
    spools = study.home.glob("studies/*/spool/trial-*.jsonl")
    return {int(path.stem.removeprefix("trial-")) for path in spools if '"train/loss"' in path.read_text()}


def ended(study: Study) -> set[int]:
    spools = study.home.glob("studies/*/spool/trial-*.jsonl")
    return {int(path.stem.removeprefix("trial-")) for path in spools if '"op":"end"' in path.read_text()}


def test_trials_without_mlflow_continue_and_sync_delivers_their_records(tmp_path: Path, mlflow: Mlflow) -> None:
    with study_of(Scenario("away", 14, (), SETTINGS), tmp_path / "study", mlflow, None, "away") as study:
        study.start()
        study.run.until("a training", lambda: begun(study))
        mlflow.kill()
        before = begun(study)
        study.run.until("two trials that began and ended without MLflow", lambda: len(ended(study) - before) >= 2)
        # The client tries each request again for seconds, and trials take as long.
        study.run.until("a warning", lambda: "does not take what is sent" in study.run.text)
        assert study.run.text.count("does not take what is sent") == 1, study.run.text
        mlflow.start()
        seen = ended(study)
        mlflow.kill()
        study.run.until("another ended trial", lambda: study.over or ended(study) - seen)
        assert study.run.wait() == 0, study.run.text
        assert re.search(r"[\d,]+ bytes of this study's records wait in ", study.run.text)
        study.wait("the end of all processes", lambda: not study.leftovers())

        # A dying process leaves a torn line. Once the server is back, a single command delivers all whole records.
        with (study.home / "studies" / "away" / "spool" / "trial-0005.jsonl").open("ab") as file:
            file.write(b'{"op":"metrics","st')
        mlflow.start()
        sync = study.lab.start(["coldtune", "tracking", "sync", "--home", str(study.home)])
        assert sync.wait() == 0, sync.text
        assert re.search(r"away: [\d,]+ records of \d+ runs delivered; nothing waits", sync.text), sync.text
        check(study, table(study))
        check_times(study)


def check_times(study: Study) -> None:
    """Check that the server has each record with the time of its measurement, not of its delivery."""
    from mlflow import MlflowClient

    client = MlflowClient(study.mlflow.uri)
    experiment = client.get_experiment_by_name("coldtune")
    for run in client.search_runs([experiment.experiment_id], "tags.`coldtune.kind` = 'trial'"):
        history = client.get_metric_history(run.info.run_id, "train/loss")
        rows = sorted((row.step, row.timestamp) for row in history)
        assert [when for _, when in rows] == sorted(when for _, when in rows)
        path = study.home / "studies" / study.name / "spool" / f"trial-{int(run.data.tags['coldtune.trial']):04d}.jsonl"
        whole = (line for line in path.read_text().splitlines() if line.endswith("}"))  # the test tears one line
        records = [json.loads(line) for line in whole if '"op":"metrics"' in line]
        assert rows == [(record["step"], record["time"]) for record in records if "train/loss" in record["values"]]


def test_study_without_database_prints_how_to_resume(
    tmp_path: Path, mlflow: Mlflow, postgres: servers.Postgres
) -> None:
    scenario = Scenario("gone", 4, (), SETTINGS, postgres=True)
    with study_of(scenario, tmp_path / "study", mlflow, postgres, "gone") as study:
        study.lab.env["COLDTUNE_STORAGE_PATIENCE_S"] = "2"
        study.start()
        study.run.until("a finished trial", lambda: ended(study))
        postgres.kill()
        try:
            assert study.run.wait() == 130, study.run.text
            study.wait("the end of all processes", lambda: not study.leftovers())
        finally:
            postgres.start()
        assert re.search(r"--storage postgresql\S+: does not answer \(.+\); trying again for 2 s", study.run.text)
        assert re.search(r"--storage postgresql\S+: did not answer for 2 s", study.run.text)
        assert "Traceback" not in study.run.text
        assert postgres.password not in study.run.text.replace(study.database or "", "")
        (command,) = re.findall(r"^ +resume +(.+)$", study.run.text, re.MULTILINE)
        study.begin(shlex.split(command))
        finish(study)
        check(study, table(study))
