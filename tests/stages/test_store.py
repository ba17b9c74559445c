"""The store: finished work is found, damaged work is set aside, and two writers of one key agree."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

import coldtune
from coldtune.stages.store import Store, StoreCache, StoreCheckpoints
from coldtune.stages.store_files import LocalFiles


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


def let_settle(path: Path) -> None:
    """Until an entry is old enough that it is read in full only once by a process."""
    newest = max(file.stat().st_ctime for file in path.rglob("*"))
    time.sleep(max(0.0, newest + 2.05 - time.time()))


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


def damage_other_schema(path: Path) -> None:
    (path / "manifest.json").write_text('{"kind": "kind", "key": "k", "created": true, "files": [], "about": {}}')


def damage_not_text(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"\xff\xfe")


def damage_add(path: Path) -> None:
    (path / "sub" / "extra.txt").write_text("x")


def damage_folder_for_file(path: Path) -> None:
    (path / "a.txt").unlink()
    (path / "a.txt").mkdir()


def damage_folder_for_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()
    (path / "manifest.json").mkdir()


def damage_empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def damage_file_for_entry(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


def damage_dangling_link(path: Path) -> None:
    (path / "a.txt").unlink()
    (path / "a.txt").symlink_to("nowhere")


DAMAGE = {
    damage_truncate: "a.txt has not the 1 bytes of the manifest",
    damage_edit: "the content of a.txt is not that of the manifest",
    damage_remove: "sub/b.txt is missing",
    damage_manifest: "its manifest cannot be read",
    damage_no_manifest: "manifest.json is missing",
    damage_foreign: "its manifest is that of kind/another",
    damage_list: "its manifest cannot be read",
    damage_other_schema: r"its manifest cannot be read \(ValueError: no created, files in it",
    damage_not_text: "its manifest cannot be read",
    damage_add: "sub/extra.txt is not in its manifest",
    damage_folder_for_file: "a.txt is missing",
    damage_folder_for_manifest: "manifest.json",
    damage_empty: "manifest.json is missing",
    damage_file_for_entry: "manifest.json cannot be read",
    damage_dangling_link: "a.txt has not the 1 bytes of the manifest",
}


@pytest.mark.parametrize(
    ("damage", "read_before"),
    [*((damage, False) for damage in DAMAGE), (damage_edit, True), (damage_add, True), (damage_empty, True)],
)
def test_a_damaged_entry_is_set_aside_and_rebuilt(store: Store, damage, read_before: bool) -> None:
    entry = store.put("kind", "k", write("x"))
    if read_before:
        let_settle(entry.path)
        assert store.find("kind", "k") is not None
    damage(entry.path)
    with pytest.warns(UserWarning, match=f"kind/k is not believed: {DAMAGE[damage]}"):
        assert store.find("kind", "k") is None
    assert len(list((store.root / ".torn").iterdir())) == 1
    rebuilt, found = store.get("kind", "k", write("x"))
    assert not found
    assert (rebuilt.path / "a.txt").read_text() == "x"


@pytest.mark.parametrize("name", [".DS_Store", "sub/.nfs000000012a"])
def test_what_a_desktop_or_a_file_system_hides_in_an_entry_does_no_harm(store: Store, name: str) -> None:
    entry = store.put("kind", "k", write("x"))
    (entry.path / name).write_text("")
    assert store.find("kind", "k") is not None


class FailingFiles(LocalFiles):
    """The files of a store, of which those of one name cannot be opened."""

    def __init__(self, root: Path, name: str, error: int) -> None:
        super().__init__(root)
        self.name, self.error = name, error

    def open(self, name: str) -> BinaryIO:
        if name.endswith(self.name):
            raise OSError(self.error, os.strerror(self.error), name)
        return super().open(name)


@pytest.mark.parametrize("name", ["a.txt", "manifest.json"])
@pytest.mark.parametrize(("error", "raises"), [(errno.EACCES, ValueError), (errno.EMFILE, OSError)])
def test_what_may_not_or_cannot_be_opened_now_is_not_taken_for_damage(store: Store, name, error, raises) -> None:
    store.put("kind", "k", write("x"))
    failing = Store(store.root, files=FailingFiles(store.root, name, error))
    with pytest.raises(raises, match="may not be read" if raises is ValueError else "Too many open files"):
        failing.get("kind", "k", lambda _: pytest.fail("built again"))
    assert store.find("kind", "k") is not None


def test_an_unreadable_disk_is_damage(store: Store) -> None:
    store.put("kind", "k", write("x"))
    failing = Store(store.root, files=FailingFiles(store.root, "a.txt", errno.EIO))
    with pytest.warns(UserWarning, match="a.txt cannot be read"):
        assert failing.find("kind", "k") is None


class CountingFiles(LocalFiles):
    """The files of a store, and which of them were opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []

    def open(self, name: str) -> BinaryIO:
        self.opened.append(name)
        return super().open(name)


def test_a_process_reads_an_entry_once_and_again_when_it_was_touched(store: Store) -> None:
    entry = store.put("kind", "k", write("x"))
    let_settle(entry.path)
    files = CountingFiles(store.root)
    looking = Store(store.root, files=files)
    assert looking.find("kind", "k") == store.find("kind", "k")
    assert len(files.opened) == 3
    looking.find("kind", "k")
    assert len(files.opened) == 3
    os.utime(entry.path / "a.txt")
    looking.find("kind", "k")
    assert len(files.opened) == 6


def test_an_edit_that_keeps_size_and_time_is_seen(store: Store) -> None:
    entry = store.put("kind", "k", write("x"))
    let_settle(entry.path)
    assert store.find("kind", "k") is not None
    before = (entry.path / "a.txt").stat()
    damage_edit(entry.path)
    os.utime(entry.path / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.warns(UserWarning, match="the content of a.txt"):
        assert store.find("kind", "k") is None


def test_a_folder_of_entries_is_no_torn_entry(store: Store) -> None:
    store.put("train", "key/00000010", write("x"))
    assert store.find("train", "key") is None
    assert store.find("train", "key/00000010") is not None


def test_an_entry_without_the_record_of_its_making_is_believed(store: Store) -> None:
    """As stores before that record have them."""
    entry = store.put("kind", "k", write("x"))
    manifest = json.loads((entry.path / "manifest.json").read_text())
    del manifest["made"]
    (entry.path / "manifest.json").write_text(json.dumps(manifest))
    found = store.find("kind", "k")
    assert found is not None
    assert found.made == {}


def test_the_manifest_says_where_and_with_what_it_was_made(store: Store) -> None:
    made = store.put("kind", "k", write("x")).made
    assert made["host"] == socket.gethostname()
    assert made["python"] == ".".join(map(str, sys.version_info[:3]))
    assert made["torch"] == torch.__version__
    assert made["coldtune"] == coldtune.__version__
    assert made["threads"] == torch.get_num_threads()
    assert made["workers"] == 1
    assert made["device"]


def test_the_manifest_counts_the_workers_of_a_distributed_training(store: Store, tmp_path: Path) -> None:
    script = (
        "import sys, torch.distributed as dist; from coldtune.stages.store import Store\n"
        "rank = int(sys.argv[3])\n"
        "dist.init_process_group('gloo', init_method=f'file://{sys.argv[2]}', rank=rank, world_size=2)\n"
        "if rank == 0: Store(sys.argv[1]).put('kind', 'k', lambda d: None)\n"
        "dist.barrier(); dist.destroy_process_group()\n"
    )
    arguments = [sys.executable, "-c", script, str(store.root), str(tmp_path / "meet")]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    workers = [subprocess.Popen([*arguments, str(rank)], env=environment) for rank in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    entry = store.find("kind", "k")
    assert entry is not None
    assert entry.made["workers"] == 2


def test_users_are_recorded_once_each(store: Store) -> None:
    entry, _ = Store(store.root, by="blur-1a2b3c/0").get("train", "key/00000010", write("x"))
    Store(store.root, by="blur-1a2b3c/1").get("train", "key/00000010", write("x"))
    store.used(entry, "blur-1a2b3c/1")
    store.used("train/key/00000010", "a person: µ")
    store.get("train", "key/00000010", write("x"))
    assert store.users("train", "key/00000010") == ["a person: µ", "blur-1a2b3c/0", "blur-1a2b3c/1"]
    assert store.users("train", "key") == []
    store.drop("train", "key/00000010")
    assert store.users("train", "key/00000010") == []


def test_a_store_that_may_only_be_read_gives_what_it_has(store: Store) -> None:
    class ReadOnly(LocalFiles):
        def write(self, name: str, data: bytes, new: bool = False) -> bool:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)

    store.put("kind", "k", write("x"))
    reading = Store(store.root, by="study/0", files=ReadOnly(store.root))
    assert reading.get("kind", "k", lambda _: pytest.fail("built again"))[1] is True
    assert store.users("kind", "k") == []


def test_put_says_what_is_in_its_way(store: Store) -> None:
    store.put("train", "key/00000010", write("x"))
    with pytest.raises(ValueError, match=f"train/key: {store.root}/train/key is in its way"):
        store.put("train", "key", write("x"))
    assert store.find("train", "key/00000010") is not None


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


def test_a_checkpoint_passed_on_the_way_stays_where_a_trial_ends_at_it(tmp_path: Path) -> None:
    long = StoreCheckpoints(tmp_path, "key", final=60)
    long.save(10, checkpoint("10"))
    Store(tmp_path).used("train/key/00000010", "another/3")
    for step in (20, 30, 40, 50, 60):
        long.save(step, checkpoint(str(step)))
    assert [long.has(step) for step in (10, 20, 30, 40, 50, 60)] == [True, False, False, True, True, True]


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
