"""All that the store asks of a file system, and the one that a path names (a local disk or NFS).

`store_object` has the other one, for object storage.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

WRITING = ".writing"

Marks = dict[str, tuple[int, ...]]
"""Of the files below a name, by relative name: size in bytes first, then whatever else changes with the content."""


class Files(Protocol):
    """Files by name, relative to the store's root, with `/` between the parts.

    An entry is published as a whole, and an entry without a manifest is none. Work is always written into a local
    folder, and read from one (`local`), because the libraries that read and write tensors want paths.
    """

    parallel: int
    """How many calls at once make sense: 1 where each is a system call, more where each waits for a network."""

    def has(self, name: str) -> bool:
        """Whether there is such a file. Never from a cache."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file for reading; FileNotFoundError, IsADirectoryError or NotADirectoryError where it is none."""
        ...

    def stream(self, name: str) -> BinaryIO:
        """As `open`, but from where the file lies, never from a copy."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, over one that is there."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file only where there is none: exactly one of several writers gets True."""
        ...

    def list(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none where there is no folder. Never from a cache."""
        ...

    def tree(self, name: str) -> Marks | None:
        """The files below a folder (of a file: itself, as `.`); None where there is nothing."""
        ...

    def leftovers(self) -> Iterator[tuple[str, Marks]]:
        """What writers left that were killed, or may still be at it: a name for `remove`, and its files."""
        ...

    def scratch(self) -> Path:
        """A fresh local folder to write into, for `publish`."""
        ...

    def publish(self, scratch: Path, name: str) -> bool:
        """Make what was written into `scratch` appear as `name`, all or nothing; False where something is there."""
        ...

    def move(self, name: str, to: str) -> bool:
        """Rename; False where there is nothing to rename."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is below it, so that no reader takes the rest for the whole."""
        ...

    def local(self, name: str) -> Path:
        """A local path at which the files below `name` can be read."""
        ...

    def forget(self, name: str) -> bool:
        """Forget local copies of what is below `name`; False where there are none, and another look is the same."""
        ...

    def where(self, name: str) -> str:
        """Where `name` lies, for people: a path, or a URL without credentials."""
        ...

    def address(self, path: Path) -> str:
        """As `where`, of what `local` gave as `path`."""
        ...


class LocalFiles:
    """Files under a directory, on any file system whose rename and exclusive creation are atomic (a disk, NFS)."""

    parallel = 1

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, name: str) -> bool:
        """Whether it can be opened, which an NFS client asks the server; one that may not be read is there."""
        try:
            self.open(name).close()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        except PermissionError:
            return True
        return True

    def open(self, name: str) -> BinaryIO:
        """A file for reading."""
        return (self.root / name).open("rb")

    def stream(self, name: str) -> BinaryIO:
        """A file for reading."""
        return self.open(name)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""
        self._write(name, data, os.O_TRUNC)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file, created exclusively."""
        try:
            self._write(name, data, os.O_EXCL)
        except FileExistsError:
            return False
        return True

    def list(self, folder: str) -> list[str]:
        """The names in a folder. Reading it also makes an NFS client forget which names it believes missing."""
        try:
            return sorted(os.listdir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def tree(self, name: str) -> Marks | None:
        """Size, times of change (ns) and inode of the files below a folder."""
        top = self.root / name
        try:
            return dict(_marks(top, "")) if top.is_dir() else {".": _mark(os.stat(top))}
        except (FileNotFoundError, NotADirectoryError):
            return None  # another process may remove it while we read

    def leftovers(self) -> Iterator[tuple[str, Marks]]:
        """The folders under `.writing`."""
        for name in self.list(WRITING):
            yield f"{WRITING}/{name}", self.tree(f"{WRITING}/{name}") or {}

    def scratch(self) -> Path:
        """A folder under `.writing`, so that a rename can publish it."""
        path = self.root / WRITING / uuid.uuid4().hex
        path.mkdir(parents=True)
        return path

    def publish(self, scratch: Path, name: str) -> bool:
        """One rename, flushed to the disk."""
        target = self.root / name
        try:
            self._in_folder(name, lambda path: os.rename(scratch, path))
        except OSError:
            if not os.path.lexists(target):
                raise
            return False
        _sync(target.parent)
        return True

    def move(self, name: str, to: str) -> bool:
        """Rename a file or folder."""
        try:
            self._in_folder(to, lambda path: os.rename(self.root / name, path))
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Rename, then remove: whoever is killed in between leaves rubbish in `.writing`, not half an entry."""
        rubbish = f"{WRITING}/{uuid.uuid4().hex}"
        if not self.move(name, rubbish):
            return
        path = self.root / rubbish
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        # A folder that is now empty; the first part of a name stays.
        for folder in [*Path(name).parents][:-2]:
            with contextlib.suppress(OSError):
                (self.root / folder).rmdir()

    def local(self, name: str) -> Path:
        """The path itself."""
        return self.root / name

    def forget(self, name: str) -> bool:
        """There are no copies."""
        return False

    def where(self, name: str) -> str:
        """The path."""
        return str(self.root / name)

    def address(self, path: Path) -> str:
        """The path itself."""
        return str(path)

    def _write(self, name: str, data: bytes, flag: int) -> None:
        handle = self._in_folder(name, lambda path: os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o666))
        with os.fdopen(handle, "wb") as file:
            file.write(data)

    def _in_folder(self, name: str, call: Callable[[Path], Any]) -> Any:
        """`call(path)` in a folder that is there, though another process may be removing it as empty."""
        path = self.root / name
        for _ in range(10):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return call(path)
            except FileNotFoundError:
                if path.parent.is_dir():
                    raise
        return call(path)


def _marks(folder: Path, prefix: str) -> Marks:
    marks: Marks = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                marks |= _marks(folder / entry.name, f"{prefix}{entry.name}/")
            else:
                marks[prefix + entry.name] = _mark(entry.stat(follow_symlinks=entry.is_file()))
    return marks


def _mark(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _sync(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
