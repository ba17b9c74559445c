"""Command lines of a study on a machine that does not take what is written. No trial runs, and Ray does not start."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from ray import exceptions as ray_errors

from coldtune import cli
from coldtune.cli import job
from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.environment import coldtune_command
from coldtune.studies import run
from coldtune.studies.execution.session import Session
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage, stored_study
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import open_ledger
from coldtune.studies.trials.reading import read_study
from coldtune.tracking import Target

FULL = "OSError: [Errno 28] No space left on device"
DIVERGED = "DivergedError: the loss is nan"
SPACE = "base: digits-quick\nvary:\n  sampler.num_steps: {choices: [null, 2, 3, 4, 5, 6]}\n"


@pytest.fixture
def make_study(digits_home: Path, tmp_path: Path, target: Target) -> Callable[..., StudyFolder]:
    """Return a function that makes a study whose trials failed for the given reasons."""

    def make(*reasons: str) -> StudyFolder:
        home = tmp_path / "home"
        shutil.copytree(digits_home / "data", home / "data")
        (tmp_path / "space.yaml").write_text(SPACE)
        spec = build_spec("quick", tmp_path / "space.yaml")
        folder = StudyFolder(home, spec.name)
        dataset = Dataset.open(prepared(home, "digits")[0])
        start = {
            "trials": len(reasons),
            "fingerprint": dataset.fingerprint,
            "command": "python jobs/quick.py --trials 2",
        }
        folder.save(spec, {**start, "storage": None, "tracking_uri": target.uri, "store": None, "data_dir": None})
        space = Space(spec.space, spec.base, dataset.image_shape)
        ledger = open_ledger(spec.name, spec, space, open_storage(folder.path))
        for reason in reasons:
            ledger.fail(ledger.ask().number, reason)
        return folder

    return make


def resume(folder: StudyFolder, *flags: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["study", "resume", folder.name, "--home", str(folder.home), *flags])
    return int(end.value.code or 0)


def stand_in(monkeypatch: pytest.MonkeyPatch, act: Callable[[Session], object]) -> None:
    """Let `act` take the place of the trials on a cluster."""

    def run_trials(session: Session, ray: object, console: object) -> bool:
        act(session)
        return session.ledger.finished() >= session.checked.trials

    monkeypatch.setattr(run, "run_trials", run_trials)


def never(session: Session) -> None:
    raise AssertionError("nothing is left to run")


def raises(error: BaseException) -> Callable[[Session], None]:
    def act(session: Session) -> None:
        session.ledger.ask()
        raise error

    return act


def ends(*failing: int) -> Callable[[Session], None]:
    """Ask everything that is wanted. The trials with the given numbers fail."""

    def act(session: Session) -> None:
        ledger, protocol = session.ledger, plain(session.checked.protocol)
        while ledger.wanted(2) > 0:
            request = ledger.ask(2)
            assert request is not None
            if request.number in failing:
                ledger.fail(request.number, DIVERGED)
            else:
                ledger.complete(request.number, TrialOutcome({"fid": 1.0}, protocol))

    return act


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "/x/journal.log"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/x/store"),
        ray_errors.RayTaskError(
            "coldtune_test", "", OSError(errno.EROFS, "Read-only file system")
        ).as_instanceof_cause(),
        ray_errors.WorkerCrashedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_resume_fault_of_the_machine_ends_with_3_and_how_to_resume(
    make_study: Callable[..., StudyFolder],
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_study(FULL)
    stand_in(monkeypatch, raises(error))
    assert resume(folder) == 3
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    (line,) = [line for line in out.splitlines() if line.startswith("stopped by a fault of the machine")]
    assert str(folder.home) in line
    command = coldtune_command("study resume", folder.home, folder.name)
    assert re.search(rf"^  resume +{re.escape(command)}$", out, re.MULTILINE)
    study = stored_study(folder.path, folder.name, None)
    assert study is not None
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.RUNNING]


def test_resume_if_even_the_table_cannot_be_written_still_says_how_to_resume(
    make_study: Callable[..., StudyFolder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(FULL)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "table.md")

    monkeypatch.setattr("coldtune.studies.progress.table.write_file", full)
    stand_in(monkeypatch, raises(OSError(errno.EIO, "Input/output error")))
    assert resume(folder) == 3
    out = capsys.readouterr().out
    assert "Input/output error" in out
    assert "the table was not written" in out
    assert "  resume " in out
    stand_in(monkeypatch, ends())
    assert resume(folder) == 3, "the study has its trials, and its table is missing"
    assert "No space left on device" in capsys.readouterr().out


def test_resume_asks_trials_again_that_the_machine_failed(
    make_study: Callable[..., StudyFolder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(FULL, DIVERGED)
    stand_in(monkeypatch, ends())
    assert resume(folder) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "because a fault of the machine made them fail: 0 as trial 2" in out
    assert "1 of 2 trials failed; the last one, trial 1: DivergedError: the loss is nan" in out
    command = coldtune_command("study resume", folder.home, folder.name, flags=["--retry-failed"])
    assert f"retry failed {command}" in out
    stand_in(monkeypatch, ends())
    assert resume(folder, "--retry-failed") == 0
    assert "1 as trial 3" in capsys.readouterr().out
    reader = read_study(folder)
    assert [trial.state.name for trial in reader.trials()] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert reader.failed() == []


def test_resume_study_without_a_finished_trial_ends_with_3(
    make_study: Callable[..., StudyFolder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(DIVERGED, DIVERGED)
    stand_in(monkeypatch, never)
    assert resume(folder) == 3
    out = capsys.readouterr().out
    assert "none finished, and 2 of 2 trials failed" in out
    assert "--retry-failed" in out


def run_job(tmp_path: Path, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    (tmp_path / "space.yaml").write_text(SPACE)

    def no_session(*_: Any) -> None:
        raise AssertionError("nothing may be spent")

    monkeypatch.setattr(run, "open_session", no_session)
    monkeypatch.setattr("coldtune.data.prepare", no_session)
    monkeypatch.setattr(sys, "argv", ["quick.py", *arguments])
    with pytest.raises(SystemExit) as end:
        job.main("quick", tmp_path / "space.yaml", "A job.", arguments=arguments)
    return int(end.value.code or 0)


@pytest.mark.parametrize("flag", ["--store", "--home"])
@pytest.mark.parametrize(
    "place", ["/dev/null", "/proc/x", "/etc/passwd", "/etc/passwd/x", "/sys/x", "FILE", "LONG", "LINK"]
)
def test_job_place_that_is_no_writable_folder_is_refused_at_once(
    tmp_path: Path, flag: str, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nothing" / "there")
    named = {"FILE": str(tmp_path / "file"), "LONG": str(tmp_path / ("x" * 300)), "LINK": str(tmp_path / "link")}
    arguments = [flag, named.get(place, place)]
    if flag == "--store":
        arguments += ["--home", str(tmp_path / "home")]
    assert run_job(tmp_path, arguments, monkeypatch) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith(f"error: {flag}")
    assert named.get(place, place) in err
    assert not (tmp_path / "home").exists(), "a check leaves nothing behind"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_job_read_only_store_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    arguments = ["--store", str(tmp_path / "store"), "--home", str(tmp_path / "home")]
    assert run_job(tmp_path, arguments, monkeypatch) == 2
    assert "permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["studies", "data", "ray", "store"])
def test_job_home_with_a_file_in_the_place_of_a_folder_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / name).write_text("x")
    assert run_job(tmp_path, ["--home", str(tmp_path / "home")], monkeypatch) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert str(tmp_path / "home" / name) in err


def test_job_image_size_that_the_restorer_refuses_is_found_before_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--home", str(tmp_path / "home"), "--set", "data.image_size=13"]
    assert run_job(tmp_path, arguments, monkeypatch) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: restorer.size = 'micro': needs image sides divisible by 4, not 13x13.")
    assert "such as 12 or 16 (data.image_size)" in err
