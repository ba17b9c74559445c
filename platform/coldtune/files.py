"""File locks and atomic writes: how coldtune shares files between processes, threads and nodes.

`lock_file` and `lock_open_file` take the same lock, the kernel's exclusive `flock`:

- The kernel releases it when the file is closed, and so also when the holder dies, whatever kills it.
- It excludes other processes and other threads of this process. It is not reentrant, so a thread that takes it twice
  waits for itself.
- It is advisory. It excludes only those that take it too.
- On NFS, Linux turns it into a lock at the server, so it also excludes processes on other nodes. If a node dies, the
  server keeps the node's locks until its lease runs out (NFSv4, about 90 s) or until the node is back (NFSv3). If NFS
  is mounted with `nolock` or `local_lock=flock`, the lock does not exclude processes on other nodes.
- Some file systems have no locks at all (some Lustre and FUSE mounts). Taking the lock then raises OSError. There is no
  fallback to a lock file that counts as locked while it exists, because a killed holder would leave it behind.

`write_file` and `open_replacement` replace a file atomically. A reader sees the old content or all of the new content.
"""

from __future__ import annotations

import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)

# Most locks are free again after milliseconds. The pause grows for the others, because on NFS every attempt is a
# request to the server.
_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05


@contextmanager
def lock_file(path: Path, timeout: float | None = None, *, unsupported_ok: bool = False) -> Iterator[None]:
    """Hold the lock of a lock file while the block runs.

    The lock file is created if it is missing, stays empty, and is not deleted afterwards. Never delete it while it may
    be held, because a second process could then create and lock a new file.

    Args:
        path: A file that exists only to be locked. Its folder must exist. To lock a file that has content, open it and
            use `lock_open_file`.
        timeout: Seconds to wait for another holder. None waits without a limit, 0 tries once.
        unsupported_ok: Run the block without the lock if the file system has no locks.

    Raises:
        TimeoutError: If the lock is still held elsewhere after `timeout` seconds.
        OSError: If the lock file cannot be opened, or if the file system has no locks and `unsupported_ok` is False.
    """
    with path.open("ab") as file:  # NFS locks only files that are open for writing
        try:
            locked = lock_open_file(file.fileno(), timeout)
        except OSError:
            if not unsupported_ok:
                raise
            locked = True
        if not locked:
            raise TimeoutError(f"{path}: another process still holds this lock after {timeout:g} s")
        yield


def lock_open_file(descriptor: int, timeout: float | None = None) -> bool:
    """Lock an open file until it is closed. The file's content is neither read nor changed.

    Use it for a file that is itself read and written under the lock, for example an append-only journal. A separate
    lock file would double the number of files, and would not exclude other programs that lock the journal itself.

    Args:
        descriptor: Of a file that is open for writing. The caller closes it, which releases the lock.
        timeout: Seconds to wait for another holder. None waits without a limit, 0 tries once.

    Returns:
        True if the lock was taken, False if it is still held elsewhere after `timeout` seconds.

    Raises:
        OSError: If the file system has no locks.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE_S
    while not lock_descriptor(descriptor, blocking=False):
        left = pause if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    return True


class IrregularFileError(OSError):
    """A path is not a regular file.

    Attributes:
        kind: What the path is instead, for example "a named pipe".
    """

    def __init__(self, path: Path, mode: int) -> None:
        self.kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "a special file")
        super().__init__(f"{path} is {self.kind}, but a regular file is needed")


def open_for_reading(path: Path) -> BinaryIO:
    """Open a regular file for reading. A pipe or a device could otherwise be read for ever.

    Raises:
        IrregularFileError: If the path is no regular file.
        OSError: If the file is missing or unreadable.
    """
    _check_regular(path, os.stat(path).st_mode)  # before it is opened, because opening a device may do something
    # Without O_NONBLOCK, opening a pipe that replaced the file in between would wait for a writer.
    file = open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")  # noqa: SIM115  (the caller closes it)
    try:
        _check_regular(path, os.fstat(file.fileno()).st_mode)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise IrregularFileError(path, mode)


def write_file(path: Path, content: str | bytes, *, durable: bool = False, private: bool = False) -> None:
    """Write a file atomically. Even if the writer is killed, a reader sees the old content or all of the new content.

    If several writers replace the file at the same time, the last writer wins with its whole content.

    Args:
        content: The whole new content. Text is encoded as UTF-8.
        durable: Force the content to the disk first. Otherwise a power cut can leave an empty file.
        private: Only the owner may read the file (mode 0600).

    Raises:
        OSError: If the file cannot be written. The old file is then still there.
    """
    with open_replacement(path, durable=durable, private=private) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_replacement(path: Path, *, durable: bool = False, private: bool = False) -> Iterator[BinaryIO]:
    """Open a scratch file that replaces `path` when the block ends.

    If the block raises, the scratch file is removed and `path` stays as it was. The scratch file lies beside `path`,
    because a rename is atomic only within a file system. A killed writer leaves it behind as `.NAME.<32 hex digits>`.

    Args:
        durable: Force the content to the disk before the rename.
        private: Only the owner may read the file (mode 0600).
    """
    # A process id would not make the name unique, because nodes that share a file system use the same ids.
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None  # nobody knows the name of the scratch file
    try:
        with naming(path), open(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink()
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError of the body that names no path, such as a write to a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
