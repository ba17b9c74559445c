"""A job and `coldtune study` on a study that was run before, without a cluster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from coldtune import cli
from coldtune.cli.job import main
from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.metrics import build_extractor, resolve
from coldtune.metrics.protocol import Protocol
from coldtune.stages.trial import parse_trial
from coldtune.studies.drivers.election import driver_lease
from coldtune.studies.drivers.registry import FolderRegistry
from coldtune.studies.execution import cluster
from coldtune.studies.execution import study_run as running
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.record import StudyRecord, write_study
from coldtune.studies.trials.importing import gather
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.trials.matching import Importer
from coldtune.studies.trials.setup import Imports
from coldtune.tracking import Tracker

SPACE = "base: digits-quick\nvary: {degradation.steps: {low: 10, high: 40}}\nsearch: {algorithm: random}\n"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(digits_home: Path, tmp_path: Path) -> Path:
    """A home with the study `old` of three trials. The last trial is the best."""
    shutil.copytree(digits_home / "data", tmp_path / "data")
    (tmp_path / "space.yaml").write_text(SPACE)
    begin(tmp_path, "old", ended=3)
    return tmp_path


def begin(home: Path, name: str, ended: int = 0, imports: tuple[str, ...] = (), weights: str | None = None) -> Ledger:
    """Write a study of three trials into a home, as its driver leaves it.

    Args:
        ended: How many of the trials have ended.
        weights: The hash of the judge's weights at that time.
    """
    dataset = Dataset.open(prepared(home, "digits")[0])
    spec = build_spec("j", home / "space.yaml").model_copy(update={"imports": imports})
    space, trial = Space(spec.space, spec.base, dataset.image_shape), parse_trial(spec.base)
    protocol: Protocol = resolve(trial.protocol, build_extractor("digits"), dataset, trial.task)
    folder = StudyFolder(home, name)
    found = gather(Importer(spec, space, dataset, {}, protocol), folder, None) if imports else Imports()
    start = {
        "trials": 3, "fingerprint": dataset.fingerprint, "storage": None, "tracking_uri": None, "data_dir": None,
        "command": f"python j.py --study {name}", "workers": 1, "gpus_per_trial": 0.0,
    }  # fmt: skip
    folder.save(spec, start)
    ledger = open_ledger(name, spec, space, open_storage(folder.path), imports=found, fingerprint=dataset.fingerprint)
    write_study(ledger.study, trials=3)
    for _ in range(ended):
        number = ledger.ask().number
        judged = protocol.model_copy(update={"extractor_sha256": weights or protocol.extractor_sha256})
        ledger.complete(number, TrialOutcome({"fid": 9.0 - number}, plain(judged)))
    return ledger


@pytest.fixture
def job(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a job, which must not start Ray. Return its exit code, its output and its errors."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "connect", lambda *_: pytest.fail("Ray was started"))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "240")
        with pytest.raises(SystemExit) as ended:
            main("j", home / "space.yaml", "", arguments=["--home", str(home), *arguments])
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `coldtune study`, which must not start Ray. Return its exit code, its output and its errors."""
    monkeypatch.setattr(cluster, "connect", lambda *_: pytest.fail("Ray was started"))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "240")
        with pytest.raises(SystemExit) as ended:
            cli.main(["study", *arguments, "--home", str(home)])
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


def test_job_of_a_finished_study_prints_table_and_how_to_extend(job: Call, command: Call) -> None:
    for printed in (job("--study", "old"), job("--study", "old", "--trials", "3"), command("resume", "old")):
        code, out, _ = printed
        assert code == 0
        assert "3 trials over T, around digits-quick (RANDOM, seed 0); they ended before, so none is asked" in out
        assert "★2  finished" in out
        (more,) = [line for line in out.splitlines() if line.startswith("  more trials")]
        assert more.endswith(" --trials 11")


def test_job_with_fewer_trials_than_ended_keeps_all(home: Path, job: Call) -> None:
    code, out, _ = job("--study", "old", "--trials", "2")
    assert code == 0
    assert "2 trials over T, around digits-quick (RANDOM, seed 0); 3 trials ended before, so none is asked" in out
    assert "★2  finished" in out
    assert "--trials 11" in out
    assert StudyFolder(home, "old").start()["trials"] == 3, "nor does the next `resume` ask for fewer"


def test_job_with_another_spec_of_the_same_name_is_refused(job: Call) -> None:
    code, _, error = job("--study", "old", "--set", "training.lr=0.002")
    assert code == 2
    assert "holds a study with another spec. Use the same settings, or another name" in error
    assert "--import old. base.training.lr: 0.002, there 0.001" in error


def test_job_with_a_changed_judge_is_refused(home: Path, job: Call) -> None:
    begin(home, "new", ended=1, weights="12" * 32)
    code, _, error = job("--study", "new")
    assert code == 2
    assert "error: --study new: its trials were judged under another protocol, with which new trials cannot" in error
    assert f"extractor_sha256 ('{'12' * 32}', now '{build_extractor('digits').sha256}'). Judge as before" in error
    begin(home, "whole", ended=3, weights="12" * 32)
    code, out, _ = job("--study", "whole")
    assert (code, "★2  finished" in out) == (0, True), "nothing is asked, so nothing is compared with what was judged"
    assert job("--study", "whole", "--trials", "4")[0] == 2


def test_job_of_a_running_study_is_refused_and_driver_is_listed(home: Path, job: Call, command: Call) -> None:
    with driver_lease(FolderRegistry(home / "studies" / "old" / "drivers"), "old", join=False):
        for code, _, error in (job("--study", "old"), job("--study", "old", "--trials", "9"), command("resume", "old")):
            assert code == 2
            assert f"--study old: is being run by process {os.getpid()} on " in error
        _, out, _ = command("list")
        assert f"process {os.getpid()} on " in out
        code, _, error = job("--study", "old", "--join", "--trials", "9")
        assert (code, error.startswith("error: --trials 9: joins a study of 3 trials")) == (2, True)
    assert "process" not in command("list")[1]


def test_imported_trial_is_marked_in_list_and_table(home: Path, command: Call) -> None:
    ledger = begin(home, "new", ended=1, imports=("old",))
    _, out, _ = command("list")
    (line,) = [line for line in out.splitlines() if " new " in line]
    assert "1 + 3 imported" in line
    _, out, _ = command("show", "new")
    states = [line.split()[1] for line in out.splitlines() if line.strip()[:1].isdigit() or "★" in line[:8]]
    assert states[:4] == ["imported", "imported", "imported", "finished"]
    assert running._imported(ledger) == {"imported_trials": 3, "imported_from": {"old": 3}}


def test_show_running_trial_is_not_called_interrupted(home: Path, command: Call) -> None:
    folder = StudyFolder(home, "new")
    begin(home, "new", ended=1)
    registry = FolderRegistry(folder.path / "drivers")
    with driver_lease(registry, "new", join=False) as lease:
        spec, dataset = folder.spec(), Dataset.open(prepared(home, "digits")[0])
        space = Space(spec.space, spec.base, dataset.image_shape)
        open_ledger("new", spec, space, open_storage(folder.path), lease=lease).ask()
        assert " running " in command("show", "new")[1]
    assert " interrupted " in command("show", "new")[1]


def test_study_that_settles_says_in_all_its_files_that_it_has_ended(home: Path) -> None:
    ledger = begin(home, "settled", ended=3)
    ledger.stop_when(lambda: "The last settings gained nothing.")
    folder = StudyFolder(home, "settled")
    folder.save(folder.spec(), {**folder.start(), "trials": 70})
    options = SimpleNamespace(confirm=3, equal_within=None)  # without the measurement on test, which needs a cluster
    checked = SimpleNamespace(folder=folder, space=ledger.space, trials=70, options=options)
    verdicts: list[list[str]] = []
    with Tracker(folder.spool, folder.name, running=False) as tracker:
        runs = SimpleNamespace(parent=tracker, finished=verdicts.append)
        run = running._StudyRun(SimpleNamespace(checked=checked, ledger=ledger), None, runs, {})  # type: ignore[arg-type]
        run._wrap_up(None, None)  # type: ignore[arg-type]
    (page,) = [path.read_text() for path in folder.spool.rglob("*report.html")]
    assert "The study has not ended" not in page
    assert "and no more are asked, because the search has settled" in page
    assert verdicts[0][0] == "The last settings gained nothing."
    assert StudyRecord.of(ledger.study).settled == 3
