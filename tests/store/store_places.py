"""Places for a store, with ways to read and damage its files from outside."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from coldtune.store.location import StoreLocation
from coldtune.store.object_files import ObjectFiles
from coldtune.store.store import Store

# For tests that need only one of the two places, or the second only with --slow.
LOCAL = pytest.mark.parametrize("place", ["local"], indirect=True)
OBJECT_SLOW = pytest.mark.parametrize("place", ["local", pytest.param("object", marks=pytest.mark.slow)], indirect=True)


class Place:
    """A local place for a store, and a folder for logs. `write`, `remove` and `read` bypass the store."""

    kind = "local"

    def __init__(self, at: StoreLocation, logs: Path) -> None:
        self.at, self.logs = at, logs

    def store(self, **options: Any) -> Store:
        return Store(self.at, **options)

    def path(self, name: str) -> Path:
        return self.at.path / name

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_bytes(data)

    def remove(self, name: str) -> None:
        self.path(name).unlink()

    def next_moment(self) -> None:
        """Wait until the next write gets another modification time than the last."""

    def come_to_rest(self) -> None:
        """Wait until the requests of a killed process have been carried out."""

    def names(self, folder: str = "") -> set[str]:
        """Return the names of all files below a folder, relative to it."""
        top = self.path(folder)
        return {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}

    def torn(self) -> list[str]:
        return Store(self.at).files.list(".torn")

    def being_written(self) -> int:
        """Count the unfinished entries of writers, alive or killed."""
        return len(list(Store(self.at).files.leftovers()))


class Bucket(Place):
    """A place in object storage, in which the files of an entry are those of its visible attempt."""

    kind = "object"

    @property
    def files(self) -> ObjectFiles:
        files = Store(self.at).files
        assert isinstance(files, ObjectFiles)
        return files

    def _object(self, name: str) -> str:
        """Return the object that holds a file of an entry."""
        if name.startswith("."):
            return name
        seen = self.files._visible(name.split("/")[0])
        file = name.partition("/")[2]
        if file in seen:
            return seen[file].name
        folder = max((key for key in seen if file.startswith(key.rpartition("/")[0])), key=len, default="")
        one = seen.get(folder)
        return f"{one.entry}/{one.attempt}/{name.removeprefix(one.entry + '/')}" if one else name

    def read(self, name: str) -> bytes:
        return self.files.bucket.get(self._object(name))

    def write(self, name: str, data: bytes) -> None:
        self.files.bucket.put(self._object(name), data)

    def remove(self, name: str) -> None:
        self.files.bucket.delete(self._object(name))

    def next_moment(self) -> None:
        time.sleep(1.01 - time.time() % 1)  # S3's times are whole seconds

    def come_to_rest(self) -> None:
        before = None
        while before != (before := self.names()):  # a server finishes requests of killed clients
            time.sleep(1.0)

    def names(self, folder: str = "") -> set[str]:
        return {name for name, _ in self.files.bucket.walk(folder)}

    def forget_copies(self) -> None:
        for name in self.files.list(""):
            self.files.copies.remove(name)
