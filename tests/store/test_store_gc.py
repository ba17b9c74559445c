"""What may go from a store: never what a study's trials need; and the commands that say and do it."""

from __future__ import annotations

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
from store_places import OBJECT_SLOW, Place

from coldtune.cli import main
from coldtune.data import Dataset, prepared
from coldtune.stages.chain import Chain, found_only
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
from coldtune.studies.trials.ledger import Ledger, TrialRequest
from coldtune.studies.worker.job import TrialJob
from coldtune.studies.worker.trial import _run

QUICK = {
    "training": {"steps": 6, "batch_size": 16, "checkpoint_every": 2, "validate_every": 0, "report_every": 6},
    "degradation": {"steps": 4},
    "protocol": {"num_images": 260},
}


@dataclass(frozen=True)
class Study:
    """A home with a study whose trial 0 finished (three checkpoints on its way, the last two kept) and 1 failed."""

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
        return Ledger(self.folder.name, spec, space, open_storage(self.folder.path))

    def steps(self, asked: TrialRequest) -> list[int]:
        folder = self.home / "store" / "train" / train_key(asked.config, self.dataset)
        return sorted(int(path.name) for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture(scope="module")
def made(digits_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Real trials, run as on a worker and told to a real ledger, without a cluster."""
    home = tmp_path_factory.mktemp("study")
    shutil.copytree(digits_home / "data", home / "data")
    (home / "space.yaml").write_text("base: digits-quick\nvary:\n  training.lr: {choices: [0.001, 0.002]}\n")
    settings = [f"{section}.{key}={value}" for section, values in QUICK.items() for key, value in values.items()]
    spec = build_spec("quick", home / "space.yaml", settings=settings)
    folder = StudyFolder(home, spec.name)
    dataset = Dataset.open(prepared(home, "digits")[0])
    folder.save(spec, {"trials": 2, "fingerprint": dataset.fingerprint, "storage": None})
    ledger = Ledger(spec.name, spec, Space(spec.space, spec.base, dataset.image_shape), open_storage(folder.path))
    ledger.study.enqueue_trial({"lr": 0.002})
    asked = [ledger.ask() for _ in range(2)]
    outcomes = [_run(job(home, folder, dataset, one), lambda *_: None) for one in asked]
    assert ledger.complete(0, outcomes[0]) is None
    ledger.fail(1, "RuntimeError: the last of its stages")
    return Study(home, folder, asked[0], asked[1], outcomes[0].metrics)


def job(home: Path, folder: StudyFolder, dataset: Dataset, asked: TrialRequest) -> TrialJob:
    return TrialJob(
        study=folder.name, number=asked.number, again=False, trial=asked.config, leftover=None, home=str(home),
        dataset_path=str(dataset.path), source_path=None, spool=str(folder.spool), tags={}, workers=1, cpus=1, gpus=0,
    )  # fmt: skip


@pytest.fixture
def study(made: Study, tmp_path: Path) -> Study:
    """A copy, elsewhere than its trials say."""
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


def test_gc_keeps_what_a_finished_trial_needs_and_removes_the_rest(study: Study, capsys) -> None:
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
    assert 0 < bytes_after < 0.6 * bytes_before, "one of two trainings, without what it passed"

    again = Chain(study.finished.config, study.dataset, study.store).run(found_only, lambda *_: None)
    assert all(record.found for record in again.stages)
    assert dict(again.metrics) == study.metrics
    capsys.readouterr()
    assert command("study", "show", study.folder.name, "--home", study.home) == 0
    assert "failed" in capsys.readouterr().out


def test_what_a_failed_trial_shares_with_a_finished_one_stays(study: Study) -> None:
    """Both begin with the same degraded images, judged once."""
    trials = study.ledger().trials()
    degraded = {Path(trials[0].user_attrs[key]["degraded"]).name for key in ("images", "measured")}
    assert len(degraded) == 2
    gc(study, "--yes")
    assert degraded <= {item.key for item in list_entries(study.store)}


def test_a_trial_that_did_not_end_keeps_everything_made_since_it_began(study: Study, capsys) -> None:
    ledger = study.ledger()
    ledger.ask()
    store = study.store
    old = store.put("sample", "before", lambda d: None)
    backdate(old.path, time.time() - 2 * 3600)
    during = store.put("train", "key/00000010", lambda d: {"final": False})
    backdate(during.path, time.time() - 0.9 * 3600)  # by the clock of another host
    assert gc(study, "--yes") == 0
    assert "Trials that did not end" in capsys.readouterr().out
    assert "sample/before" not in entries(store)
    assert "train/key/00000010" in entries(store)


def test_an_entry_younger_than_asked_for_stays(study: Study, capsys) -> None:
    before = entries(study.store)
    assert command("store", "gc", "--home", study.home, "--yes") == 0
    assert entries(study.store) == before
    assert "0 removed" in capsys.readouterr().out


def test_nothing_is_removed_where_a_study_cannot_be_read(study: Study, capsys) -> None:
    before = entries(study.store)
    (study.folder.path / "start.json").write_text("{")
    assert gc(study, "--yes") == 2
    said = capsys.readouterr().err
    assert f"study {study.folder.name} cannot be read" in said
    assert entries(study.store) == before
    assert command("store", "ls", "--home", study.home) == 0
    assert "cannot be read" in capsys.readouterr().out


def test_without_the_study_nothing_is_needed(study: Study) -> None:
    shutil.rmtree(study.folder.path)
    assert gc(study, "--yes") == 0
    assert entries(study.store) == set()
    assert [path for path in (study.home / "store").rglob("*") if path.is_file()] == []


def backdate(entry: Path, created: float) -> None:
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps({**manifest, "created": created}))


def nothing(directory: Path) -> None:
    (directory / "a.txt").write_text("x")


def test_a_recorded_user_counts_until_its_study_is_gone_or_its_trial_failed(study: Study) -> None:
    store = study.store
    for by in (f"{study.folder.name}/0", f"{study.folder.name}/1", "deleted/0", "evaluation of mine"):
        store.record_use(store.put("sample", by.replace("/", "-").replace(" ", "-"), nothing), by)
    gc(study, "--yes")
    kept = {name for name in entries(store) if name.startswith("sample/")}
    assert f"sample/{study.folder.name}-0" in kept
    assert "sample/evaluation-of-mine" in kept
    assert not {f"sample/{study.folder.name}-1", "sample/deleted-0"} & kept


def test_a_user_that_comes_between_the_plan_and_its_doing_saves_the_entry(place: Place) -> None:
    store = place.store()
    for key in ("a", "b"):
        store.put("kind", key, nothing)
    found = find_garbage(store, Retention(), 0)
    store.record_use("kind/a", "somebody")
    assert [one.name for one in remove_garbage(store, found)] == ["kind/b"]
    assert entries(store) == {"kind/a"}


def test_torn_entries_and_what_killed_processes_left_go_after_a_day(place: Place) -> None:
    store = place.store()
    store.record_use(store.put("kind", "whole", nothing), "somebody")
    torn, found_torn = ("train/key/00000010", True) if place.kind == "local" else ("", False)
    store.put("train", "key/00000010", nothing)
    place.remove("train/key/00000010/manifest.json")
    store.put("train", "key/00000020", nothing)
    store.record_use("train/key/00000020", "somebody")
    left = {".torn/kind-k-1/a.txt", ".leases/kind+k.first", ".users/kind+gone/somebody"}
    left.add(".writing/abc/half" if place.kind == "local" else f"{CLAIMS}/kind+k._0123")
    for name in left:
        place.write(name, b"x")
    now = time.time()
    assert [one.name for one in find_garbage(store, Retention(), 0, now + 5)] == [torn][: int(found_torn)]
    later = find_garbage(store, Retention(), 0, now + 86400 + 60)
    tops = {name.partition("/")[0] for name in left} | {"train"}
    assert {one.name.partition("/")[0] for one in later} == tops
    list(remove_garbage(store, later))
    assert entries(store) == {"kind/whole", "train/key/00000020"}
    assert not left & place.names()
    assert sum(name.startswith("train/") for name in place.names()) == 2, "the file and the manifest of the other one"
    assert store.users("kind", "whole") == ["somebody"]


def test_a_lease_that_gives_signs_of_life_stays_however_long_it_is_held(local_store: Store) -> None:
    with local_store.lease("train", "key"):
        (local_store.root / ".leases" / "train+key.beat-x").write_text("7")
        os.utime(local_store.root / ".leases" / "train+key.beat-x", (time.time() + 86400,) * 2)
        assert find_garbage(local_store, Retention(), 0, time.time() + 86400 + 60) == []


@OBJECT_SLOW
def test_a_gc_that_is_killed_leaves_whole_entries_and_the_next_goes_on(place: Place) -> None:
    store = place.store()
    count, files = (60, 20) if place.kind == "local" else (15, 4)

    def many(directory: Path) -> None:
        for number in range(files):
            (directory / f"{number}.txt").write_text("x")

    for number in range(count):
        store.put("kind", f"k{number}", many)
    # The alarm, which it does not handle, kills it somewhere in what it does next.
    script = (
        "import signal, sys; from coldtune.store.store import Store; from coldtune.store.gc import *\n"
        "store = Store(sys.argv[1])\n"
        "for number, one in enumerate(remove_garbage(store, find_garbage(store, Retention(), 0)), 1):\n"
        "    if number == 5: signal.setitimer(signal.ITIMER_REAL, 0.002)\n"
    )
    process = subprocess.run([sys.executable, "-c", script, place.at.where], check=False)
    assert process.returncode == -signal.SIGALRM, "killed, not ended"
    place.come_to_rest()
    left = list_entries(store)
    assert 0 < len(left) <= count - 5
    assert all(store.find(item.kind, item.key) is not None for item in left)
    list(remove_garbage(store, find_garbage(store, Retention(), 0)))
    list(remove_garbage(store, find_garbage(store, Retention(), 0, time.time() + 86400 + 60)))
    assert place.names() == set()


class KilledError(Exception):
    """Stands for a SIGKILL between two system calls."""


def test_an_entry_is_renamed_before_any_of_its_files_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_what_trials_mention_is_found_wherever_the_store_lies() -> None:
    attributes = {
        "stages": [["train", "abc/300", True, 1.0]],
        "images": {"sampled": "/elsewhere/store/sample/def"},
        "checkpoint": "/elsewhere/store/train/abc/00000300",
    }
    needs = Retention({name: {"study"} for name in mentioned_names(attributes)})
    needed = [("sample", "def"), ("train", "abc/00000300")]
    assert all(needs.users_of(EntryInfo(kind, key, 1, 0.0)) == {"study"} for kind, key in needed)
    others = [("sample", "abc"), ("train", "abc/00000200"), ("train", "ab/00000300")]
    assert not any(needs.users_of(EntryInfo(kind, key, 1, 0.0)) for kind, key in others)
    by_stage_alone = Retention({name: {"study"} for name in mentioned_names(attributes["stages"])})
    assert by_stage_alone.users_of(EntryInfo("train", "abc/00000300", 1, 0.0)) == {"study"}


def test_an_entry_is_named_by_the_beginning_of_its_key() -> None:
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


def test_ls_names_sizes_and_users(study: Study, capsys) -> None:
    assert command("store", "ls", "--home", study.home) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    items = list_entries(study.store)
    (final,) = [line for line in lines if f"{train_key(study.finished.config, study.dataset)[:12]}/00000006" in line]
    assert final.endswith(study.folder.name)
    (other,) = [line for line in lines if f"{train_key(study.failed.config, study.dataset)[:12]}/00000006" in line]
    assert other.endswith("nobody")
    assert any(line.startswith("total") and f"{len(items)} in all" in line for line in lines)
    assert command("store", "ls", "--home", study.home, "--kind", "train") == 0
    assert "6 in all" in capsys.readouterr().out
    assert command("store", "ls", "--home", study.home, "--kind", "trian") == 2
    assert "there are: measure, " in capsys.readouterr().err


def test_show_prints_the_manifest(study: Study, capsys) -> None:
    key = f"{train_key(study.finished.config, study.dataset)}/00000006"
    assert command("store", "show", f"train/{key}", "--home", study.home) == 0
    said = capsys.readouterr().out
    for expected in (f"entry: train/{key}", "ema.safetensors: ", "SHA-256", "step: 6", study.folder.name, "python: "):
        assert expected in said
    assert command("store", "show", "train/", "--home", study.home) == 2
    assert "6 entries start with it" in capsys.readouterr().err


def test_verify_reads_everything(study: Study, capsys) -> None:
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


def test_an_empty_home(tmp_path: Path, capsys) -> None:
    for verb in ("ls", "gc", "verify"):
        assert command("store", verb, "--home", tmp_path) == 0
    assert "0 would go" in capsys.readouterr().out
