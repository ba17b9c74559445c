"""Checks that a folder or a file can be written, before any work is done whose result would go there."""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

from coldtune.errors import describe_os_error, file_above
from coldtune.files import naming, write_file

_BLOCK = b"\0" * 4096  # a file system that is full refuses a block of this size
STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/null")


def check_folder(folder: Path, name: str, write: bool = True) -> None:
    """Check that files can be written into a folder, which need not exist yet. The check leaves no file behind.

    Args:
        name: What the user knows the folder by, such as a flag. The message begins with it.
        write: Make the folder and write a file into it. Otherwise only look, which finds most problems.

    Raises:
        ValueError: If the folder cannot be made or written. The message says why, and what to do.
    """
    try:
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            _write_block(folder / f".check.{uuid.uuid4().hex}")
        else:
            _look_at(folder)
    except OSError as error:
        error = type(error)(error.errno, error.strerror, str(folder))
        raise ValueError(f"{name}: {describe_os_error(error)}.") from None
    except ValueError as error:  # a NUL in the name
        raise ValueError(f"{name} {str(folder)!r}: {error}. Name another folder.") from None


def check_output(path: Path, name: str) -> None:
    """Check that a file can be written later. An existing file stays as it is.

    Args:
        name: What the user knows the file by, such as a flag. The message begins with it.

    Raises:
        ValueError: If the file cannot be written. The message says why, and what to do.
    """
    try:
        if str(path) in STREAMS:
            return
        if not path.parent.is_dir():
            raise ValueError(f"{name} {path}: must be a file in an existing folder")
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise ValueError(f"{name} {path}: must be a file, and this is {kind}. Name another file.")
        _write_block(path.with_name(f".{path.name}.{uuid.uuid4().hex}"))
    except OSError as error:
        error = type(error)(error.errno, error.strerror, str(path))
        raise ValueError(f"{name}: {describe_os_error(error)}.") from None


def write_output(path: Path, text: str) -> None:
    """Write a file that `check_output` allowed."""
    if str(path) in STREAMS:
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
    else:
        write_file(path, text)


def _look_at(folder: Path) -> None:
    """Raise the OSError of making a folder and writing into it, as far as that can be known without writing."""
    with suppress(FileNotFoundError, NotADirectoryError):
        folder.lstat()  # fails if a name is too long
    if file_above(folder) is not None:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    disk = os.statvfs(there)
    if not disk.f_blocks and there != folder:  # such as /proc, whose permissions say nothing
        _make_for_a_moment(folder)
    if disk.f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    free = disk.f_bavail if os.geteuid() else disk.f_bfree  # some blocks are only for root
    if (disk.f_blocks and not free) or (disk.f_files and not disk.f_favail):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _make_for_a_moment(folder: Path) -> None:
    """Make a folder with its parents, and remove what was made."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    made = []
    try:
        for path in reversed(missing):
            path.mkdir()
            made.append(path)
    finally:
        for path in reversed(made):
            path.rmdir()


def _write_block(path: Path) -> None:
    """Write a block of a new file to the disk, and remove the file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with naming(path), open(descriptor, "wb") as file:
            file.write(_BLOCK)
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)
