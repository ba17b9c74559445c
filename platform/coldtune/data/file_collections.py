"""Many small files under names, in a folder or in a zip archive that is never extracted."""

from __future__ import annotations

import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

ReadFile = Callable[[str], bytes]
"""Returns the content of the file with a given name. Raises ValueError naming the file if it cannot be read."""


@dataclass(frozen=True)
class FileCollection(ABC):
    """The files below `path`, listed by name.

    A name is relative to `path`, has "/" between its parts on every system, and is unique. `names` is sorted. Hidden
    files are left out, because operating systems put them there: any part of the name begins with "." or is __MACOSX.
    """

    path: Path
    names: tuple[str, ...]

    @abstractmethod
    def open(self) -> AbstractContextManager[ReadFile]:
        """Return a context in which files can be read, by any number of threads."""

    @abstractmethod
    def describe(self, name: str) -> str:
        """Return how an error message calls the file `name`."""


@dataclass(frozen=True)
class FolderFiles(FileCollection):
    """The files of a folder and of the folders inside it."""

    @classmethod
    def find(cls, path: Path, inside: Sequence[str] = ("",)) -> FolderFiles:
        """List all files of `path`, or only those of its subfolders `inside`."""
        names = (name for part in inside for name in _walk(path / part, path))
        return cls(path, tuple(sorted(filter(_visible, names))))

    @contextmanager
    def open(self) -> Iterator[ReadFile]:
        """Open each file separately when it is read."""

        def read(name: str) -> bytes:
            try:
                return (self.path / name).read_bytes()
            except OSError as error:
                raise ValueError(f"{self.describe(name)} cannot be read: {error.strerror or error}") from error

        yield read

    def describe(self, name: str) -> str:
        """Return the file's path."""
        return str(self.path / name)


@dataclass(frozen=True)
class ArchiveFiles(FileCollection):
    """The members of a zip archive."""

    @classmethod
    def find(cls, path: Path) -> ArchiveFiles:
        """List all members of the archive `path`. Raises ValueError if it is damaged."""
        with _open_zip(path) as archive:
            names = {item.filename for item in archive.infolist() if not item.is_dir()}
        return cls(path, tuple(sorted(filter(_visible, names))))

    @contextmanager
    def open(self) -> Iterator[ReadFile]:
        """Open the archive once. Each member is checked against its CRC-32 when it is read."""
        with _open_zip(self.path) as archive:

            def read(name: str) -> bytes:
                try:
                    return archive.read(name)
                except (OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
                    raise ValueError(f"{self.describe(name)} is damaged: {error}") from error
                except (RuntimeError, NotImplementedError) as error:
                    raise ValueError(f"{self.describe(name)} cannot be unpacked: {error}") from error

            yield read

    def describe(self, name: str) -> str:
        """Return the archive's path and the member's name."""
        return f"{self.path}: {name}"


def _visible(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _walk(start: Path, root: Path) -> Iterator[str]:
    """Yield the names, relative to `root`, of all files below `start`. Raises ValueError if a folder is unreadable."""

    def fail(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for folder, _, files in os.walk(start, onerror=fail, followlinks=True):
        relative = Path(folder).relative_to(root).as_posix()
        yield from files if relative == "." else (f"{relative}/{name}" for name in files)


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    with archive:
        yield archive
