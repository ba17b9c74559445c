"""MLflow's place: moved and copied homes, odd names of homes, files outside the spool, and studies of equal names."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from coldtune.tracking import TAG_STUDY_ID, Target, Tracker, default_uri, drain, prepare
from coldtune.tracking.spool import Spool


def run_ids(target: Target, study: str) -> list[str]:
    found = MlflowClient(target.uri).search_runs([target.experiment_id], f"tags.`coldtune.study` = '{study}'")
    return sorted(run.info.run_id for run in found)


def artifacts(target: Target, run_id: str) -> list[str]:
    return [item.path for item in MlflowClient(target.uri).list_artifacts(run_id)]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, which takes seconds to make."""
    home = tmp_path_factory.mktemp("database")
    prepare(default_uri(home), "other", home / "artifacts")
    return home / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, database: Path) -> Path:
    home = tmp_path / "runs"
    home.mkdir()
    shutil.copy(database, home / "mlflow.db")
    return home


def opened(home: Path) -> Target:
    return prepare(default_uri(home), "coldtune", home / "artifacts")


def record_a_file(home: Path, target: Target, name: str, number: int = 0) -> str:
    """Deliver the run of a trial with a file, and return the run's id."""
    (home / name).write_text(name)
    with Tracker(home / "spool", "study", number) as trial, Tracker(home / "spool", "study"):
        trial.artifact(home / name)
    assert drain(home / "spool", target).error is None
    run_id = Spool(home / "spool", f"trial-{number:04d}").state(target.key).run_id
    assert run_id is not None
    return run_id


@pytest.mark.parametrize("way", ["moved", "copied"])
def test_prepare_home_elsewhere_finds_its_artifacts_there(home: Path, tmp_path: Path, way: str) -> None:
    run_id = record_a_file(home, opened(home), "first.txt")
    new = tmp_path / "elsewhere" / "runs b"
    (shutil.move if way == "moved" else shutil.copytree)(str(home), str(new))
    before = sorted(home.rglob("*")) if way == "copied" else []
    target = opened(new)
    assert artifacts(target, run_id) == ["first.txt"]
    assert Path(MlflowClient(target.uri).download_artifacts(run_id, "first.txt")).read_text() == "first.txt"
    # Another run, because MLflow remembers in each process where the files of a run are.
    record_a_file(new, target, "second.txt", 1)
    assert len(list((new / "artifacts").rglob("second.txt"))) == 1
    assert (sorted(home.rglob("*")) if home.exists() else []) == before


def test_prepare_home_behind_a_link_keeps_its_places(home: Path, tmp_path: Path) -> None:
    run_id = record_a_file(home, opened(home), "first.txt")
    (tmp_path / "link").symlink_to(home)
    target = opened(tmp_path / "link")
    assert MlflowClient(target.uri).get_run(run_id).info.artifact_uri.startswith(f"{home.as_uri()}/artifacts/")
    assert artifacts(target, run_id) == ["first.txt"]


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a#b", "a b;&'"])
def test_prepare_home_with_an_odd_name_keeps_everything_inside(tmp_path: Path, database: Path, name: str) -> None:
    home = tmp_path / "top" / name
    home.mkdir(parents=True)
    shutil.copy(database, home / "mlflow.db")
    target = opened(home)
    run_id = record_a_file(home, target, "first.txt")
    assert artifacts(target, run_id) == ["first.txt"]
    assert [path.name for path in home.parent.iterdir()] == [name]
    assert [path.name for path in home.rglob("first.txt")] == ["first.txt"] * 2  # the file, and the artifact


def test_drain_studies_of_equal_name_are_different_runs(home: Path, tmp_path: Path) -> None:
    target, identities = opened(home), [uuid.uuid4().hex, uuid.uuid4().hex, None]
    ids: list[list[str]] = []
    for number, identity in enumerate(identities):
        spool, tags = tmp_path / f"spool{number}", {} if identity is None else {TAG_STUDY_ID: identity}
        Tracker(spool, "blur", tags=tags).params({"lr": number})
        Tracker(spool, "blur", 0, tags=tags).metrics({"fid": number})
        Tracker(spool, "blur", 1, running=False).end("failed", "it never began")  # opened without tags
        assert drain(spool, target).pending == 0
        states = [Spool(spool, name).state(target.key) for name in ("study", "trial-0000", "trial-0001")]
        ids.append([str(state.run_id) for state in states])
    assert len({run for runs in ids for run in runs}) == 9
    client = MlflowClient(target.uri)
    for number, runs in enumerate(ids):
        assert client.get_run(runs[0]).data.params == {"lr": str(number)}
        assert {client.get_run(run).data.tags["mlflow.parentRunId"] for run in runs[1:]} == {runs[0]}
    for path in tmp_path.glob("spool*/*.state"):
        path.unlink()  # the delivery states are lost, so every run must be found by its tags
    for number in range(3):
        drain(tmp_path / f"spool{number}", target)
        assert Spool(tmp_path / f"spool{number}", "study").state(target.key).run_id == ids[number][0]
    assert len(run_ids(target, "blur")) == 9


@pytest.mark.parametrize(
    "path", ["../victim", "trial-0000.files/1/../../../victim", "{victim}", "trial-0000.files/1/link"]
)
def test_drain_record_of_a_file_outside_the_spool_is_set_aside(home: Path, tmp_path: Path, path: str) -> None:
    target, spool, victim = opened(home), home / "spool", tmp_path / "victim"
    victim.write_text("precious")
    with Tracker(spool, "study", 0), Tracker(spool, "study"):
        pass
    (spool / "trial-0000.files" / "1").mkdir(parents=True)
    (spool / "trial-0000.files" / "1" / "link").symlink_to(victim)
    record = {"op": "artifact", "path": path.format(victim=victim), "folder": "", "time": 1}
    Spool(spool, "trial-0000").append(record)
    assert drain(spool, target).pending == 0
    assert victim.read_text() == "precious"
    assert not list((home / "artifacts").rglob("*/victim")) + list((home / "artifacts").rglob("link"))
    assert json.loads((spool / "trial-0000.rejected").read_text())["record"]["path"] == record["path"]


def test_drain_record_of_a_folder_outside_the_artifacts_is_set_aside(home: Path) -> None:
    target, spool = opened(home), Spool(home / "spool", "trial-0000")
    record_a_file(home, target, "first.txt")
    copy = spool.add_file(home / "first.txt")
    spool.append({"op": "artifact", "path": copy, "folder": "../../../escaped", "time": 1})
    assert drain(home / "spool", target).pending == 0
    assert spool.rejected_path.exists()
    assert not list(home.parent.rglob("escaped"))


@pytest.mark.parametrize("name", ["trial-0000.jsonl", "trial-0000.rejected"])
def test_spool_file_that_is_a_link_never_changes_its_target(tmp_path: Path, name: str) -> None:
    victim, spool = tmp_path / "victim", tmp_path / "spool"
    victim.write_text("precious")
    spool.mkdir()
    (spool / name).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        Spool(spool, "trial-0000").append({"op": "end"}) if "jsonl" in name else Spool(spool, "trial-0000").reject(
            {}, ""
        )
    assert victim.read_text() == "precious"
