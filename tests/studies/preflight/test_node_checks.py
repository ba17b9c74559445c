"""What is said of nodes that lack what a trial needs; the nodes themselves are in tests/e2e."""

from __future__ import annotations

from pathlib import Path

from coldtune.processes import this_process
from coldtune.store.location import StoreLocation
from coldtune.studies.preflight.nodes import Needs, lacks, look, sqlite_files


def needs(tmp_path: Path, tracking: str, storage: str | None) -> Needs:
    return Needs({"home": tmp_path}, {}, StoreLocation.of(tmp_path / "store"), tracking, storage)


def asked(tmp_path: Path, node_sees: Path, store: StoreLocation | None = None) -> tuple[dict, dict[str, Path]]:
    """What a node says that has `node_sees` where the driver has tmp_path."""
    token = tmp_path / ".seen-1"
    token.write_text(token.name)
    report = look("id7", "node7", {"home": str(node_sees / token.name)}, {}, store or StoreLocation.of(tmp_path))
    return report, {"home": token}


def test_a_node_that_shares_the_home_lacks_nothing(tmp_path: Path) -> None:
    report, tokens = asked(tmp_path, tmp_path)
    assert report["process"] == this_process()
    assert lacks(report, tokens) == []
    assert (tmp_path / ".seen-1.id7").read_text() == "node7"


def test_a_node_with_a_home_of_its_own(tmp_path: Path) -> None:
    report, tokens = asked(tmp_path, tmp_path / "not there")
    (said,) = lacks(report, tokens)
    assert said.startswith(f"home {tmp_path} is not the same folder on node node7; ")
    assert "--home must be a folder that all of them share" in said


def test_a_node_whose_writes_do_not_arrive(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("coldtune.studies.preflight.nodes._SEEN_S", 0.3)
    report, tokens = asked(tmp_path, tmp_path)
    (tmp_path / ".seen-1.id7").unlink()
    (said,) = lacks(report, tokens)
    assert "what node node7 writes there is not seen here" in said


def test_a_dataset_that_is_another_one_there(tmp_path: Path) -> None:
    (tmp_path / "a.arrow").touch()
    names = {"dataset digits": (str(tmp_path), ["a.arrow", "b.arrow"]), "dataset mnist": (str(tmp_path), ["a.arrow"])}
    report = look("id7", "node7", {}, names, StoreLocation.of(tmp_path))
    (said,) = lacks(report, {})
    assert said.startswith("dataset digits: node node7 does not have it")


def test_a_store_that_cannot_be_used_from_there(tmp_path: Path) -> None:
    report, tokens = asked(tmp_path, tmp_path, StoreLocation("nonsense://bucket", str(tmp_path)))
    (said,) = lacks(report, tokens)
    assert said.startswith("node node7: --store nonsense://bucket: ")


def test_sqlite_is_refused_where_there_are_other_machines_and_a_journal_is_not(tmp_path: Path) -> None:
    files = needs(tmp_path, "sqlite:////home/mlflow.db", "sqlite:////home/optuna.db")
    said = sqlite_files(files, ["node7", "node8", "node7"])
    assert [line.partition(" ")[0] for line in said] == ["--tracking-uri", "--storage"]
    assert all("(node7, node8)" in line for line in said)
    assert "`mlflow server`" in said[0]
    assert "postgresql://" in said[1]
    assert sqlite_files(files, []) == []
    servers = needs(tmp_path, "http://host:5000", "postgresql://host/db")
    assert sqlite_files(servers, ["node7"]) == sqlite_files(needs(tmp_path, "http://host:5000", None), ["node7"]) == []
