"""The store: finished work is found, damaged work is set aside, and two writers of one key agree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from coldtune.stages.store import Store, StoreCache, StoreCheckpoints


def write(text: str):
    def fill(directory: Path) -> None:
        (directory / "sub").mkdir()
        (directory / "a.txt").write_text(text)
        (directory / "sub" / "b.txt").write_text(text * 2)

    return fill


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_was_put_is_found_with_what_was_said_about_it(store: Store) -> None:
    entry = store.put("kind", "k1", lambda d: write("x")(d) or {"answer": 42})
    found = Store(store.root).find("kind", "k1")
    assert found is not None
    assert found.path == entry.path
    assert found.about["answer"] == 42
    assert found.about["seconds"] >= 0
    assert (found.path / "sub" / "b.txt").read_text() == "xx"
    assert store.find("kind", "other") is None
    assert store.find("other", "k1") is None


def test_get_builds_once(store: Store) -> None:
    calls = []

    def build(directory: Path) -> None:
        calls.append(1)
        write("x")(directory)

    assert store.get("kind", "k", build)[1] is False
    assert store.get("kind", "k", build)[1] is True
    assert len(calls) == 1


def damage_truncate(path: Path) -> None:
    (path / "a.txt").write_text("")


def damage_edit(path: Path) -> None:
    (path / "a.txt").write_text("y")  # as long as before


def damage_remove(path: Path) -> None:
    (path / "sub" / "b.txt").unlink()


def damage_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("{")


def damage_no_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def damage_foreign(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "key": "another"}))


def damage_list(path: Path) -> None:
    (path / "manifest.json").write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [damage_truncate, damage_edit, damage_remove, damage_manifest, damage_no_manifest, damage_foreign, damage_list],
)
def test_a_damaged_entry_is_set_aside_and_rebuilt(store: Store, damage) -> None:
    entry = store.put("kind", "k", write("x"))
    damage(entry.path)
    with pytest.warns(UserWarning, match="kind/k is not believed"):
        assert store.find("kind", "k") is None
    assert len(list((store.root / ".torn").iterdir())) == 1
    rebuilt, found = store.get("kind", "k", write("x"))
    assert not found
    assert (rebuilt.path / "a.txt").read_text() == "x"


def test_put_replaces_a_damaged_entry_in_its_way(store: Store) -> None:
    entry = store.put("kind", "k", write("x"))
    damage_edit(entry.path)
    with pytest.warns(UserWarning, match="not believed"):
        again = store.put("kind", "k", write("x"))
    assert (again.path / "a.txt").read_text() == "x"


def test_the_first_of_two_writers_wins_and_both_get_it(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda i: store.put("kind", "k", write(str(i))), range(16)))
    texts = {(entry.path / "a.txt").read_text() for entry in entries}
    assert len(texts) == 1
    assert not list((store.root / ".writing").iterdir())


def test_a_build_that_fails_leaves_nothing(store: Store) -> None:
    def build(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.get("kind", "k", build)
    assert store.find("kind", "k") is None
    assert not list((store.root / ".writing").iterdir())


def test_a_writer_killed_in_the_middle_leaves_no_entry(store: Store) -> None:
    script = (
        "import sys, time; from pathlib import Path; from coldtune.stages.store import Store\n"
        "def fill(d):\n"
        "    (d / 'a.txt').write_text('half'); print('writing', flush=True); time.sleep(60)\n"
        "Store(sys.argv[1]).put('kind', 'k', fill)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert store.find("kind", "k") is None
    assert store.get("kind", "k", write("x"))[1] is False


def test_drop(store: Store) -> None:
    store.put("kind", "k", write("x"))
    store.drop("kind", "k")
    store.drop("kind", "k")
    assert store.find("kind", "k") is None


def test_the_cache_of_metrics_keeps_tensors_bit_for_bit(store: Store) -> None:
    made = {"mean": torch.rand(3, dtype=torch.float64), "images": torch.arange(4, dtype=torch.uint8).reshape(2, 2).T}
    cache = StoreCache(store)
    first = cache.get("reference", "k", lambda: made)
    second = StoreCache(store).get("reference", "k", lambda: pytest.fail("built twice"))
    for name, tensor in made.items():
        assert torch.equal(first[name], tensor)
        assert torch.equal(second[name], tensor)


def checkpoint(text: str):
    return lambda directory: (directory / "weights").write_text(text) and None


def test_checkpoints_continue_a_shorter_training_and_keep_what_is_final(tmp_path: Path) -> None:
    short = StoreCheckpoints(tmp_path, "key", final=30)
    for step in (10, 20, 30):
        short.save(step, checkpoint(str(step)))
    long = StoreCheckpoints(tmp_path, "key", final=60)
    assert long.latest(60) == (30, tmp_path / "train" / "key" / "00000030")
    assert long.latest(29)[0] == 20
    assert StoreCheckpoints(tmp_path, "another", final=60).latest(60) is None
    for step in (40, 45, 50, 55, 60):
        long.save(step, checkpoint(str(step)))
    kept = sorted(int(path.name) for path in (tmp_path / "train" / "key").iterdir())
    assert kept == [30, 50, 55, 60], "both ends, and the two newest of those passed on the way"


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path) -> None:
    checkpoints = StoreCheckpoints(tmp_path, "key", final=30)
    checkpoints.save(10, checkpoint("10"))
    checkpoints.save(20, checkpoint("20"))
    (tmp_path / "train" / "key" / "00000020" / "weights").write_text("?!")
    with pytest.warns(UserWarning, match="not believed"):
        assert checkpoints.latest(30)[0] == 10


def test_seconds_of_a_training_add_up_over_its_runs(tmp_path: Path) -> None:
    first = StoreCheckpoints(tmp_path, "key", final=20)
    time.sleep(0.05)
    first.save(10, checkpoint("10"))
    spent = first.seconds(10)
    assert spent >= 0.05
    second = StoreCheckpoints(tmp_path, "key", final=20)
    second.latest(20)
    second.save(20, checkpoint("20"))
    assert second.seconds(20) >= spent
