"""Garbage collection, and the commands of `coldtune store`."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console
from store_places import OBJECT_SLOW, Place

from coldtune.cli import main
from coldtune.cli.tables import ListTable
from coldtune.data import Dataset, prepared
from coldtune.stages.chain import Chain, found_only
from coldtune.stages.compute import Compute
from coldtune.stages.keys import train_key
from coldtune.store.gc import (
    EntryInfo,
    Retention,
    find_garbage,
    list_entries,
    match_entry,
    mentioned_names,
    remove_garbage,
)
from coldtune.store.object_files import CLAIMS
from coldtune.store.store import Store
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.trials.ledger import Ledger, TrialRequest, open_ledger
from coldtune.studies.worker.job import TrialJob
from coldtune.studies.worker.trial import _run

HERE = Compute(device="cpu", threads=1)
QUICK = {
    "training": {"steps": 6, "batch_size": 16, "checkpoint_every": 2, "validate_every": 0, "report_every": 6},
    "degradation": {"steps": 4},
    "protocol": {"num_images": 260},
}


@dataclass(frozen=True)
class Study:
    """A home with a study whose trial 0 finished and whose trial 1 failed. Each has three checkpoints."""

    home: Path
    folder: StudyFolder
    finished: TrialRequest
    failed: TrialRequest
    metrics: dict[str, float]

    @property
    def store(self) -> Store:
        return Store(self.home / "store")

    @property
    def dataset(self) -> Dataset:
        return Dataset.open(prepared(self.home, "digits")[0])

    def ledger(self) -> Ledger:
        spec = self.folder.spec()
        space = Space(spec.space, spec.base, self.dataset.image_shape)
        return open_ledger(self.folder.name, spec, space, open_storage(self.folder.path))

    def steps(self, asked: TrialRequest) -> list[int]:
        folder = self.home / "store" / "train" / train_key(asked.config, self.dataset, compute=HERE)
        return sorted(int(path.name) for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture(scope="module")
def made(digits_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Run real trials as a worker does, and report them to a real ledger, without a cluster."""
    home = tmp_path_factory.mktemp("study")
    shutil.copytree(digits_home / "data", home / "data")
    (home / "space.yaml").write_text("base: digits-quick\nvary:\n  training.lr: {choices: [0.001, 0.002]}\n")
    settings = [f"{section}.{key}={value}" for section, values in QUICK.items() for key, value in values.items()]
    spec = build_spec("quick", home / "space.yaml", settings=settings)
    folder = StudyFolder(home, spec.name)
    dataset = Dataset.open(prepared(home, "digits")[0])
    folder.save(spec, {"trials": 2, "fingerprint": dataset.fingerprint, "storage": None})
    ledger = open_ledger(spec.name, spec, Space(spec.space, spec.base, dataset.image_shape), open_storage(folder.path))
    ledger.study.enqueue_trial({"lr": 0.002})
    asked = [ledger.ask() for _ in range(2)]
    outcomes = [_run(job(home, folder, dataset, one), lambda *_: None) for one in asked]
    assert ledger.complete(0, outcomes[0]) is None
    ledger.fail(1, "RuntimeError: the last of its stages")
    return Study(home, folder, asked[0], asked[1], outcomes[0].metrics)


def job(home: Path, folder: StudyFolder, dataset: Dataset, asked: TrialRequest) -> TrialJob:
    return TrialJob(
        study=folder.name, number=asked.number, again=False, trial=asked.config, leftover=None, home=str(home),
        dataset_path=str(dataset.path), source_path=None, spool=str(folder.spool),
        environments=str(home / "environments"), tags={}, workers=1, cpus=1, gpus=0,
    )  # fmt: skip


@pytest.fixture
def study(made: Study, tmp_path: Path) -> Study:
    """Return a copy of the study at another path than its trials mention."""
    shutil.copytree(made.home, tmp_path / "home")
    return Study(
        tmp_path / "home",
        StudyFolder(tmp_path / "home", made.folder.name),
        made.finished,
        made.failed,
        made.metrics,
    )


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def gc(study: Study, *arguments: object) -> int:
    return command("store", "gc", "--home", study.home, "--older", 0, *arguments)


def entries(store: Store) -> set[str]:
    return {item.name for item in list_entries(store)}


def test_gc_command_keeps_entries_of_finished_trials_only(study: Study, capsys) -> None:
    before, bytes_before = entries(study.store), sum(item.bytes for item in list_entries(study.store))
    assert study.steps(study.finished) == [2, 4, 6]
    assert study.steps(study.failed) == [2, 4, 6]
    assert gc(study) == 0
    assert "nothing was removed" in capsys.readouterr().out
    assert entries(study.store) == before
    assert gc(study, "--yes") == 0
    assert study.steps(study.finished) == [6]
    assert study.steps(study.failed) == []
    bytes_after = sum(item.bytes for item in list_entries(study.store))
    assert 0 < bytes_after < 0.6 * bytes_before, "one of two trainings, without its intermediate checkpoints"

    again = Chain(study.finished.config, study.dataset, study.store).run(found_only, lambda *_: None)
    assert all(record.found for record in again.stages)
    assert dict(again.metrics) == study.metrics
    capsys.readouterr()
    assert command("study", "show", study.folder.name, "--home", study.home) == 0
    assert "failed" in capsys.readouterr().out


def test_gc_entries_shared_with_a_finished_trial_stay(study: Study) -> None:
    """Both trials start from the same degraded images, which are judged once."""
    trials = study.ledger().trials()
    degraded = {Path(trials[0].user_attrs[key]["degraded"]).name for key in ("images", "measured")}
    assert len(degraded) == 2
    gc(study, "--yes")
    assert degraded <= {item.key for item in list_entries(study.store)}


def test_gc_running_trial_protects_entries_made_since_its_start(study: Study, capsys) -> None:
    ledger = study.ledger()
    ledger.ask()
    store = study.store
    old = store.put("sample", "before", lambda d: None)
    backdate(old.path, time.time() - 2 * 3600)
    during = store.put("train", "key/00000010", lambda d: {"final": False})
    backdate(during.path, time.time() - 0.9 * 3600)  # a host whose clock is behind may have made it
    assert gc(study, "--yes") == 0
    assert "Some trials have not ended" in capsys.readouterr().out
    assert "sample/before" not in entries(store)
    assert "train/key/00000010" in entries(store)


def test_gc_young_entries_stay(study: Study, capsys) -> None:
    before = entries(study.store)
    assert command("store", "gc", "--home", study.home, "--yes") == 0
    assert entries(study.store) == before
    assert "0 removed" in capsys.readouterr().out


def test_gc_unreadable_study_is_named_and_keeps_its_entries(study: Study, capsys) -> None:
    before = entries(study.store)
    (study.folder.path / "start.json").write_text("{")
    assert gc(study, "--yes") == 1
    said = f"study {study.folder.name}: {study.folder.path / 'start.json'}: is not complete JSON"
    assert said in capsys.readouterr().err
    assert entries(study.store) == before
    assert command("store", "ls", "--home", study.home) == 1
    assert said in capsys.readouterr().err


def test_gc_after_study_deletion_removes_all_entries(study: Study) -> None:
    shutil.rmtree(study.folder.path)
    assert gc(study, "--yes") == 0
    assert entries(study.store) == set()
    assert [path for path in (study.home / "store").rglob("*") if path.is_file()] == []


def backdate(entry: Path, created: float) -> None:
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps({**manifest, "created": created}))


def nothing(directory: Path) -> None:
    (directory / "a.txt").write_text("x")


def test_gc_recorded_user_counts_until_study_deleted_or_trial_failed(study: Study) -> None:
    store = study.store
    for by in (f"{study.folder.name}/0", f"{study.folder.name}/1", "deleted/0", "evaluation of mine"):
        store.record_use(store.put("sample", by.replace("/", "-").replace(" ", "-"), nothing), by)
    gc(study, "--yes")
    kept = {name for name in entries(store) if name.startswith("sample/")}
    assert f"sample/{study.folder.name}-0" in kept
    assert "sample/evaluation-of-mine" in kept
    assert not {f"sample/{study.folder.name}-1", "sample/deleted-0"} & kept


def test_remove_garbage_entry_with_a_new_user_stays(place: Place) -> None:
    store = place.store()
    for key in ("a", "b"):
        store.put("kind", key, nothing)
    found = find_garbage(store, Retention(), 0)
    store.record_use("kind/a", "somebody")
    assert [one.name for one in remove_garbage(store, found)] == ["kind/b"]
    assert entries(store) == {"kind/a"}


def test_find_garbage_torn_and_orphaned_files_expire_after_a_day(place: Place) -> None:
    store = place.store()
    store.record_use(store.put("kind", "whole", nothing), "somebody")
    # In a bucket, files without a manifest are no entry, so they expire like those of a killed writer.
    torn = ["train/key/00000010"] if place.kind == "local" else []
    store.put("train", "key/00000010", nothing)
    place.remove("train/key/00000010/manifest.json")
    store.put("train", "key/00000020", nothing)
    store.record_use("train/key/00000020", "somebody")
    left = {".torn/kind-k-1/a.txt", ".leases/kind+k.first", ".users/kind+gone/somebody"}
    left.add(".writing/abc/half" if place.kind == "local" else f"{CLAIMS}/kind+k._0123")
    for name in left:
        place.write(name, b"x")
    now = time.time()
    assert [one.name for one in find_garbage(store, Retention(), 0, now + 5)] == torn
    later = find_garbage(store, Retention(), 0, now + 86400 + 60)
    tops = {name.partition("/")[0] for name in left} | {"train"}
    assert {one.name.partition("/")[0] for one in later} == tops
    list(remove_garbage(store, later))
    assert entries(store) == {"kind/whole", "train/key/00000020"}
    assert not left & place.names()
    assert sum(name.startswith("train/") for name in place.names()) == 2, "file and manifest of the entry in use"
    assert store.users("kind", "whole") == ["somebody"]


def test_find_garbage_live_lease_stays(local_store: Store) -> None:
    with local_store.lease("train", "key"):
        (local_store.root / ".leases" / "train+key.beat-x").write_text("7")
        os.utime(local_store.root / ".leases" / "train+key.beat-x", (time.time() + 86400,) * 2)
        assert find_garbage(local_store, Retention(), 0, time.time() + 86400 + 60) == []


@OBJECT_SLOW
def test_remove_garbage_killed_leaves_whole_entries(place: Place) -> None:
    store = place.store()
    count, files = (25, 20) if place.kind == "local" else (15, 4)

    def many(directory: Path) -> None:
        for number in range(files):
            (directory / f"{number}.txt").write_text("x")

    for number in range(count):
        store.put("kind", f"k{number}", many)
    # The process does not handle the alarm, so it is killed at a random place of its next removals.
    script = (
        "import signal, sys; from coldtune.store.store import Store; from coldtune.store.gc import *\n"
        "store = Store(sys.argv[1])\n"
        "for number, one in enumerate(remove_garbage(store, find_garbage(store, Retention(), 0)), 1):\n"
        "    if number == 5: signal.setitimer(signal.ITIMER_REAL, 0.002)\n"
    )
    process = subprocess.run([sys.executable, "-c", script, place.at.where], check=False)
    assert process.returncode == -signal.SIGALRM, "killed before it could end"
    place.come_to_rest()
    left = list_entries(store)
    assert 0 < len(left) <= count - 5
    assert all(store.find(item.kind, item.key) is not None for item in left)
    list(remove_garbage(store, find_garbage(store, Retention(), 0)))
    list(remove_garbage(store, find_garbage(store, Retention(), 0, time.time() + 86400 + 60)))
    assert place.names() == set()


class KilledError(Exception):
    """A SIGKILL between two system calls."""


def test_remove_garbage_renames_an_entry_before_deleting_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.put("kind", "k", nothing)

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KilledError):
            list(remove_garbage(store, find_garbage(store, Retention(), 0)))
    assert entries(store) == set()
    assert not (tmp_path / "kind" / "k").exists()
    assert len(list((tmp_path / ".writing").iterdir())) == 1


def test_retention_mentions_match_after_the_store_moved() -> None:
    attributes = {
        "stages": [["train", "abc/300", True, 1.0]],
        "images": {"sampled": "/elsewhere/store/sample/def"},
        "checkpoint": "/elsewhere/store/train/abc/00000300",
    }
    retention = Retention({name: {"study"} for name in mentioned_names(attributes)})
    needed = [("sample", "def"), ("train", "abc/00000300")]
    assert all(retention.users_of(EntryInfo(kind, key, 1, 0.0)) == {"study"} for kind, key in needed)
    others = [("sample", "abc"), ("train", "abc/00000200"), ("train", "ab/00000300")]
    assert not any(retention.users_of(EntryInfo(kind, key, 1, 0.0)) for kind, key in others)
    by_stage_alone = Retention({name: {"study"} for name in mentioned_names(attributes["stages"])})
    assert by_stage_alone.users_of(EntryInfo("train", "abc/00000300", 1, 0.0)) == {"study"}


def test_match_entry_finds_by_prefix() -> None:
    items = [
        EntryInfo("train", "abc/00000100", 1, 0.0),
        EntryInfo("train", "abc/00000200", 1, 0.0),
        EntryInfo("sample", "abd", 1, 0.0),
    ]
    assert match_entry(items, "abd") is items[2]
    assert match_entry(items, "train/abc/00000100") is items[0]
    with pytest.raises(ValueError, match=r"ab: 3 entries start with it(.|\n)*train/abc/00000100"):
        match_entry(items, "ab")
    with pytest.raises(ValueError, match="x: no entry's key starts with it"):
        match_entry(items, "x")


def test_store_table_wraps_long_names_without_cutting_them() -> None:
    table = ListTable("store", ("kind", "key"), ("size",), ("used by",))
    table.add_row("train", "c92f95f9c811/00000006", "2.56 MB", "a-study-with-a-long-name-0a29c6")
    console = Console(width=50, file=io.StringIO())
    console.print(table)
    said = console.file.getvalue()
    assert "…" not in said
    lines = said.splitlines()
    at = next(number for number, line in enumerate(lines) if "used by" in line)  # the table may continue below
    users = lines[at].index("used by")
    assert "".join(line[users:].strip() for line in lines[at + 1 :]) == "a-study-with-a-long-name-0a29c6"


def test_store_ls_lists_kinds_and_users(study: Study, capsys) -> None:
    assert command("store", "ls", "--home", study.home) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    items = list_entries(study.store)
    of_finished, of_failed = (
        train_key(asked.config, study.dataset, compute=HERE)[:12] for asked in (study.finished, study.failed)
    )
    (final,) = [line for line in lines if f"{of_finished}/00000006" in line]
    assert final.endswith(study.folder.name)
    (other,) = [line for line in lines if f"{of_failed}/00000006" in line]
    assert other.endswith("nobody")
    assert any(line.startswith("total") and f"{len(items)} in all" in line for line in lines)
    assert command("store", "ls", "--home", study.home, "--kind", "train") == 0
    assert "6 in all" in capsys.readouterr().out
    assert command("store", "ls", "--home", study.home, "--kind", "trian") == 2
    assert "there are: measure, " in capsys.readouterr().err


def test_store_show_prints_the_manifest(study: Study, capsys) -> None:
    key = f"{train_key(study.finished.config, study.dataset, compute=HERE)}/00000006"
    assert command("store", "show", f"train/{key}", "--home", study.home) == 0
    said = capsys.readouterr().out
    for expected in (f"entry: train/{key}", "ema.safetensors: ", "SHA-256", "step: 6", study.folder.name, "python: "):
        assert expected in said
    assert command("store", "show", "train/", "--home", study.home) == 2
    assert "6 entries start with it" in capsys.readouterr().err


def test_store_verify_finds_a_changed_byte(study: Study, capsys) -> None:
    assert command("store", "verify", "--home", study.home) == 0
    number = len(list_entries(study.store))
    assert f"{number} of {number} entries" in capsys.readouterr().out
    weights = next((study.home / "store" / "train").rglob("ema.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert command("store", "verify", "--home", study.home) == 1
    said = capsys.readouterr().out
    assert "the content of ema.safetensors is not that of the manifest" in said
    assert f"{number - 1} of {number} entries" in said


def test_store_commands_accept_an_empty_home(tmp_path: Path, capsys) -> None:
    for verb in ("ls", "gc", "verify"):
        assert command("store", verb, "--home", tmp_path) == 0
    assert "0 would go" in capsys.readouterr().out
