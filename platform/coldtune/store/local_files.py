"""The store's files in a folder, on a local disk or NFS."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
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
    """`StoreFiles` below a directory of a file system whose rename and exclusive creation are atomic (a disk, NFS).

    The root may be a link. Below it, no link is followed, because whoever shares the store could plant a link to a file
    that only this user may write or read.
    """

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
        except OSError as error:
            if error.errno != errno.ELOOP or error.filename != str(self.root / name):
                raise
        return True

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading. A link is not followed, and a FIFO is not waited for."""
        self._check_parents(name)
        path = self.root / name
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                code = errno.EISDIR if stat.S_ISDIR(mode) else errno.ELOOP
                raise OSError(code, "not a regular file" if code == errno.ELOOP else os.strerror(code), str(path))
            return os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise

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
            self._check_parents(f"{folder}/x")
            return sorted(os.listdir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def tree(self, name: str) -> FileStats | None:
        """Return the files below a folder with their size, modification and change times (ns) and inode."""
        top = self.root / name
        try:
            self._check_parents(name)
            found = os.lstat(top)
            return dict(_tree(top, "")) if stat.S_ISDIR(found.st_mode) else {".": _stat(found)}
        except (FileNotFoundError, NotADirectoryError):
            return None  # another process may remove the folder while we read it

    def leftovers(self) -> Iterator[tuple[str, FileStats]]:
        """Yield the folders below `.writing`."""
        for name in self.list(SCRATCH):
            yield f"{SCRATCH}/{name}", self.tree(f"{SCRATCH}/{name}") or {}

    def scratch(self) -> Path:
        """Create a folder below `.writing`, on the store's own file system, so that a rename can publish it."""
        path = self.root / SCRATCH / uuid.uuid4().hex
        self._check_parents(f"{SCRATCH}/x")
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
        def create(path: Path) -> int:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | flag
            try:
                return os.open(path, flags, 0o666)
            except OSError as error:
                if error.errno != errno.ELOOP or flag & os.O_EXCL:
                    raise
                path.unlink()  # someone planted a link here, and only the link goes
                return os.open(path, flags, 0o666)

        with os.fdopen(self._in_parent(name, create), "wb") as file:
            file.write(data)

    def _in_parent(self, name: str, call: Callable[[Path], T]) -> T:
        """Create the parent folder of `name` and return `call(path)`.

        Another process may remove the parent as empty between the two steps, so both are repeated a few times.
        """
        path = self.root / name
        for _ in range(_FOLDER_TRIES):
            self._check_parents(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return call(path)
            except FileNotFoundError:
                if path.parent.is_dir():
                    raise
        return call(path)

    def _check_parents(self, name: str) -> None:
        """Raise OSError if a folder on the way from the root to `name` is a link."""
        path = self.root
        for part in name.split("/")[:-1]:
            path /= part
            if path.is_symlink():
                raise OSError(errno.ELOOP, "is a link, and the store follows none", str(path))


def _tree(folder: Path, prefix: str) -> FileStats:
    stats: FileStats = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                stats |= _tree(folder / entry.name, f"{prefix}{entry.name}/")
            else:  # of a link, the size of the link itself
                stats[prefix + entry.name] = _stat(entry.stat(follow_symlinks=False))
    return stats


def _stat(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _flush_folder(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
