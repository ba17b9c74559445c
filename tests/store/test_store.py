"""The store: finished work is found, damaged work is set aside, and two writers of the same key agree."""

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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from store_places import Bucket, Place

import coldtune
from coldtune.store.local_files import LocalFiles
from coldtune.store.location import StoreLocation
from coldtune.store.store import Store


def write(text: str):
    def fill(directory: Path) -> None:
        (directory / "sub").mkdir()
        (directory / "a.txt").write_text(text)
        (directory / "sub" / "b.txt").write_text(text * 2)

    return fill


def test_find_after_put_returns_the_entry_with_its_about(store: Store) -> None:
    entry = store.put("kind", "k1", lambda d: write("x")(d) or {"answer": 42})
    found = Store(store.at).find("kind", "k1")
    assert found is not None
    assert found == entry
    assert found.about["answer"] == 42
    assert found.about["seconds"] >= 0
    assert (found.path / "sub" / "b.txt").read_text() == "xx"
    assert store.find("kind", "other") is None
    assert store.find("other", "k1") is None


def test_get_twice_builds_once(store: Store) -> None:
    calls = []

    def build(directory: Path) -> None:
        calls.append(1)
        write("x")(directory)

    assert store.get("kind", "k", build)[1] is False
    assert store.get("kind", "k", build)[1] is True
    assert len(calls) == 1


@pytest.fixture
def let_settle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return a function that waits until an entry is old enough that a process reads it in full only once.

    The 2 s that this takes are shortened, because the test's file systems have finer clocks than FAT.
    """
    monkeypatch.setattr("coldtune.store.store._SETTLED_S", 0.1)

    def wait(path: Path) -> None:
        newest = max(file.stat().st_ctime for file in path.rglob("*"))
        time.sleep(max(0.0, newest + 0.15 - time.time()))

    return wait


def damage_truncate(place: Place) -> None:
    place.write("kind/k/a.txt", b"")


def damage_edit(place: Place) -> None:
    place.next_moment()
    place.write("kind/k/a.txt", b"y")  # the same length


def damage_remove(place: Place) -> None:
    place.remove("kind/k/sub/b.txt")


def damage_manifest(place: Place) -> None:
    place.write("kind/k/manifest.json", b"{")


def damage_no_manifest(place: Place) -> None:
    place.remove("kind/k/manifest.json")


def damage_foreign(place: Place) -> None:
    manifest = json.loads(place.read("kind/k/manifest.json"))
    place.write("kind/k/manifest.json", json.dumps({**manifest, "key": "another"}).encode())


def damage_list(place: Place) -> None:
    place.write("kind/k/manifest.json", b"[]")


def damage_other_schema(place: Place) -> None:
    text = b'{"kind": "kind", "key": "k", "created": true, "files": [], "about": {}}'
    place.write("kind/k/manifest.json", text)


def damage_not_text(place: Place) -> None:
    place.write("kind/k/manifest.json", b"\xff\xfe")


def damage_add(place: Place) -> None:
    place.write("kind/k/sub/extra.txt", b"x")


def damage_folder_for_file(place: Place) -> None:
    place.remove("kind/k/a.txt")
    place.path("kind/k/a.txt").mkdir()


def damage_folder_for_manifest(place: Place) -> None:
    place.remove("kind/k/manifest.json")
    place.path("kind/k/manifest.json").mkdir()


def damage_empty(place: Place) -> None:
    shutil.rmtree(place.path("kind/k"))
    place.path("kind/k").mkdir()


def damage_file_for_entry(place: Place) -> None:
    shutil.rmtree(place.path("kind/k"))
    place.path("kind/k").write_text("x")


def damage_dangling_link(place: Place) -> None:
    place.remove("kind/k/a.txt")
    place.path("kind/k/a.txt").symlink_to("nowhere")


DAMAGE = {
    damage_truncate: "a.txt has not the 1 bytes of the manifest",
    damage_edit: "the content of a.txt is not that of the manifest",
    damage_remove: "sub/b.txt is missing",
    damage_manifest: "its manifest cannot be read",
    damage_foreign: "its manifest is that of kind/another",
    damage_list: "its manifest cannot be read",
    damage_other_schema: r"its manifest cannot be read \(manifest.json: has wrong content: created = True",
    damage_not_text: "its manifest cannot be read",
    damage_add: "sub/extra.txt is not in its manifest",
}
# Damage that only a file system can have. In a bucket, files without a manifest are no entry at all.
LOCAL_DAMAGE = {
    damage_no_manifest: "manifest.json is missing",
    damage_folder_for_file: "a.txt is missing",
    damage_folder_for_manifest: "manifest.json",
    damage_empty: "manifest.json is missing",
    damage_file_for_entry: "manifest.json cannot be read",
    damage_dangling_link: "a.txt has not the 1 bytes of the manifest",
}


@pytest.mark.parametrize(
    ("damage", "read_before"), [*((damage, False) for damage in DAMAGE), (damage_edit, True), (damage_add, True)]
)
def test_find_damaged_entry_is_set_aside_and_rebuilt(place: Place, let_settle, damage, read_before: bool) -> None:
    assert_set_aside_and_rebuilt(place, damage, DAMAGE[damage], let_settle if read_before else None)


@pytest.mark.parametrize(
    ("damage", "read_before"), [*((damage, False) for damage in LOCAL_DAMAGE), (damage_empty, True)]
)
def test_find_damaged_local_folder_is_set_aside_and_rebuilt(
    tmp_path: Path, let_settle, damage, read_before: bool
) -> None:
    place = Place(StoreLocation.of(tmp_path / "store"), tmp_path)
    assert_set_aside_and_rebuilt(place, damage, LOCAL_DAMAGE[damage], let_settle if read_before else None)


def assert_set_aside_and_rebuilt(place: Place, damage, problem: str, let_settle: Callable[[Path], None] | None) -> None:
    store = place.store()
    entry = store.put("kind", "k", write("x"))
    if let_settle is not None:
        let_settle(entry.path)
        assert store.find("kind", "k") is not None
    damage(place)
    with pytest.warns(UserWarning, match=f"kind/k is damaged: {problem}"):
        assert store.find("kind", "k") is None
    assert len(place.torn()) == 1
    rebuilt, found = store.get("kind", "k", write("x"))
    assert not found
    assert (rebuilt.path / "a.txt").read_text() == "x"
    assert store.find("kind", "k") is not None


def test_find_in_bucket_without_manifest_returns_none(bucket: Bucket) -> None:
    store = bucket.store()
    store.put("kind", "k", write("x"))
    damage_no_manifest(bucket)
    assert store.find("kind", "k") is None
    assert store.get("kind", "k", write("x"))[1] is False
    assert bucket.being_written() == 1, "the rest of the entry is known, and goes with the next gc"


@pytest.mark.parametrize("name", [".DS_Store", "sub/.nfs000000012a"])
def test_find_entry_with_hidden_files_is_valid(place: Place, name: str) -> None:
    store = place.store()
    store.put("kind", "k", write("x"))
    place.write(f"kind/k/{name}", b"")
    assert store.find("kind", "k") is not None


class FailingFiles(LocalFiles):
    """The files of a store, but opening those with a given name fails."""

    def __init__(self, root: Path, name: str, error: int) -> None:
        super().__init__(root)
        self.name, self.error = name, error

    def open(self, name: str) -> BinaryIO:
        if name.endswith(self.name):
            raise OSError(self.error, os.strerror(self.error), name)
        return super().open(name)


@pytest.mark.parametrize("name", ["a.txt", "manifest.json"])
@pytest.mark.parametrize(("error", "raises"), [(errno.EACCES, ValueError), (errno.EMFILE, OSError)])
def test_get_unreadable_file_raises_instead_of_rebuilding(local_store: Store, name, error, raises) -> None:
    local_store.put("kind", "k", write("x"))
    failing = Store(local_store.root, files=FailingFiles(local_store.root, name, error))
    with pytest.raises(raises, match="may not be read" if raises is ValueError else "Too many open files"):
        failing.get("kind", "k", lambda _: pytest.fail("built again"))
    assert local_store.find("kind", "k") is not None


def test_find_input_output_error_counts_as_damage(local_store: Store) -> None:
    local_store.put("kind", "k", write("x"))
    failing = Store(local_store.root, files=FailingFiles(local_store.root, "a.txt", errno.EIO))
    with pytest.warns(UserWarning, match="a.txt cannot be read"):
        assert failing.find("kind", "k") is None


class CountingFiles(LocalFiles):
    """The files of a store, with a list of those that were opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []

    def open(self, name: str) -> BinaryIO:
        self.opened.append(name)
        return super().open(name)


def test_find_rereads_an_entry_only_after_a_change(local_store: Store, let_settle) -> None:
    entry = local_store.put("kind", "k", write("x"))
    let_settle(entry.path)
    files = CountingFiles(local_store.root)
    looking = Store(local_store.root, files=files)
    assert looking.find("kind", "k") == local_store.find("kind", "k")
    assert len(files.opened) == 3
    looking.find("kind", "k")
    assert len(files.opened) == 3
    os.utime(entry.path / "a.txt")
    looking.find("kind", "k")
    assert len(files.opened) == 6


def test_find_edit_that_keeps_size_and_time_is_detected(local_store: Store, let_settle) -> None:
    entry = local_store.put("kind", "k", write("x"))
    let_settle(entry.path)
    assert local_store.find("kind", "k") is not None
    before = (entry.path / "a.txt").stat()
    (entry.path / "a.txt").write_text("y")
    os.utime(entry.path / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.warns(UserWarning, match="the content of a.txt"):
        assert local_store.find("kind", "k") is None


def test_find_folder_of_entries_is_not_damage(store: Store) -> None:
    store.put("train", "key/00000010", write("x"))
    assert store.find("train", "key") is None
    assert store.find("train", "key/00000010") is not None


def test_find_manifest_without_provenance_is_valid(place: Place) -> None:
    """Early stores have such manifests."""
    store = place.store()
    store.put("kind", "k", write("x"))
    manifest = json.loads(place.read("kind/k/manifest.json"))
    del manifest["made"]
    place.write("kind/k/manifest.json", json.dumps(manifest).encode())
    found = store.find("kind", "k")
    assert found is not None
    assert found.made == {}


def test_put_records_machine_and_versions(store: Store) -> None:
    made = store.put("kind", "k", write("x")).made
    assert made["host"] == socket.gethostname()
    assert made["python"] == ".".join(map(str, sys.version_info[:3]))
    assert made["torch"] == torch.__version__
    assert made["coldtune"] == coldtune.__version__
    assert made["threads"] == torch.get_num_threads()
    assert made["workers"] == 1
    assert made["device"]


@pytest.mark.slow
def test_put_in_distributed_training_records_its_workers(local_store: Store, tmp_path: Path) -> None:
    script = (
        "import sys, torch.distributed as dist; from coldtune.store.store import Store\n"
        "rank = int(sys.argv[3])\n"
        "dist.init_process_group('gloo', init_method=f'file://{sys.argv[2]}', rank=rank, world_size=2)\n"
        "if rank == 0: Store(sys.argv[1]).put('kind', 'k', lambda d: None)\n"
        "dist.barrier(); dist.destroy_process_group()\n"
    )
    arguments = [sys.executable, "-c", script, local_store.at.where, str(tmp_path / "meet")]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    workers = [subprocess.Popen([*arguments, str(rank)], env=environment) for rank in range(2)]
    assert [worker.wait(600) for worker in workers] == [0, 0]
    entry = local_store.find("kind", "k")
    assert entry is not None
    assert entry.made["workers"] == 2


def test_record_use_keeps_each_user_once(store: Store) -> None:
    entry, _ = Store(store.at, by="blur-1a2b3c/0").get("train", "key/00000010", write("x"))
    Store(store.at, by="blur-1a2b3c/1").get("train", "key/00000010", write("x"))
    store.record_use(entry, "blur-1a2b3c/1")
    store.record_use("train/key/00000010", "a person: µ")
    store.get("train", "key/00000010", write("x"))
    assert store.users("train", "key/00000010") == ["a person: µ", "blur-1a2b3c/0", "blur-1a2b3c/1"]
    assert store.users("train", "key") == []
    store.remove("train", "key/00000010")
    assert store.users("train", "key/00000010") == []


def test_get_in_read_only_store_records_no_use(local_store: Store) -> None:
    class ReadOnly(LocalFiles):
        def write(self, name: str, data: bytes) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)

    local_store.put("kind", "k", write("x"))
    reading = Store(local_store.root, by="study/0", files=ReadOnly(local_store.root))
    assert reading.get("kind", "k", lambda _: pytest.fail("built again"))[1] is True
    assert local_store.users("kind", "k") == []


def test_put_over_a_folder_of_entries_raises(store: Store) -> None:
    store.put("train", "key/00000010", write("x"))
    with pytest.raises(ValueError, match=f"train/key: cannot be published, because {store.at.shown}/train/key exists"):
        store.put("train", "key", write("x"))
    assert store.find("train", "key/00000010") is not None


def test_put_over_damaged_entry_replaces_it(place: Place) -> None:
    store = place.store()
    store.put("kind", "k", write("x"))
    damage_edit(place)
    with pytest.warns(UserWarning, match="is damaged"):
        again = store.put("kind", "k", write("x"))
    assert (again.path / "a.txt").read_text() == "x"


def test_put_concurrent_writers_all_get_the_first_entry(place: Place) -> None:
    store = place.store()
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda i: store.put("kind", "k", write(str(i))), range(16)))
    texts = {(entry.path / "a.txt").read_text() for entry in entries}
    assert len(texts) == 1
    assert place.being_written() == 0


def test_get_failed_build_leaves_nothing(place: Place) -> None:
    store = place.store()

    def build(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.get("kind", "k", build)
    assert store.find("kind", "k") is None
    assert place.being_written() == 0


def test_put_killed_writer_leaves_no_entry(store: Store) -> None:
    script = (
        "import sys, time; from pathlib import Path; from coldtune.store.store import Store\n"
        "def fill(d):\n"
        "    (d / 'a.txt').write_text('half'); print('writing', flush=True); time.sleep(60)\n"
        "Store(sys.argv[1]).put('kind', 'k', fill)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, store.at.where], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert store.find("kind", "k") is None
    assert store.get("kind", "k", write("x"))[1] is False


def test_remove_twice_leaves_no_entry(store: Store) -> None:
    store.put("kind", "k", write("x"))
    store.remove("kind", "k")
    store.remove("kind", "k")
    assert store.find("kind", "k") is None
