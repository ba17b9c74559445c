"""Runs that a killed driver left open in MLflow: the next driver ends them, and so does `coldtune tracking sync`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from coldtune.cli import main
from coldtune.studies.drivers.election import driver_lease
from coldtune.studies.drivers.registry import FolderRegistry
from coldtune.studies.progress.mlflow_runs import MlflowRuns
from coldtune.studies.progress.reconcile import reconcile_trials
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.tracking import NOTE, Target, Tracker, drain
from coldtune.tracking.spool import Spool, run_file

# A driver that tells the study how four of its five trials ended, and dies before it ends their runs. It dies while it
# writes a record of the fifth trial.
KILLED_DRIVER = """
import os, signal, sys
from pathlib import Path
from test_reconcile import make_ledger
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.tracking import Tracker

for name in sys.argv[2:]:
    folder = StudyFolder(Path(sys.argv[1]), name)
    ledger = make_ledger(folder)
    Tracker(folder.spool, name)
    for value in (3.0, 2.0, None, None, ...):
        number = ledger.ask().number
        tracker = Tracker(folder.spool, name, number)
        tracker.metrics({"loss": 1.0}, 10)
        if value is None:
            ledger.fail(number, "RuntimeError: boom")
        elif value is not ...:
            ledger.complete(number, TrialOutcome({"fid": value}))
    os.write(tracker._spool._file, b'{"op":"metrics","step":20,"val')
os.kill(os.getpid(), signal.SIGKILL)
"""

ENDED = {
    **dict.fromkeys("01", ("FINISHED", "finished")),
    **dict.fromkeys("23", ("FAILED", "failed")),
    "4": ("KILLED", "interrupted"),
}


def make_spec() -> StudySpec:
    return build_spec("sweep_blur", Path(__file__).parents[3] / "search_spaces" / "blur.yaml")


def make_ledger(folder: StudyFolder) -> Ledger:
    spec = make_spec()
    return open_ledger(folder.name, spec, Space(spec.space, spec.base, (1, 16, 16)), open_storage(folder.path))


def make_killed_studies(home: Path, uri: str, *names: str) -> list[StudyFolder]:
    """Make studies whose driver was killed: trials 0 and 1 finished, 2 and 3 failed, 4 was running. No run ended."""
    folders = [StudyFolder(home, name) for name in names]
    for folder in folders:
        folder.save(make_spec(), {"storage": None, "tracking_uri": uri, "trials": 5, "fingerprint": "0"})
    command = [sys.executable, "-c", KILLED_DRIVER, str(home), *names]
    assert subprocess.run(command, cwd=Path(__file__).parent, check=False).returncode == -signal.SIGKILL
    return folders


def statuses(target: Target, study: str) -> dict[str, tuple[str, str]]:
    """Return MLflow's status and our state of each run, by its trial's number. The study's own run has the key ""."""
    runs = MlflowClient(target.uri).search_runs([target.experiment_id], f"tags.`coldtune.study` = '{study}'")
    by_trial = {run.data.tags.get("coldtune.trial", ""): run for run in runs}
    assert len(by_trial) == len(runs), "a trial has a single run"
    return {number: (run.info.status, run.data.tags["coldtune.state"]) for number, run in by_trial.items()}


def reconcile(folder: StudyFolder, ledger: Ledger, target: Target) -> None:
    runs = MlflowRuns(ledger, folder.name, folder.spool, target, {})
    runs.reconcile()
    assert runs.close(60) == 0


def test_mlflow_runs_next_driver_ends_the_runs_of_a_killed_driver(target: Target, study: str, tmp_path: Path) -> None:
    (folder,) = make_killed_studies(tmp_path, target.uri, study)
    drain(folder.spool, target)
    assert set(statuses(target, study).values()) == {("RUNNING", "running")}
    ledger = make_ledger(folder)
    reconcile(folder, ledger, target)
    before = {path: path.stat().st_size for path in folder.spool.glob("trial*.jsonl")}
    reconcile(folder, ledger, target)
    after = {path: path.stat().st_size for path in folder.spool.glob("trial*.jsonl")}
    assert after == before, "the second call adds nothing"
    assert statuses(target, study) == {**ENDED, "": ("RUNNING", "running")}
    client = MlflowClient(target.uri)
    (parent,) = client.search_runs(
        [target.experiment_id], f"tags.`coldtune.study` = '{study}' and tags.`coldtune.kind` = 'study'"
    )
    best = client.get_metric_history(parent.info.run_id, "best/fid")
    assert [(row.step, row.value) for row in best] == [(1, 3.0), (2, 2.0), (3, 2.0), (4, 2.0)], (
        "each ended trial has a point, although the killed driver recorded none"
    )

    # The interrupted trial is resumed and finishes, and its run says so.
    number = ledger.ask().number
    with Tracker(folder.spool, study, number) as tracker:
        tracker.metrics({"loss": 0.5}, 20)
    ledger.complete(number, TrialOutcome({"fid": 1.0}))
    runs = MlflowRuns(ledger, study, folder.spool, target, {})
    runs.finished()
    assert runs.close(60) == 0
    assert statuses(target, study) == {**ENDED, "4": ("FINISHED", "finished"), "": ("FINISHED", "finished")}


def test_mlflow_runs_study_of_an_older_version_gets_the_names_of_today(
    target: Target, study: str, tmp_path: Path
) -> None:
    folder = StudyFolder(tmp_path, study)
    folder.save(make_spec(), {})
    ledger = make_ledger(folder)
    with Tracker(folder.spool, study) as parent:
        for count, value in enumerate((3.0, 2.0), 1):
            number = ledger.ask().number
            with Tracker(folder.spool, study, number) as trial:
                trial.metrics({"loss": 1.0}, 10)
                trial.metrics({"fid": value}, 300)
                trial.end("finished")
            ledger.complete(number, TrialOutcome({"fid": value}))
            parent.metrics({"best_fid": value, "trials_ended": float(count)}, count)
    sizes = []
    for _ in range(2):
        reconcile(folder, ledger, target)
        sizes.append({path: path.stat().st_size for path in folder.spool.glob("trial*.jsonl")})
    assert sizes[0] == sizes[1], "the values are added once"
    client = MlflowClient(target.uri)
    runs = client.search_runs(
        [target.experiment_id], f"tags.`coldtune.study` = '{study}'", order_by=["metrics.`sampled/fid` ASC"]
    )
    metrics = {run.data.tags.get("coldtune.trial", ""): run.data.metrics for run in runs}
    assert list(metrics)[:2] == ["1", "0"], "one list holds the old and the new trials"
    assert metrics["1"] == {"loss": 1.0, "fid": 2.0, "sampled/fid": 2.0}
    assert metrics[""] == {
        "best_fid": 2.0, "trials_ended": 2.0, "best/fid": 2.0, "study/trials_ended": 2.0, "study/seconds_saved": 0.0,
    }  # fmt: skip


def test_mlflow_runs_descriptions_hold_the_verdicts(target: Target, study: str, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, study)
    folder.save(make_spec(), {})
    ledger = make_ledger(folder)
    runs = MlflowRuns(ledger, study, folder.spool, target, {})
    for value in (3.0, 1.5):
        number = ledger.ask().number
        with Tracker(folder.spool, study, number) as tracker:
            tracker.tags({NOTE: "training 2.0 s."})
        outcome = TrialOutcome({"fid": value, "fid_low": value - 1, "fid_high": value + 1, "nfe": 4.0})
        ledger.complete(number, outcome)
        runs.completed(number, outcome)
    number = ledger.ask().number
    ledger.fail(number, "RuntimeError: boom")
    runs.failed(number, "RuntimeError: boom")
    runs.finished(["Trial 1 and trial 0 are two networks."])
    assert runs.close(60) == 0
    found = MlflowClient(target.uri).search_runs([target.experiment_id], f"tags.`coldtune.study` = '{study}'")
    notes = {run.data.tags.get("coldtune.trial", ""): run.data.tags["mlflow.note.content"] for run in found}
    assert (
        notes["0"]
        == "**FID 3.0 [2.0, 4.0], NFE 4. When 1 trial had finished, it had the best FID.**\n\ntraining 2.0 s."
    )
    assert notes["1"] == "**FID 1.5 [0.5, 2.5], NFE 4. It has the best FID of 2 trials.**\n\ntraining 2.0 s."
    assert notes["2"] == "**Failed**: RuntimeError: boom"
    about, results = notes[""].split("\n\n")
    assert re.fullmatch(
        r"\*\*After 3 trials, trial 1 \(.*T \d+, .*\) has the best FID, 1\.5 \[0\.5, 2\.5\]\.\*\*", about
    )
    assert results == "Trial 1 and trial 0 are two networks."
    names = {run.data.tags.get("coldtune.trial", ""): run.info.run_name for run in found}
    assert re.match(r"2: .*T \d+, kernel \d+", names["2"]), "its process never opened the run"


def sync(home: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Run `coldtune tracking sync`, which reports that records are left. Return its sentence about each study."""
    with pytest.raises(SystemExit) as ended:
        main(["tracking", "sync", "--home", str(home)])
    assert ended.value.code == 1
    return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())


def test_tracking_sync_ends_the_runs_of_a_killed_driver(
    target: Target, study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed, running, unreachable = names = [f"{study}{letter}" for letter in "abc"]
    folders = make_killed_studies(tmp_path, target.uri, *names)
    folders[2].save(
        make_spec(), {"storage": None, "tracking_uri": "http://127.0.0.1:1", "trials": 5, "fingerprint": "0"}
    )
    with driver_lease(FolderRegistry(folders[1].path / "drivers"), running, join=False):
        said = sync(tmp_path, capsys)
    assert list(said) == names, "a problem with a study does not affect the other studies"
    left_open = (
        "ended the runs of trial 0, trial 1, trial 2, trial 3, trial 4, the study, left open by a driver that died"
    )
    # 6 creations, 5 losses, and the ends of 5 trials and of the study. The torn line counts as a delivered record.
    assert said[killed] == f"{left_open}; 18 records of 6 runs delivered; nothing waits"
    assert said[running].startswith("is being run by process ")
    assert "; 11 records of 6 runs delivered; 30 bytes wait (for their writer to go on)" in said[running]
    assert said[unreachable].startswith(
        f"{left_open}; nothing delivered (tracking URI = 'http://127.0.0.1:1': the server "
    )
    assert statuses(target, killed) == {**ENDED, "": ("KILLED", "interrupted")}
    said = sync(tmp_path, capsys)
    assert said[killed] == "there was nothing to deliver; nothing waits"
    assert said[running] == f"{left_open}; 7 records of 6 runs delivered; nothing waits"
    assert statuses(target, running) == statuses(target, killed)


def test_reconcile_trials_imported_trial_gets_no_run(tmp_path: Path, study: str) -> None:
    folder = StudyFolder(tmp_path, study)
    folder.save(make_spec(), {})
    ledger = make_ledger(folder)
    for imported in (True, False):
        number = ledger.ask().number
        if imported:
            ledger.ownership.running[number].set_user_attr("imported_from", {"study": "another", "trial": 3})
        ledger.fail(number, "boom")
    assert [trial.state for trial in ledger.trials()] == [TrialState.FAIL] * 2
    assert reconcile_trials(ledger.trials(), study, folder.spool) == [1]
    record = json.loads(Spool(folder.spool, run_file(1)).path.read_text().splitlines()[-1])
    assert (record["op"], record["status"], record["reason"]) == ("end", "failed", "boom")
