"""Tests of the records that a tracker writes into the journal. They do not use MLflow."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coldtune.tracking import Tracker
from coldtune.tracking.spool import Spool


def journal(spool_dir: Path, name: str = "trial-0003") -> list[dict[str, Any]]:
    return [record for record, _ in Spool(spool_dir, name).read(limit=10_000)[0]]


def values(spool_dir: Path, op: str, name: str = "trial-0003") -> list[dict[str, Any]]:
    return [record["values"] for record in journal(spool_dir, name) if record["op"] == op]


def test_tracking_import_loads_neither_mlflow_nor_ray() -> None:
    code = "import coldtune.tracking, sys; print(sorted({'mlflow', 'ray', 'optuna', 'torch'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_tracker_call_is_in_the_journal_when_it_returns(spool_dir: Path) -> None:
    tracker = Tracker(spool_dir, "s", 3, name="trial 3", tags={"dataset": "digits"})
    tracker.params({"lr": 1e-3, "schedule": "linear", "flip": True, "num_steps": None})
    tracker.metrics({"loss": 0.5, "absent": None}, step=10)
    tracker.tags({"best": False})
    tracker.end("failed", "loss is NaN")
    create, params, metrics, tags, end = journal(spool_dir)
    assert create | {"time": 0} == {
        "op": "create", "study": "s", "trial": 3, "name": "trial 3", "tags": {"dataset": "digits"}, "time": 0,
    }  # fmt: skip
    assert params["values"] == {"lr": "0.001", "schedule": "linear", "flip": "true", "num_steps": "null"}
    assert (metrics["step"], metrics["values"]) == (10, {"loss": 0.5})
    assert tags["values"] == {"best": "false"}
    assert (end["status"], end["reason"]) == ("failed", "loss is NaN")
    times = [record["time"] for record in journal(spool_dir)]
    assert times == sorted(times)


def test_tracker_resumed_run_repeats_nothing(spool_dir: Path) -> None:
    first = Tracker(spool_dir, "s", 3)
    first.params({"lr": 0.1})
    for step in range(150):
        first.metrics({"loss": 1.0, "fid": 2.0} if step % 50 == 0 else {"loss": 1.0}, step)
    second = Tracker(spool_dir, "s", 3)  # the first process was killed, and its last checkpoint was at step 100
    second.params({"lr": 0.1, "seed": 7})
    for step in range(100, 200):
        second.metrics({"loss": 1.0, "fid": 2.0} if step % 50 == 0 else {"loss": 1.0}, step)
    metrics = [record for record in journal(spool_dir) if record["op"] == "metrics"]
    for key, steps in (("loss", list(range(200))), ("fid", [0, 50, 100, 150])):
        assert [record["step"] for record in metrics if key in record["values"]] == steps
    assert values(spool_dir, "params") == [{"lr": "0.1"}, {"seed": "7"}]
    assert [record["op"] for record in journal(spool_dir) if record["op"] in ("create", "resume")] == [
        "create",
        "resume",
    ]


def test_tracker_changed_parameter_keeps_first_value(spool_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    Tracker(spool_dir, "s", 3).params({"lr": 0.1})
    with caplog.at_level(logging.WARNING, "coldtune.tracking"):
        Tracker(spool_dir, "s", 3).params({"lr": 0.2})
    assert values(spool_dir, "params") == [{"lr": "0.1"}]
    assert "lr" in caplog.text


def test_tracker_not_running_only_ends_the_run(spool_dir: Path) -> None:
    Tracker(spool_dir, "s", 3).metrics({"loss": 1.0}, 1)
    Tracker(spool_dir, "s", 3, running=False).end("interrupted")
    Tracker(spool_dir, "s", 4, running=False).end("failed", "its actor died before its first record")
    assert [record["op"] for record in journal(spool_dir)] == ["create", "metrics", "end"]
    assert [record["op"] for record in journal(spool_dir, "trial-0004")] == ["create", "end"]


def test_tracker_nan_and_infinities_survive(spool_dir: Path) -> None:
    Tracker(spool_dir, "s", 3).metrics({"nan": math.nan, "inf": math.inf, "neg": -math.inf}, 1)
    (logged,) = values(spool_dir, "metrics")
    assert math.isnan(float(logged["nan"]))
    assert (float(logged["inf"]), float(logged["neg"])) == (math.inf, -math.inf)


@pytest.mark.parametrize("name", ["", "a//b", "../a", "a/./b", "loss=1", "ümläut?", "x" * 251, "/a", "a/"])
def test_tracker_name_that_mlflow_refuses_is_refused(spool_dir: Path, name: str) -> None:
    tracker = Tracker(spool_dir, "s", 3)
    for call in (tracker.metrics, tracker.params, tracker.tags):
        with pytest.raises(ValueError, match="allowed: letters, digits"):
            call({name: 1.0})
    assert [record["op"] for record in journal(spool_dir)] == ["create"]


def test_tracker_wrong_argument_is_named(spool_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='study = "it\'s": allowed'):
        Tracker(spool_dir, "it's")
    tracker = Tracker(spool_dir, "s", 3)
    with pytest.raises(ValueError, match="status = 'done': allowed: finished, pruned, failed, interrupted"):
        tracker.end("done")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a file"):
        tracker.artifact(tmp_path / "missing.png")


def test_tracker_unwritable_disk_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    picture = tmp_path / "grid.png"
    picture.write_text("")
    with caplog.at_level(logging.WARNING, "coldtune.tracking"):
        tracker = Tracker(tmp_path / "file" / "spool", "s", 3)
        tracker.params({"lr": 1})
        tracker.metrics({"loss": 1.0}, 1)
        tracker.artifact(picture)
        tracker.end("finished")
        tracker.close()
    assert caplog.text.count("cannot be used") == 1


def test_tracker_resumed_run_removes_unrecorded_files(spool_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.png").write_text("whole")
    with Tracker(spool_dir, "s", 3) as tracker:
        tracker.artifact(tmp_path / "grid.png")
    orphan = spool_dir / Spool(spool_dir, "trial-0003").add_file(tmp_path / "grid.png")
    other = spool_dir / Spool(spool_dir, "trial-0004").add_file(tmp_path / "grid.png")
    Tracker(spool_dir, "s", 3, running=False).close()
    assert orphan.exists(), "a driver that only ends the run removes nothing, because its trial may be writing"
    Tracker(spool_dir, "s", 3).close()
    assert not orphan.exists()
    (recorded,) = [record for record in journal(spool_dir) if record["op"] == "artifact"]
    assert (spool_dir / recorded["path"]).read_text() == "whole"
    assert other.exists()


def test_tracker_image_resumed_run_adds_no_second_picture(spool_dir: Path, tmp_path: Path) -> None:
    Image.new("RGB", (300, 100), (255, 0, 0)).save(tmp_path / "red.png")
    for _ in range(2):
        with Tracker(spool_dir, "s", 3) as tracker:
            tracker.image(tmp_path / "red.png", "samples/own", 40)
    tracker.image(tmp_path / "red.png", "samples/own", 80)
    paths = [Path(record["path"]) for record in journal(spool_dir) if record["op"] == "artifact"]
    keys = [path.name.partition("+timestamp+")[0] for path in paths]
    assert keys == ["samples~own+step+40"] * 2 + ["samples~own+step+80"] * 2
    whole, small = (spool_dir / path for path in paths[:2])
    assert (whole.suffix, small.suffix) == (".png", ".webp")
    assert small.name == f"{whole.stem}+compressed.webp"
    with Image.open(small) as picture:
        assert picture.size == (256, 85)
    assert values(spool_dir, "tags") == [{"mlflow.loggedImages": "True"}]


def test_tracker_image_second_file_lost_in_a_kill_is_added_under_the_same_name(spool_dir: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    with Tracker(spool_dir, "s", 3) as tracker:
        tracker.image(tmp_path / "black.png", "own")
    path = spool_dir / "trial-0003.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))  # without the small copy and the tag
    with Tracker(spool_dir, "s", 3) as tracker:
        tracker.image(tmp_path / "black.png", "own")
    whole, small = (Path(record["path"]).name for record in journal(spool_dir) if record["op"] == "artifact")
    assert small == f"{whole.removesuffix('.png')}+compressed.webp"


def test_tracker_dataset_is_linked_once(spool_dir: Path) -> None:
    for _ in range(2):
        with Tracker(spool_dir, "s", 3) as tracker:
            tracker.dataset("digits", "ab" * 32, "training", Path("/data/digits"), {"images": 1000})
    tracker.dataset("digits/test", "ab" * 32, "evaluation", Path("/data/digits"), {"images": 300})
    first, second = [record for record in journal(spool_dir) if record["op"] == "dataset"]
    assert (first["name"], first["digest"], first["context"]) == ("digits", "ab" * 18, "training")
    assert json.loads(first["profile"]) == {"images": 1000, "fingerprint": "ab" * 32}
    assert second["name"] == "digits/test"
