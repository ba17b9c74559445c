"""A study's folder: start.json without passwords, and its places in a home that moves."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from pathlib import Path

import pytest

from coldtune.studies.preflight.options import RunOptions
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import START_FILE, StudyFolder
from coldtune.studies.storage.backends import open_storage, stored_study

SPEC = build_spec("folder", Path(__file__).parents[3] / "search_spaces" / "blur.yaml")


START = {"trials": 3, "fingerprint": "f" * 64, "command": "uv run jobs/sweep_blur.py"}
SECRETS = ["PGPASSWORD", "MYSQL_PWD", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"]


@pytest.fixture(autouse=True)
def no_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)


def write_old(folder: StudyFolder, **values: object) -> None:
    """Write start.json as an older version did: with passwords, relative places and without the home."""
    folder.save(SPEC, START)
    (folder.path / START_FILE).write_text(json.dumps({**START, "storage": None, "tracking_uri": None, **values}))


def test_study_folder_saves_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, storage = StudyFolder(tmp_path, "study"), "postgresql://me:S3CRET@db/studies"
    command = f"job.py --storage={storage} --tracking-uri http://me:S3CRET@host --store s3://K:S3CRET@bucket/x"
    start = {"storage": storage, "tracking_uri": "http://me:S3CRET@host", "store": "s3://K:S3CRET@bucket/x"}
    folder.save(SPEC, {**START, **start, "command": command})
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "S3CRET" in path.read_text()]
    assert folder.storage() == "postgresql://me@db/studies"
    assert folder.tracking_uri() == "http://host"
    monkeypatch.setenv("PGPASSWORD", "again")
    assert folder.storage() == "postgresql://me:again@db/studies"


def test_study_folder_old_start_with_a_password_is_read_and_saved_without_it(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "study")
    write_old(folder, storage="postgresql://me:S3CRET@db/studies")
    assert folder.storage() == "postgresql://me:S3CRET@db/studies"
    options = RunOptions.from_start(tmp_path, {**folder.start(), "storage": folder.storage()})
    assert options.storage == "postgresql://me:S3CRET@db/studies"
    folder.save(SPEC, {**START, **options.to_start()})
    assert "S3CRET" not in (folder.path / START_FILE).read_text()


def test_study_folder_password_file_of_the_last_start_is_read_again(tmp_path: Path) -> None:
    folder, file = StudyFolder(tmp_path, "study"), tmp_path / "secret"
    file.write_text("S3CRET\n")
    folder.save(SPEC, {**START, "storage": "postgresql://me@db/d", "password_file": str(file)})
    assert folder.storage() == "postgresql://me:S3CRET@db/d"
    file.unlink()
    with pytest.raises(ValueError, match=r"--password-file .*cannot be read"):
        folder.storage()


@pytest.mark.parametrize("way", ["moved", "copied"])
def test_study_folder_places_in_the_home_move_with_it(tmp_path: Path, way: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new home"
    places = {
        "storage": f"sqlite:///{old}/opt.db?timeout=9",
        "tracking_uri": f"sqlite:///{tmp_path}/elsewhere.db",
        "store": f"{old}/shared",
        "command": f"uv run jobs/sweep_blur.py --home {old} --trials 3",
    }
    StudyFolder(old, "study").save(SPEC, {**START, **places})
    (shutil.move if way == "moved" else shutil.copytree)(str(old), str(new))
    folder = StudyFolder(new, "study")
    assert folder.storage() == f"sqlite:///{new}/opt.db?timeout=9"
    assert folder.tracking_uri() == places["tracking_uri"]
    assert folder.store().path == new / "shared"
    assert shlex.split(folder.start()["command"]) == [
        "uv", "run", "jobs/sweep_blur.py", "--home", str(new), "--trials", "3",
    ]  # fmt: skip


def test_study_folder_old_relative_database_is_found_beside_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = StudyFolder(tmp_path / "runs", "study"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    write_old(folder, storage="sqlite:///opt.db")
    with pytest.raises(ValueError, match=r"--storage sqlite:///opt.db was recorded without its folder, and is in none"):
        folder.storage()
    (tmp_path / "opt.db").touch()
    assert folder.storage() == f"sqlite:///{tmp_path}/opt.db"
    (elsewhere / "opt.db").touch()
    with pytest.raises(ValueError, match="is in both of"):
        folder.storage()


def test_stored_study_missing_database_is_not_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/opt.db"
    assert stored_study(tmp_path, "study", url) is None
    with pytest.raises(ValueError, match="no such database"):
        open_storage(tmp_path, url, create=False)
    assert not (tmp_path / "opt.db").exists()


def test_run_options_addresses_of_a_command_line_are_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    flags = ["--storage", "sqlite:///opt.db", "--tracking-uri", "sqlite:///ml.db", "--store", "shared"]
    start = read_flags(flags, tmp_path).to_start()
    assert start["storage"] == f"sqlite:///{tmp_path}/opt.db"
    assert start["tracking_uri"] == f"sqlite:///{tmp_path}/ml.db"
    assert not caplog.text
    options = read_flags(["--storage", "postgresql://me:S3/CRET@db/d"], tmp_path)
    assert options.storage == "postgresql://me:S3%2FCRET@db/d"
    assert len(caplog.messages) == 1
    assert "--storage: other users" in caplog.text
    assert "PGPASSWORD" in caplog.text
    assert "CRET" not in caplog.text
    with pytest.raises(ValueError, match=r"--storage sqlite:///:memory:: names no file"):
        read_flags(["--storage", "sqlite:///:memory:"], tmp_path)


def read_flags(flags: list[str], home: Path) -> RunOptions:
    parser = argparse.ArgumentParser()
    RunOptions.add_flags(parser)
    return RunOptions.from_flags(parser.parse_args(flags), home=home, command="job")
