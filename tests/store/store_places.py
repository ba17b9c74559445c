"""Places where a store may lie, and hands that meddle with what lies there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from coldtune.store.location import StoreLocation
from coldtune.store.object_files import ObjectFiles
from coldtune.store.store import Store

# For a test whose fixture `place` shall not be both by default.
LOCAL = pytest.mark.parametrize("place", ["local"], indirect=True)
OBJECT_SLOW = pytest.mark.parametrize("place", ["local", pytest.param("object", marks=pytest.mark.slow)], indirect=True)


class Place:
    """A place for a store, and a folder beside it; `write`, `remove` and `read` do what somebody's hand might."""

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
        """Until what is written next has another time than what was written before."""

    def come_to_rest(self) -> None:
        """Until what a process that was killed had asked for is done, or will not be."""

    def names(self, folder: str = "") -> set[str]:
        """All files below a folder, relative to it."""
        top = self.path(folder)
        return {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}

    def torn(self) -> list[str]:
        return Store(self.at).files.list(".torn")

    def being_written(self) -> int:
        """What writers have under way, or left."""
        return len(list(Store(self.at).files.leftovers()))


class Bucket(Place):
    """A place in object storage; an entry's files are those of its attempt."""

    kind = "object"

    @property
    def files(self) -> ObjectFiles:
        files = Store(self.at).files
        assert isinstance(files, ObjectFiles)
        return files

    def _object(self, name: str) -> str:
        """The object of a file of an entry, where there is the entry."""
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
        while before != (before := self.names()):  # the server goes on with a request whose client is gone
            time.sleep(1.0)

    def names(self, folder: str = "") -> set[str]:
        return {name for name, _ in self.files.bucket.walk(folder)}

    def forget_copies(self) -> None:
        for name in self.files.list(""):
            self.files.copies.remove(name)
