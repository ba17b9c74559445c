"""A driver killed between telling the study and telling its records: made up for by the next one, or by a sync."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from coldtune.cli import main
from coldtune.studies.drivers import election as hold
from coldtune.studies.drivers.registry import FolderRegistry
from coldtune.studies.progress.mlflow_runs import MlflowRuns
from coldtune.studies.progress.reconcile import settle
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.tracking import Target, Tracker, drain
from coldtune.tracking.spool import Spool, run_file

KILLED = """
import os, signal, sys
from pathlib import Path
from test_reconcile import ledger_of, spec_of
from coldtune.studies.drivers import election as hold
from coldtune.studies.drivers.registry import FolderRegistry
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.tracking import Tracker

for name in sys.argv[2:]:
    folder = StudyFolder(Path(sys.argv[1]), name)
    ledger = ledger_of(folder)
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


def spec_of() -> StudySpec:
    return build_spec("sweep_blur", Path(__file__).parents[3] / "search_spaces" / "blur.yaml")


def ledger_of(folder: StudyFolder) -> Ledger:
    spec = spec_of()
    return open_ledger(folder.name, spec, Space(spec.space, spec.base, (1, 16, 16)), open_storage(folder.path))


def killed(home: Path, uri: str, *names: str) -> list[StudyFolder]:
    """Studies whose driver was killed: 0 and 1 finished, 2 and 3 failed, 4 still running; no run was ever ended."""
    folders = [StudyFolder(home, name) for name in names]
    for folder in folders:
        folder.save(spec_of(), {"storage": None, "tracking_uri": uri, "trials": 5})
    command = [sys.executable, "-c", KILLED, str(home), *names]
    assert subprocess.run(command, cwd=Path(__file__).parent, check=False).returncode == -signal.SIGKILL
    return folders


def states(target: Target, study: str) -> dict[str, tuple[str, str]]:
    """The status and state of each run by its trial's number; "" is the study's own."""
    runs = MlflowClient(target.uri).search_runs([target.experiment_id], f"tags.`coldtune.study` = '{study}'")
    found = {run.data.tags.get("coldtune.trial", ""): run for run in runs}
    assert len(found) == len(runs), "one run each"
    return {number: (run.info.status, run.data.tags["coldtune.state"]) for number, run in found.items()}


ENDED = {
    **dict.fromkeys("01", ("FINISHED", "finished")),
    **dict.fromkeys("23", ("FAILED", "failed")),
    "4": ("KILLED", "interrupted"),
}


def test_the_next_driver_ends_what_the_killed_one_left_open(target: Target, study: str, tmp_path: Path) -> None:
    (folder,) = killed(tmp_path, target.uri, study)
    drain(folder.spool, target)
    assert set(states(target, study).values()) == {("RUNNING", "running")}, "the fault that is made up for"
    ledger = ledger_of(folder)
    records = MlflowRuns(ledger, study, folder.spool, target, {})
    records.settle()
    assert records.close(60) == 0
    before = {path: path.stat().st_size for path in folder.spool.glob("trial*.jsonl")}
    records = MlflowRuns(ledger, study, folder.spool, target, {})
    records.settle()
    assert records.close(60) == 0
    assert {path: path.stat().st_size for path in folder.spool.glob("trial*.jsonl")} == before, "once"
    assert states(target, study) == {**ENDED, "": ("RUNNING", "running")}
    client = MlflowClient(target.uri)
    (parent,) = client.search_runs(
        [target.experiment_id], f"tags.`coldtune.study` = '{study}' and tags.`coldtune.kind` = 'study'"
    )
    best = client.get_metric_history(parent.info.run_id, "best_fid")
    assert [(row.step, row.value) for row in best] == [(1, 3.0), (2, 2.0), (3, 2.0), (4, 2.0)], (
        "what it had not come to note, a point for each trial that ended"
    )

    # The interrupted one goes on and finishes: this driver's own words count.
    number = ledger.ask().number
    with Tracker(folder.spool, study, number) as tracker:
        tracker.metrics({"loss": 0.5}, 20)
    ledger.complete(number, TrialOutcome({"fid": 1.0}))
    records = MlflowRuns(ledger, study, folder.spool, target, {})
    records.finished()
    assert records.close(60) == 0
    assert states(target, study) == {**ENDED, "4": ("FINISHED", "finished"), "": ("FINISHED", "finished")}


def sync(home: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What `coldtune tracking sync` says of each study, in its order; something is left."""
    with pytest.raises(SystemExit) as ended:
        main(["tracking", "sync", "--home", str(home)])
    assert ended.value.code == 1
    return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())


def test_sync_ends_them_too_and_says_what_it_did(
    target: Target, study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, held, last = names = [f"{study}{letter}" for letter in "abc"]
    folders = killed(tmp_path, target.uri, *names)
    folders[2].save(spec_of(), {"storage": None, "tracking_uri": "http://127.0.0.1:1", "trials": 5})
    with hold.driver_lease(FolderRegistry(folders[1].path / "drivers"), held, join=False):
        said = sync(tmp_path, capsys)
    assert list(said) == names, "one study's trouble keeps no other's"
    left_open = (
        "ended the runs of trial 0, trial 1, trial 2, trial 3, trial 4, the study, left open by a driver that died"
    )
    # 6 creations, 5 losses, 5 trials' ends and the study's; the torn line counts as one that was dealt with
    assert said[first] == f"{left_open}; 18 records of 6 runs delivered; nothing waits"
    assert said[held].startswith("is being run by process ")
    assert "; 11 records of 6 runs delivered; 30 bytes wait (for their writer to go on)" in said[held]
    assert said[last].startswith(f"{left_open}; nothing delivered (tracking URI = 'http://127.0.0.1:1': the server ")
    assert states(target, first) == {**ENDED, "": ("KILLED", "interrupted")}
    said = sync(tmp_path, capsys)
    assert said[first] == "there was nothing to deliver; nothing waits"
    assert said[held] == f"{left_open}; 7 records of 6 runs delivered; nothing waits"
    assert states(target, held) == states(target, first)


@pytest.mark.parametrize(
    ("ops", "status"),
    [
        ([], None),
        ([("create", None)], "running"),
        ([("create", None), ("end", "interrupted")], "interrupted"),
        ([("create", None), ("end", "interrupted"), ("resume", None)], "running"),
        ([("create", None), ("end", "finished"), *[("metrics", None)] * 3], "finished"),
        ([("create", None), *[("metrics", None)] * 3000], "running"),
        ([("create", None), ("end", "failed"), *[("metrics", None)] * 3000], "failed"),
    ],
)
def test_how_a_run_stands_by_its_journal(tmp_path: Path, ops: list[tuple[str, str | None]], status: str | None) -> None:
    spool = Spool(tmp_path, "trial-0000")
    for op, word in ops:
        spool.append({"op": op, "values": {"end": 1.0}, **({"status": word} if word else {})})
    if ops:
        spool.close()
        with spool.path.open("ab") as file:
            file.write(b'{"op":"end","status":"fini')
    assert spool.status() == status


def test_a_torn_line_is_closed_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    assert not spool.mend()
    spool.append({"op": "create"})
    assert not spool.mend()
    with spool.path.open("ab") as file:
        file.write(b'{"op":"end"')
    assert spool.mend()
    assert not spool.mend()
    assert [record["op"] for record, _ in spool.read()[0]] == ["create"]
    assert spool.read()[1] == spool.size()


def test_an_imported_trial_has_no_run(tmp_path: Path, study: str) -> None:
    folder = StudyFolder(tmp_path, study)
    folder.save(spec_of(), {})
    ledger = ledger_of(folder)
    for attribute in ({"imported_from": "another/3"}, {}):
        number = ledger.ask().number
        for key, value in attribute.items():
            ledger.ownership.running[number].set_user_attr(key, value)
        ledger.fail(number, "boom")
    assert [trial.state for trial in ledger.trials()] == [TrialState.FAIL] * 2
    assert settle(ledger.trials(), study, folder.spool) == [1]
    record = json.loads(Spool(folder.spool, run_file(1)).path.read_text().splitlines()[-1])
    assert (record["op"], record["status"], record["reason"]) == ("end", "failed", "boom")
