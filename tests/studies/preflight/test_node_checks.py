"""The messages about nodes that miss a requirement of trials. The tests on real nodes are in tests/e2e."""

from __future__ import annotations

from pathlib import Path

from coldtune.processes import this_process
from coldtune.store.location import StoreLocation
from coldtune.studies.preflight.nodes import TrialRequirements, problems_of_node, report_from_node, sqlite_problems


def requirements(tmp_path: Path, tracking: str, storage: str | None) -> TrialRequirements:
    return TrialRequirements({"home": tmp_path}, {}, StoreLocation.of(tmp_path / "store"), tracking, storage)


def report_and_tokens(
    tmp_path: Path, node_sees: Path, store: StoreLocation | None = None
) -> tuple[dict, dict[str, Path]]:
    """Return the report of a node that sees the folder `node_sees` instead of tmp_path, and the driver's tokens."""
    token = tmp_path / ".seen-1"
    token.write_text(token.name)
    report = report_from_node(
        "id7", "node7", {"home": str(node_sees / token.name)}, {}, store or StoreLocation.of(tmp_path)
    )
    return report, {"home": token}


def test_node_with_shared_home_has_no_problems(tmp_path: Path) -> None:
    report, tokens = report_and_tokens(tmp_path, tmp_path)
    assert report["process"] == this_process()
    assert problems_of_node(report, tokens) == []
    assert (tmp_path / ".seen-1.id7").read_text() == "node7"


def test_node_with_its_own_home_is_reported(tmp_path: Path) -> None:
    report, tokens = report_and_tokens(tmp_path, tmp_path / "not there")
    (said,) = problems_of_node(report, tokens)
    assert said.startswith(f"home {tmp_path} is not the same folder on node node7; ")
    assert "--home must be a folder that all of them share" in said


def test_node_whose_writes_do_not_appear_is_reported(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("coldtune.studies.preflight.nodes._APPEARANCE_TIMEOUT_S", 0.3)
    report, tokens = report_and_tokens(tmp_path, tmp_path)
    (tmp_path / ".seen-1.id7").unlink()
    (said,) = problems_of_node(report, tokens)
    assert "a file that node node7 writes there is not seen here" in said


def test_node_with_another_dataset_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.arrow").touch()
    names = {"dataset digits": (str(tmp_path), ["a.arrow", "b.arrow"]), "dataset mnist": (str(tmp_path), ["a.arrow"])}
    report = report_from_node("id7", "node7", {}, names, StoreLocation.of(tmp_path))
    (said,) = problems_of_node(report, {})
    assert said.startswith("dataset digits: node node7 does not have it")


def test_node_that_cannot_use_the_store_is_reported(tmp_path: Path) -> None:
    report, tokens = report_and_tokens(tmp_path, tmp_path, StoreLocation("nonsense://bucket", str(tmp_path)))
    (said,) = problems_of_node(report, tokens)
    assert said.startswith("node node7: --store nonsense://bucket: ")


def test_sqlite_with_other_machines_is_reported_and_a_journal_is_not(tmp_path: Path) -> None:
    files = requirements(tmp_path, "sqlite:////home/mlflow.db", "sqlite:////home/optuna.db")
    said = sqlite_problems(files, ["node7", "node8", "node7"])
    assert [line.partition(" ")[0] for line in said] == ["--tracking-uri", "--storage"]
    assert all("(node7, node8)" in line for line in said)
    assert "`mlflow server`" in said[0]
    assert "postgresql://" in said[1]
    assert sqlite_problems(files, []) == []
    servers = requirements(tmp_path, "http://host:5000", "postgresql://host/db")
    assert (
        sqlite_problems(servers, ["node7"])
        == sqlite_problems(requirements(tmp_path, "http://host:5000", None), ["node7"])
        == []
    )
