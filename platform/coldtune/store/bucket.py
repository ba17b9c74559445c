"""Objects by name below a prefix of an object store, through pyarrow.fs, with retries."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from coldtune.retrying import pauses

PATIENCE_S = 120.0
_PAUSES_S = (0.5, 10.0)  # between two tries: the first, the longest

# pyarrow.fs raises OSError for every failure, so the kind of a failure is recognised by words of the message.
_DENIED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "HTTP status 403", "PERMISSION_DENIED")
_TRANSIENT = ("NETWORK_CONNECTION", "SLOW_DOWN", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE", "THROTTLING", "REQUEST_TIM",
              "HTTP status 5", "UNAVAILABLE", "DEADLINE_EXCEEDED", "curlCode")  # fmt: skip

T = TypeVar("T")


class TransientError(OSError):
    """The store did not answer, or is busy. A later try may succeed."""


class Bucket:
    """The objects below `root` (`bucket/prefix`) of a pyarrow file system, by their names relative to it.

    The parts of a name are separated by `/`. There are no folders, only common beginnings of names. Every call is
    repeated while the network fails or the store is busy.

    Args:
        patience_s: How long a call is repeated before it raises TransientError. FileNotFoundError and PermissionError
            are raised at once.
    """

    def __init__(self, filesystem: Any, root: str, patience_s: float = PATIENCE_S) -> None:
        self.filesystem, self.root, self.patience_s = filesystem, root.rstrip("/"), patience_s

    def get(self, name: str) -> bytes:
        """Return the content of a small object."""
        return self._retry(lambda: cast("bytes", self.read(name).read()))

    def read(self, name: str) -> Any:
        """Open an object as a binary stream."""
        return self._retry(lambda: self.filesystem.open_input_stream(self._path(name)))

    def has(self, name: str) -> bool:
        """Return True if the object exists."""
        try:
            self.read(name).close()
        except FileNotFoundError:
            return False
        return True

    def put(self, name: str, data: bytes, patience_s: float | None = None) -> None:
        """Write an object, replacing any previous content. Readers see either the old or the new content.

        Args:
            patience_s: Overrides the bucket's own.
        """

        def call() -> None:
            with self.filesystem.open_output_stream(self._path(name)) as out:
                out.write(data)

        self._retry(call, patience_s)

    def upload(self, name: str, path: Path) -> None:
        """Write the content of a file as an object."""

        def call() -> None:
            with path.open("rb") as file, self.filesystem.open_output_stream(self._path(name)) as out:
                shutil.copyfileobj(file, out, 2**20)

        self._retry(call)

    def download(self, name: str, path: Path) -> None:
        """Write the content of an object into a file."""

        def call() -> None:
            with self.filesystem.open_input_stream(self._path(name)) as content, path.open("wb") as file:
                shutil.copyfileobj(content, file, 2**20)

        self._retry(call)

    def copy(self, name: str, to: str) -> None:
        """Copy an object inside the store."""
        self._retry(lambda: self.filesystem.copy_file(self._path(name), self._path(to)))

    def delete(self, name: str) -> None:
        """Remove an object.

        Raises:
            FileNotFoundError: If it does not exist.
        """
        self._retry(lambda: self.filesystem.delete_file(self._path(name)))

    def delete_tree(self, folder: str) -> None:
        """Remove all objects below a folder, in any order."""
        with contextlib.suppress(FileNotFoundError):
            self._retry(lambda: self.filesystem.delete_dir(self._path(folder)))

    def walk(self, folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield every object below a folder.

        Yields:
            The name relative to the folder, and a pair of the size in bytes and the modification time in nanoseconds by
            the store's clock.
        """
        top = self._path(folder)
        for info in self._infos(top, recursive=True):
            if info.is_file:
                yield info.path[len(top) + 1 :], (info.size, info.mtime_ns)

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder."""
        return sorted(info.base_name for info in self._infos(self._path(folder), recursive=False))

    def _infos(self, path: str, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(path, recursive=recursive, allow_not_found=True)
        return list(self._retry(lambda: self.filesystem.get_file_info(selector)))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _retry(self, call: Callable[[], T], patience_s: float | None = None) -> T:
        deadline = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        waits = pauses(*_PAUSES_S, jitter=0.5)
        while True:
            try:
                return call()
            except OSError as error:
                failure = _classify(error)
            if not isinstance(failure, TransientError) or time.monotonic() >= deadline:
                raise failure
            time.sleep(next(waits))


def _classify(error: OSError) -> OSError:
    """Return the error as a PermissionError or TransientError if its message says so, otherwise as it is."""
    text = str(error)
    if isinstance(error, FileNotFoundError | PermissionError):
        return error
    if any(word in text for word in _DENIED):
        return PermissionError(errno.EACCES, text)
    return TransientError(text) if any(word in text for word in _TRANSIENT) else error
