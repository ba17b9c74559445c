"""Tests of delivery from spools to a real SQLite store."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from coldtune.tracking import Drainer, Target, Tracker, default_uri, drain, pending, prepare
from coldtune.tracking.runs import Identity
from coldtune.tracking.spool import Spool

WRITER = """
import sys, time
from pathlib import Path
from coldtune.tracking import Target, Tracker, prepare
spool, uri, experiment, study, first, last = sys.argv[1:]
spool = Path(spool)
target = Target(uri, experiment) if experiment else prepare(uri, "coldtune", spool.parent / "artifacts")
tracker = Tracker(spool, study, 7, target=target)
tracker.params({"lr": 0.1})
for step in range(int(first), int(last)):
    tracker.metrics({"loss": 1 / (step + 1)}, step)
    print(step, flush=True)
    time.sleep(0.005)
tracker.end("finished")
tracker.close(60)
"""


def writer(spool: Path, target: Target, study: str, first: int, last: int) -> list[str]:
    """Return the command of a process that logs steps first..last - 1 of trial 7 and ends it."""
    arguments = [str(spool), target.uri, target.experiment_id, study, str(first), str(last)]
    return [sys.executable, "-c", WRITER, *arguments]


def runs(target: Target, study: str) -> list[Run]:
    """Return all runs of a study, with the study's own run first."""
    matches = MlflowClient(target.uri).search_runs([target.experiment_id], f"tags.`coldtune.study` = '{study}'")
    return sorted(matches, key=lambda run: run.data.tags.get("coldtune.trial", ""))


def history(target: Target, run: Run, key: str) -> list[tuple[int, float]]:
    rows = MlflowClient(target.uri).get_metric_history(run.info.run_id, key)
    return [(row.step, row.value) for row in sorted(rows, key=lambda row: (row.timestamp, row.step))]


def everything(target: Target, study: str) -> list[dict[str, Any]]:
    """Return everything that MLflow has of a study, to compare it before and after."""
    client = MlflowClient(target.uri)
    return [
        {
            "info": dict(run.info),
            "tags": run.data.tags,
            "params": run.data.params,
            "history": {key: client.get_metric_history(run.info.run_id, key) for key in sorted(run.data.metrics)},
            "artifacts": [file.path for file in client.list_artifacts(run.info.run_id)],
        }
        for run in runs(target, study)
    ]


def test_drain_trial_is_complete_under_its_study(target: Target, study: str, spool_dir: Path, tmp_path: Path) -> None:
    picture = tmp_path / "grid.png"
    picture.write_bytes(b"not really a picture")
    parent = Tracker(spool_dir, study, tags={"dataset": "digits"})
    trial = Tracker(spool_dir, study, 3, name="trial 3", tags={"mlflow.source.git.commit": "abc"})
    trial.params({f"p{i}": i for i in range(150)})  # more than MLflow takes in a request
    for step in range(1200):
        trial.metrics({"loss": 1 / (step + 1), "images_per_s": float(step)}, step)
    trial.metrics({"fid": math.nan}, 1200)
    trial.artifact(picture)
    trial.artifact(picture, "samples/final")
    picture.unlink()
    trial.end("finished")
    parent.end("finished")
    assert pending(spool_dir, target) > 0
    assert drain(spool_dir, target).pending == 0

    top, child = runs(target, study)
    assert child.data.tags["mlflow.parentRunId"] == top.info.run_id
    assert child.data.tags["coldtune.kind"] == "trial"
    assert top.data.tags["coldtune.kind"] == "study"
    assert top.data.tags["dataset"] == "digits"
    assert child.data.tags["mlflow.source.git.commit"] == "abc"
    assert (child.info.run_name, child.info.status) == ("trial 3", "FINISHED")
    assert child.data.params == {f"p{i}": str(i) for i in range(150)}
    assert history(target, child, "loss") == [(step, 1 / (step + 1)) for step in range(1200)]
    assert history(target, child, "images_per_s") == [(step, float(step)) for step in range(1200)]
    assert math.isnan(child.data.metrics["fid"])
    client = MlflowClient(target.uri)
    assert [file.path for file in client.list_artifacts(child.info.run_id, "samples/final")] == [
        "samples/final/grid.png"
    ]
    assert (Path(client.download_artifacts(child.info.run_id, "grid.png"))).read_bytes() == b"not really a picture"
    assert not list(spool_dir.glob("*.files"))


def test_drain_tags_that_people_read_come_first(target: Target, study: str, spool_dir: Path) -> None:
    Tracker(spool_dir, study).close()
    given = {"protocol": "781befb025cb", "coldtune.study_id": "01dc2e45", "job": "sweep_blur", "host": "node-a"}
    Tracker(spool_dir, study, 0, tags=given).close()
    drain(spool_dir, target)
    shown = [key for key in runs(target, study)[1].data.tags if not key.startswith("mlflow.")]
    assert shown[:2] == ["job", "host"]
    assert set(shown[2:-2]) == {"coldtune.study", "coldtune.kind", "coldtune.trial", "coldtune.state"}
    assert set(shown[-2:]) == {"protocol", "coldtune.study_id"}


def test_drain_keeps_the_times_of_the_calls(target: Target, study: str, spool_dir: Path) -> None:
    tracker = Tracker(spool_dir, study)
    tracker.metrics({"fid": 1.0}, 5)
    tracker.end("finished")
    create, metrics, end = [record for record, _ in Spool(spool_dir, "study").read()[0]]
    drain(spool_dir, target)
    (run,) = runs(target, study)
    assert (run.info.start_time, run.info.end_time) == (create["time"], end["time"])
    (row,) = MlflowClient(target.uri).get_metric_history(run.info.run_id, "fid")
    assert row.timestamp == metrics["time"]


@pytest.mark.parametrize("lost", ["state", "half"])
def test_drain_replay_changes_nothing(target: Target, study: str, spool_dir: Path, tmp_path: Path, lost: str) -> None:
    (tmp_path / "config.yaml").write_text("a: 1")
    with Tracker(spool_dir, study), Tracker(spool_dir, study, 0) as trial:
        trial.params({"lr": 0.1})
        for step in range(50):
            trial.metrics({"loss": float(step), "nan": math.nan}, step)
        trial.artifact(tmp_path / "config.yaml")
        trial.end("failed", "out of memory")
    drain(spool_dir, target)
    before = everything(target, study)
    assert len(before) == 2
    spool = Spool(spool_dir, "trial-0000")
    if lost == "state":
        spool.state_path.unlink()
        Spool(spool_dir, "study").state_path.unlink()
    else:  # as if killed after sending the records and before saving the state
        half = spool.read(0, limit=20)[1]
        state = spool.state()
        spool.save(type(state)(state.target, state.run_id, half))
    assert [drain(spool_dir, target).pending for _ in range(2)] == [0, 0]
    assert str(everything(target, study)) == str(before)


@pytest.mark.parametrize(
    ("status", "shown"),
    [("finished", "FINISHED"), ("pruned", "FINISHED"), ("failed", "FAILED"), ("interrupted", "KILLED")],
)
def test_drain_status_becomes_mlflow_status(
    target: Target, study: str, spool_dir: Path, status: Any, shown: str
) -> None:
    Tracker(spool_dir, study).end(status, "for a reason")
    drain(spool_dir, target)
    (run,) = runs(target, study)
    assert run.info.status == shown
    assert run.data.tags["coldtune.state"] == status
    assert run.data.tags["coldtune.reason"] == "for a reason"
    assert "for a reason" in run.data.tags["mlflow.note.content"]


def test_drain_resumed_run_is_running_and_ends_again(target: Target, study: str, spool_dir: Path) -> None:
    Tracker(spool_dir, study).end("interrupted", "SIGINT")
    drain(spool_dir, target)
    tracker = Tracker(spool_dir, study)
    drain(spool_dir, target)
    (run,) = runs(target, study)
    assert run.info.status == "RUNNING"
    assert run.data.tags["coldtune.state"] == "running"
    assert run.data.tags["coldtune.reason"] == run.data.tags["mlflow.note.content"] == ""
    tracker.end("finished")
    end = Spool(spool_dir, "study").read()[0][-1][0]
    drain(spool_dir, target)
    (run,) = runs(target, study)
    assert (run.info.status, run.info.end_time) == ("FINISHED", end["time"])


def test_drain_trial_before_its_study_makes_the_study_once(target: Target, study: str, spool_dir: Path) -> None:
    parent = Tracker(spool_dir, study, name="the study")
    with Tracker(spool_dir, study, 0, target=target) as trial:
        assert trial.flush(300)
        assert trial.run_id() is not None
    assert parent.run_id() is not None
    drain(spool_dir, target)
    top, child = runs(target, study)
    assert top.info.run_name == "the study"
    assert child.data.tags["mlflow.parentRunId"] == top.info.run_id == parent.run_id()


def test_drain_trial_waits_for_study_of_another_machine(target: Target, study: str, tmp_path: Path) -> None:
    Tracker(tmp_path / "here", study, 0).metrics({"loss": 1.0}, 1)
    result = drain(tmp_path / "here", target)
    assert result.pending > 0
    assert "trial-0000 waits" in (result.error or "")
    assert runs(target, study) == []
    Tracker(tmp_path / "there", study)
    assert drain(tmp_path / "there", target).pending == 0
    assert drain(tmp_path / "here", target).pending == 0
    top, child = runs(target, study)
    assert child.data.tags["mlflow.parentRunId"] == top.info.run_id


def test_drain_refused_record_is_set_aside(target: Target, study: str, spool_dir: Path) -> None:
    tracker = Tracker(spool_dir, study)
    tracker.params({"lr": 0.1})
    tracker.metrics({"loss": 1.0}, 1)
    Spool(spool_dir, "study").append({"op": "params", "values": {"lr": "0.2"}, "time": 0})
    tracker.metrics({"loss": 2.0}, 2)
    tracker.end("finished")
    assert drain(spool_dir, target).pending == 0
    (run,) = runs(target, study)
    assert run.data.params == {"lr": "0.1"}
    assert history(target, run, "loss") == [(1, 1.0), (2, 2.0)]
    assert run.info.status == "FINISHED"
    assert "Changing param values is not allowed" in Spool(spool_dir, "study").rejected_path.read_text()


def test_drain_artifact_that_cannot_be_stored_is_set_aside(study: str, target: Target, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    nowhere = prepare(target.uri, f"nowhere-{study}", tmp_path / "file" / "artifacts")
    tracker = Tracker(tmp_path / "spool", study)
    tracker.artifact(tmp_path / "file")
    tracker.end("finished")
    results = [drain(tmp_path / "spool", nowhere) for _ in range(3)]
    assert [result.error is None for result in results] == [False, False, True]
    (run,) = runs(nowhere, study)
    assert run.info.status == "FINISHED"
    assert "file" in Spool(tmp_path / "spool", "study").rejected_path.read_text()


def test_drain_damaged_spool_does_not_block_others(target: Target, study: str, spool_dir: Path) -> None:
    Tracker(spool_dir, study)
    Spool(spool_dir, "trial-0000").append({"op": "metrics", "values": {"loss": 1}, "step": 0, "time": 0})
    Tracker(spool_dir, study, 1)
    Spool(spool_dir, "trial-0001").append({"op": "metrics", "values": {"loss": 1}, "time": 0})  # at no step
    Tracker(spool_dir, study, 2).metrics({"loss": 1.0}, 1)
    assert drain(spool_dir, target).error is not None
    assert [run.data.tags.get("coldtune.trial") for run in runs(target, study)] == [None, "1", "2"]
    drainer = Drainer(spool_dir, target, interval=0.05)
    Tracker(spool_dir, study, 3).metrics({"loss": 1.0}, 1)
    assert not drainer.flush(3)
    assert drainer.error is None  # the server answers
    assert not drainer.close(300)
    assert [run.data.tags.get("coldtune.trial") for run in runs(target, study)] == [None, "1", "2", "3"]


def test_drain_damaged_record_is_set_aside(target: Target, study: str, spool_dir: Path) -> None:
    tracker = Tracker(spool_dir, study)
    spool = Spool(spool_dir, "study")
    damaged = [
        {"op": "metrics", "values": 5, "step": 0, "time": 0},
        {"op": "metrics", "values": {"fid": "x"}, "step": 0, "time": 0},
        {"op": "params", "values": {"lr": [1]}},
        {"op": "end"},
        {"op": "artifact", "path": 3, "folder": ""},
    ]
    for record in damaged:
        spool.append(record)
    tracker.metrics({"loss": 1.0}, 1)
    assert drain(spool_dir, target).pending == 0
    (run,) = runs(target, study)
    assert history(target, run, "loss") == [(1, 1.0)]
    kept = [json.loads(line)["record"] for line in spool.rejected_path.read_text().splitlines()]
    assert kept == damaged
    assert Tracker(spool_dir, study)._params == {}, "a damaged journal can be continued"


def test_drain_deleted_runs_are_made_again_and_become_parents(target: Target, study: str, spool_dir: Path) -> None:
    for trial in (None, 0):
        Tracker(spool_dir, study, trial).metrics({"loss": 1.0}, 1)
    drain(spool_dir, target)
    deleted = {run.info.run_id for run in runs(target, study)}
    assert len(deleted) == 2
    for run_id in deleted:
        MlflowClient(target.uri).delete_run(run_id)
    Tracker(spool_dir, study, 1).metrics({"loss": 2.0}, 1)
    assert drain(spool_dir, target).error is None
    whole, trial = runs(target, study)
    assert trial.data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert not {whole.info.run_id, trial.info.run_id} & deleted
    assert history(target, whole, "loss") == [(1, 1.0)]
    Tracker(spool_dir, study, 0).metrics({"loss": 3.0}, 2)
    assert drain(spool_dir, target).error is None
    _, again, _ = runs(target, study)
    assert history(target, again, "loss") == [(1, 1.0), (2, 3.0)], "the records of the deleted run came back"
    assert not list(spool_dir.glob("*.rejected"))


def test_drain_moved_home_finds_its_runs(target: Target, study: str, spool_dir: Path, tmp_path: Path) -> None:
    with Tracker(spool_dir, study) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
    drain(spool_dir, target)
    os.rename(spool_dir, tmp_path / "moved")
    with Tracker(tmp_path / "moved", study) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
        tracker.metrics({"loss": 2.0}, 2)
    drain(tmp_path / "moved", target)
    (run,) = runs(target, study)
    assert history(target, run, "loss") == [(1, 1.0), (2, 2.0)]


def test_drainer_delivers_a_growing_directory(target: Target, study: str, spool_dir: Path) -> None:
    drainer = Drainer(spool_dir, target, interval=0.05)
    parent = Tracker(spool_dir, study)
    trials = [Tracker(spool_dir, study, number) for number in range(3)]
    for step in range(20):
        for trial in trials:
            trial.metrics({"loss": float(step)}, step)
    assert drainer.flush(300)
    assert all(trial.flush(0) for trial in trials)
    parent.end("finished")
    assert drainer.close(300)
    all_runs = runs(target, study)
    assert [run.info.status for run in all_runs] == ["FINISHED", "RUNNING", "RUNNING", "RUNNING"]
    assert [len(history(target, run, "loss")) for run in all_runs[1:]] == [20, 20, 20]


class StubbornServer:
    """A client whose server is unreachable while `away` is set, and takes a study's records only when `slow` is set."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.answering = False

    away = threading.Event()
    slow = threading.Event()

    def find(self, identity: Identity) -> str:
        return "study" if identity.trial is None else "trial"

    def known(self, run_id: str) -> bool:
        return True

    def reachable(self) -> bool:
        return not self.away.is_set()

    def log(self, run_id: str, records: Any) -> None:
        if self.away.is_set():
            raise OSError("connection refused")
        if run_id == "study":
            self.slow.wait(300)
        self.answering = True


def test_drainer_close_right_after_an_outage_delivers_the_rest(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("coldtune.tracking.drain"), "Runs", StubbornServer)
    StubbornServer.away.set()
    StubbornServer.slow.clear()
    Tracker(spool_dir, "s").metrics({"loss": 1.0})
    Tracker(spool_dir, "s", 0).metrics({"loss": 1.0})
    target = Target("http://server", "0")
    drainer = Drainer(spool_dir, target, interval=0.01)
    trial = Spool(spool_dir, "trial-0000")
    while drainer.error is None:
        time.sleep(0.01)
    StubbornServer.away.clear()
    while trial.state(target.key).offset < trial.size():
        drainer.flush(0.01)
    assert drainer.error is not None, "the pass that delivers the trial still waits for the study's records"
    threading.Timer(0.2, StubbornServer.slow.set).start()
    assert drainer.close(300)


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_prepare_by_two_processes_makes_one_database_and_run(tmp_path: Path) -> None:
    Tracker(tmp_path / "spool", "s")
    home = Target(default_uri(tmp_path), "")
    writers = [
        subprocess.Popen(writer(tmp_path / "spool", home, "s", *span), stdout=-1, stderr=-1, text=True)
        for span in ((0, 100), (100, 200))
    ]
    for process in writers:
        assert process.communicate(timeout=800)[1] == ""  # MLflow's migrations print nothing either
        assert process.returncode == 0
    target = prepare(home.uri, "coldtune", tmp_path / "artifacts")
    assert drain(tmp_path / "spool", target).pending == 0
    _, trial = runs(target, "s")
    assert sorted(history(target, trial, "loss")) == [(step, 1 / (step + 1)) for step in range(200)]
    experiments = MlflowClient(target.uri).search_experiments()
    assert sorted(experiment.name for experiment in experiments) == ["Default", "coldtune"]


@pytest.mark.e2e
def test_tracker_killed_and_resumed_is_one_complete_run(target: Target, study: str, spool_dir: Path) -> None:
    Tracker(spool_dir, study)
    process = subprocess.Popen(writer(spool_dir, target, study, 0, 100_000), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    # Kill the process while it delivers. It is stopped first, to see that only a part of its records is delivered.
    while line := process.stdout.readline():
        if Spool(spool_dir, "trial-0007").state(target.key).offset > 0:
            os.kill(process.pid, signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            if pending(spool_dir, target) > 0:
                break
            os.kill(process.pid, signal.SIGCONT)
    os.kill(process.pid, signal.SIGKILL)
    reached = int((line + process.stdout.read()).split()[-1])
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert pending(spool_dir, target) > 0
    checkpoint, last = max(0, reached - 50), reached + 300
    subprocess.run(writer(spool_dir, target, study, checkpoint, last), check=True, stdout=subprocess.DEVNULL)
    drain(spool_dir, target)
    _, trial = runs(target, study)
    assert history(target, trial, "loss") == [(step, 1 / (step + 1)) for step in range(last)]
    assert trial.data.params == {"lr": "0.1"}
    assert trial.info.status == "FINISHED"
