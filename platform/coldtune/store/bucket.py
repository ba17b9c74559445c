"""Objects by name under one prefix of an object store, through pyarrow.fs; outages of a minute are waited out."""

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

# What the stores of pyarrow.fs say in their messages; the exceptions themselves are all OSError.
_DENIED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "HTTP status 403", "PERMISSION_DENIED")
_PASSING = ("NETWORK_CONNECTION", "SLOW_DOWN", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE", "THROTTLING", "REQUEST_TIM",
            "HTTP status 5", "UNAVAILABLE", "DEADLINE_EXCEEDED", "curlCode")  # fmt: skip

T = TypeVar("T")


class PassingError(OSError):
    """The store did not answer, or said that it is busy: another time may do."""


class Bucket:
    """The objects below `root` (`bucket/prefix`) of a pyarrow file system, by their names relative to it.

    A name's parts are separated by `/`; folders are only what names have in common. Every call waits out failures of
    the network and of a busy store for `patience_s`, then raises PassingError. FileNotFoundError and PermissionError
    are what they say.
    """

    def __init__(self, filesystem: Any, root: str, patience_s: float = PATIENCE_S) -> None:
        self.filesystem, self.root, self.patience_s = filesystem, root.rstrip("/"), patience_s

    def get(self, name: str) -> bytes:
        """The content of a small object."""
        return self._patiently(lambda: cast("bytes", self.read(name).read()))

    def read(self, name: str) -> Any:
        """An object as a binary stream."""
        return self._patiently(lambda: self.filesystem.open_input_stream(self._path(name)))

    def has(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            self.read(name).close()
        except FileNotFoundError:
            return False
        return True

    def put(self, name: str, data: bytes, patience_s: float | None = None) -> None:
        """Write an object, over one that is there. Readers see the old one or the new one."""

        def call() -> None:
            with self.filesystem.open_output_stream(self._path(name)) as out:
                out.write(data)

        self._patiently(call, patience_s)

    def upload(self, name: str, path: Path) -> None:
        """Write a file's content as an object."""

        def call() -> None:
            with path.open("rb") as file, self.filesystem.open_output_stream(self._path(name)) as out:
                shutil.copyfileobj(file, out, 2**20)

        self._patiently(call)

    def download(self, name: str, path: Path) -> None:
        """Write an object's content into a file."""

        def call() -> None:
            with self.filesystem.open_input_stream(self._path(name)) as content, path.open("wb") as file:
                shutil.copyfileobj(content, file, 2**20)

        self._patiently(call)

    def copy(self, name: str, to: str) -> None:
        """Copy an object inside the store."""
        self._patiently(lambda: self.filesystem.copy_file(self._path(name), self._path(to)))

    def delete(self, name: str) -> None:
        """Remove an object; FileNotFoundError where there is none."""
        self._patiently(lambda: self.filesystem.delete_file(self._path(name)))

    def delete_tree(self, folder: str) -> None:
        """Remove all objects below a folder, in any order."""
        with contextlib.suppress(FileNotFoundError):
            self._patiently(lambda: self.filesystem.delete_dir(self._path(folder)))

    def walk(self, folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
        """Name (relative to the folder) and mark of every object below a folder: bytes, and the store's time (ns)."""
        top = self._path(folder)
        for info in self._infos(top, recursive=True):
            if info.is_file:
                yield info.path[len(top) + 1 :], (info.size, info.mtime_ns)

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        return sorted(info.base_name for info in self._infos(self._path(folder), recursive=False))

    def _infos(self, path: str, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(path, recursive=recursive, allow_not_found=True)
        return list(self._patiently(lambda: self.filesystem.get_file_info(selector)))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _patiently(self, call: Callable[[], T], patience_s: float | None = None) -> T:
        deadline = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        waits = pauses(*_PAUSES_S, jitter=0.5)
        while True:
            try:
                return call()
            except OSError as error:
                failure = _meant(error)
            if not isinstance(failure, PassingError) or time.monotonic() >= deadline:
                raise failure
            time.sleep(next(waits))


def _meant(error: OSError) -> OSError:
    """The error that a store's message stands for."""
    text = str(error)
    if isinstance(error, FileNotFoundError | PermissionError):
        return error
    if any(word in text for word in _DENIED):
        return PermissionError(errno.EACCES, text)
    return PassingError(text) if any(word in text for word in _PASSING) else error
