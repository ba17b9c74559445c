"""Many small files under names, in a folder or inside a zip archive that is never extracted."""

from __future__ import annotations

import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

Read = Callable[[str], bytes]
"""From a name to the contents of its file; ValueError naming the file where they cannot be had."""


@dataclass(frozen=True)
class Files(ABC):
    """Files of `path` by name: relative, with "/" between its parts on every system, sorted.

    Hidden ones are left out (a part of the name begins with "." or is __MACOSX): they are some system's own.
    """

    path: Path
    names: tuple[str, ...]

    @abstractmethod
    def opened(self) -> AbstractContextManager[Read]:
        """Reads files, in any number of threads, while the context lasts."""

    @abstractmethod
    def where(self, name: str) -> str:
        """How an error message calls the file `name`."""


@dataclass(frozen=True)
class Folder(Files):
    """Files of a folder and of those inside it."""

    @classmethod
    def of(cls, path: Path, inside: Sequence[str] = ("",)) -> Folder:
        """All files of `path`, or of its folders `inside` alone."""
        names = (name for part in inside for name in _walk(path / part, path))
        return cls(path, tuple(sorted(filter(_visible, names))))

    @contextmanager
    def opened(self) -> Iterator[Read]:
        """Every file is opened for itself."""

        def read(name: str) -> bytes:
            try:
                return (self.path / name).read_bytes()
            except OSError as error:
                raise ValueError(f"{self.where(name)} cannot be read: {error.strerror or error}") from error

        yield read

    def where(self, name: str) -> str:
        """The file's path."""
        return str(self.path / name)


@dataclass(frozen=True)
class Archive(Files):
    """Members of a zip archive."""

    @classmethod
    def of(cls, path: Path) -> Archive:
        """All members of the archive `path`. Raises ValueError where it is damaged."""
        with _zip(path) as archive:
            names = {item.filename for item in archive.infolist() if not item.is_dir()}
        return cls(path, tuple(sorted(filter(_visible, names))))

    @contextmanager
    def opened(self) -> Iterator[Read]:
        """The archive is opened once; each member is checked against its CRC-32."""
        with _zip(self.path) as archive:

            def read(name: str) -> bytes:
                try:
                    return archive.read(name)
                except (OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
                    raise ValueError(f"{self.where(name)} is damaged: {error}") from error
                except (RuntimeError, NotImplementedError) as error:
                    raise ValueError(f"{self.where(name)} cannot be unpacked: {error}") from error

            yield read

    def where(self, name: str) -> str:
        """The archive's path and the member's name."""
        return f"{self.path}: {name}"


def _visible(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _walk(start: Path, root: Path) -> Iterator[str]:
    """Names relative to `root` of all files below `start`. ValueError where a folder cannot be listed."""

    def fail(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for folder, _, files in os.walk(start, onerror=fail, followlinks=True):
        relative = Path(folder).relative_to(root).as_posix()
        yield from files if relative == "." else (f"{relative}/{name}" for name in files)


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    with archive:
        yield archive
