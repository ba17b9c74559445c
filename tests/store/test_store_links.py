"""A store that others may write to: links in it lead nowhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from coldtune.store.local_files import LocalFiles
from coldtune.store.store import Store


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside the store that nobody may touch."""
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


def write(folder: Path) -> None:
    (folder / "result.txt").write_text("result")


def test_store_link_among_users_never_changes_its_target(tmp_path: Path, victim: Path) -> None:
    store = Store(tmp_path / "store", by="study/0")
    entry = store.put("sample", "k", lambda folder: write(folder))
    folder = tmp_path / "store" / ".users" / "sample+k"
    folder.mkdir(parents=True)
    (folder / "study%2F0").symlink_to(victim)
    store.record_use(entry)
    assert victim.read_text() == "precious"
    assert store.users("sample", "k") == ["study/0"]
    assert not (folder / "study%2F0").is_symlink()


def test_store_link_as_a_folder_is_not_entered(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("precious")
    root = tmp_path / "store"
    root.mkdir()
    (root / "sample").symlink_to(outside)
    files = LocalFiles(root)
    for call in (
        lambda: files.write("sample/x", b""),
        lambda: files.create("sample/x", b""),
        lambda: files.open("sample/keep"),
        lambda: files.list("sample"),
        lambda: files.publish(files.scratch(), "sample/k"),
    ):
        with pytest.raises(OSError, match="is a link"):
            call()
    files.remove("sample")
    assert [path.name for path in outside.iterdir()] == ["keep"]


@pytest.mark.parametrize("kind", ["file", "entry"])
def test_store_entry_with_a_link_is_damaged_and_rebuilt(tmp_path: Path, kind: str) -> None:
    store = Store(tmp_path / "store")
    entry = store.put("sample", "k", lambda folder: write(folder))
    other = tmp_path / "other"
    if kind == "file":  # a link to equal content, which its owner may change later
        (entry.path / "result.txt").rename(other)
        (entry.path / "result.txt").symlink_to(other)
    else:
        entry.path.rename(other)
        entry.path.symlink_to(other)
    with pytest.warns(UserWarning, match="is damaged"):
        again, found = store.get("sample", "k", lambda folder: write(folder))
    assert not found
    assert (again.path / "result.txt").read_text() == "result"
    assert not again.path.is_symlink()
    assert other.exists()


def test_store_fifo_as_a_manifest_is_damaged_and_not_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    entry = store.put("sample", "k", lambda folder: write(folder))
    (entry.path / "manifest.json").unlink()
    os.mkfifo(entry.path / "manifest.json")
    with pytest.warns(UserWarning, match="is damaged"):
        assert store.find("sample", "k") is None


def test_store_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = Store(tmp_path / "store")
    store.put("sample", "k", lambda folder: write(folder))
    assert store.find("sample", "k") is not None


def test_store_present_address_follows_a_moved_and_a_copied_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "old" / "store")
    store.put("sample", "k", lambda folder: write(folder))
    store.put("train", "k/00000040", lambda folder: write(folder))
    recorded = [store.files.where("sample/k"), store.files.where("train/k/00000040")]
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    copy = Store(tmp_path / "new" / "store")
    assert [copy.present_address(address) for address in recorded] == [
        str(tmp_path / "new" / "store" / "sample" / "k"),
        str(tmp_path / "new" / "store" / "train" / "k" / "00000040"),
    ]
    assert [store.present_address(address) for address in recorded] == recorded
    assert copy.present_address("/elsewhere/sample/unknown") == "/elsewhere/sample/unknown"
