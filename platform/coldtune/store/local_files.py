"""The store's files in a folder, on a local disk or NFS."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from coldtune.store.files import FileStats

SCRATCH = ".writing"
"""The folder, below a store's root, of entries that are being written and of files that are being removed."""

_FOLDER_TRIES = 10

T = TypeVar("T")


class LocalFiles:
    """`StoreFiles` below a directory of a file system whose rename and exclusive creation are atomic (a disk, NFS)."""

    parallel = 1

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, name: str) -> bool:
        """Return True if the file exists, readable or not. Opening it makes an NFS client ask the server."""
        try:
            self.open(name).close()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        except PermissionError:
            return True
        return True

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return (self.root / name).open("rb")

    def stream(self, name: str) -> BinaryIO:
        """Open a file for reading. There are no copies, so this is the same as `open`."""
        return self.open(name)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, replacing any previous content."""
        self._write(name, data, os.O_TRUNC)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file with exclusive creation. Return False if it exists."""
        try:
            self._write(name, data, os.O_EXCL)
        except FileExistsError:
            return False
        return True

    def list(self, folder: str) -> list[str]:
        """Return the sorted names in a folder.

        Reading a folder also makes an NFS client forget which names it believes to be missing.
        """
        try:
            return sorted(os.listdir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def tree(self, name: str) -> FileStats | None:
        """Return the files below a folder with their size, modification and change times (ns) and inode."""
        top = self.root / name
        try:
            return dict(_tree(top, "")) if top.is_dir() else {".": _stat(os.stat(top))}
        except (FileNotFoundError, NotADirectoryError):
            return None  # another process may remove the folder while we read it

    def leftovers(self) -> Iterator[tuple[str, FileStats]]:
        """Yield the folders below `.writing`."""
        for name in self.list(SCRATCH):
            yield f"{SCRATCH}/{name}", self.tree(f"{SCRATCH}/{name}") or {}

    def scratch(self) -> Path:
        """Create a folder below `.writing`, on the store's own file system, so that a rename can publish it."""
        path = self.root / SCRATCH / uuid.uuid4().hex
        path.mkdir(parents=True)
        return path

    def publish(self, scratch: Path, name: str) -> bool:
        """Rename `scratch` to `name` and flush the rename to the disk. Return False if `name` exists."""
        target = self.root / name
        try:
            self._in_parent(name, lambda path: os.rename(scratch, path))
        except OSError:
            if not os.path.lexists(target):
                raise
            return False
        _flush_folder(target.parent)
        return True

    def move(self, name: str, to: str) -> bool:
        """Rename a file or folder. Return False if it does not exist."""
        try:
            self._in_parent(to, lambda path: os.rename(self.root / name, path))
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Rename a file or folder into `.writing`, then delete it there.

        A process that is killed between the two leaves garbage in `.writing`, not half an entry.
        """
        doomed = f"{SCRATCH}/{uuid.uuid4().hex}"
        if not self.move(name, doomed):
            return
        path = self.root / doomed
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        # Remove parents that are now empty, but keep the first part of the name (`train`, `sample`, ...).
        for folder in [*Path(name).parents][:-2]:
            with contextlib.suppress(OSError):
                (self.root / folder).rmdir()

    def local_path(self, name: str) -> Path:
        """Return the path itself."""
        return self.root / name

    def discard_copies(self, name: str) -> bool:
        """Return False, because there are no copies."""
        return False

    def where(self, name: str) -> str:
        """Return the path as text."""
        return str(self.root / name)

    def address(self, path: Path) -> str:
        """Return the path as text."""
        return str(path)

    def _write(self, name: str, data: bytes, flag: int) -> None:
        handle = self._in_parent(name, lambda path: os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o666))
        with os.fdopen(handle, "wb") as file:
            file.write(data)

    def _in_parent(self, name: str, call: Callable[[Path], T]) -> T:
        """Create the parent folder of `name` and return `call(path)`.

        Another process may remove the parent as empty between the two steps, so both are repeated a few times.
        """
        path = self.root / name
        for _ in range(_FOLDER_TRIES):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return call(path)
            except FileNotFoundError:
                if path.parent.is_dir():
                    raise
        return call(path)


def _tree(folder: Path, prefix: str) -> FileStats:
    stats: FileStats = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                stats |= _tree(folder / entry.name, f"{prefix}{entry.name}/")
            else:  # of a dangling link, the size of the link itself
                stats[prefix + entry.name] = _stat(entry.stat(follow_symlinks=entry.is_file()))
    return stats


def _stat(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _flush_folder(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
