"""Many small files under names, in a folder or in a zip archive that is never extracted."""

from __future__ import annotations

import lzma
import os
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from coldtune.data.decode import LARGEST_BYTES, is_image
from coldtune.data.regular_files import check_size, open_regular, read_file

ReadFile = Callable[[str], bytes]
"""Returns the content of the file with a given name. Raises ValueError naming the file if it cannot be read, is not a
regular file, or is larger than `LARGEST_BYTES`.
"""


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

    def notice(self) -> str | None:
        """Return a sentence about files that are not listed although a user might expect them, or None."""
        return None

    def notice_of_others(self) -> str | None:
        """Return a sentence about the listed files that are not images, for a reader that leaves them out, or None."""
        others = [name for name in self.names if not is_image(name)]
        if not others:
            return None
        count = len(others) - 1
        more = f", as {'is' if count == 1 else 'are'} {count:,} other file{'s' * (count > 1)}" if count else ""
        return f"{self.describe(others[0])}: not an image, so it is left out{more}"


@dataclass(frozen=True)
class FolderFiles(FileCollection):
    """The files of a folder and of the folders inside it. No file is listed twice because of symbolic links.

    Attributes:
        left_out: The links that are left out, because they lead to what is listed already.
    """

    left_out: tuple[Path, ...] = ()

    @classmethod
    def find(cls, path: Path, inside: Sequence[str] = ("",), once: bool = False) -> FolderFiles:
        """List all files of `path`, or only those of its subfolders `inside`.

        Symbolic links are followed, unless they lead to a file or folder that is listed already, or to a folder above
        themselves.

        Args:
            once: List a file once too if it has several names (hard links).

        Raises:
            ValueError: If a folder cannot be listed.
        """
        walk = _Walk(path, once)
        for part in inside:
            walk.add_folder(path / part)
        walk.follow_links()
        return cls(path, tuple(sorted(walk.names)), tuple(walk.left_out))

    @contextmanager
    def open(self) -> Iterator[ReadFile]:
        """Open each file separately when it is read."""
        yield lambda name: read_file(self.path / name, LARGEST_BYTES)

    def describe(self, name: str) -> str:
        """Return the file's path."""
        return str(self.path / name)

    def notice(self) -> str | None:
        """Return a sentence about the links that are left out, or None."""
        if not self.left_out:
            return None
        first, *more = self.left_out
        others = f" and {len(more):,} other links" if more else ""
        return f"{first}{others}: left out, because they lead to files or folders that are read already"


@dataclass(frozen=True)
class ArchiveFiles(FileCollection):
    """The members of a zip archive."""

    @classmethod
    def find(cls, path: Path) -> ArchiveFiles:
        """List all members of the archive `path`.

        Raises:
            ValueError: If it is damaged, contains a name twice, or its members overlap, as those of a zip bomb do.
        """
        with _open_zip(path) as archive:
            members = [item for item in archive.infolist() if not item.is_dir()]
        names = [item.filename for item in members if _visible(item.filename)]
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ValueError(f"{path}: {twice[0]} is in the archive {names.count(twice[0])} times, but once is allowed")
        if sum(item.compress_size for item in members) > path.stat().st_size:
            raise ValueError(f"{path} is damaged: its members have more bytes than the archive")
        return cls(path, tuple(sorted(names)))

    @contextmanager
    def open(self) -> Iterator[ReadFile]:
        """Open the archive once. Each member is checked against its CRC-32 when it is read."""
        with _open_zip(self.path) as archive:

            def read(name: str) -> bytes:
                item = archive.getinfo(name)
                if stat.S_ISLNK(item.external_attr >> 16):
                    raise ValueError(f"{self.describe(name)} is a symbolic link, but a regular file is needed")
                check_size(self.describe(name), item.file_size, LARGEST_BYTES)
                try:
                    return archive.read(item)
                except (OSError, EOFError, KeyError, lzma.LZMAError, zlib.error, zipfile.BadZipFile) as error:
                    raise ValueError(f"{self.describe(name)} is damaged: {error}") from error
                except (RuntimeError, NotImplementedError) as error:
                    raise ValueError(f"{self.describe(name)} cannot be unpacked: {error}") from error

            yield read

    def describe(self, name: str) -> str:
        """Return the archive's path and the member's name."""
        return f"{self.path}: {name}"


def _visible(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


class _Walk:
    """A walk through a folder that visits everything once, whatever links there are."""

    def __init__(self, root: Path, once: bool) -> None:
        self.names: list[str] = []
        self._root, self._once = root, once
        self._seen: set[tuple[int, int]] = set()
        self._links: list[Path] = []
        self.left_out: list[Path] = []

    def add_folder(self, start: Path) -> None:
        """Add all files below `start`, and keep its symbolic links for later."""
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            with _listing(folder):
                if not self._is_new(folder):
                    continue
                for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                    if not _visible(entry.name):
                        continue
                    if entry.is_symlink():
                        self._links.append(Path(entry.path))
                    elif entry.is_dir():
                        waiting.append(Path(entry.path))
                    elif self._is_new(Path(entry.path)) or not self._once:
                        self._add(Path(entry.path))
                    else:
                        self.left_out.append(Path(entry.path))

    def follow_links(self) -> None:
        """Add what the symbolic links lead to, after everything that is there without a link."""
        while self._links:
            links, self._links = sorted(self._links), []
            for link in links:
                if not os.path.exists(link):
                    self._add(link)  # reading it tells what is wrong with the link
                elif os.path.isdir(link):
                    above = {_identity(parent) for parent in (link.parent.resolve(), *link.parent.resolve().parents)}
                    if _identity(link) in self._seen or _identity(link) in above:
                        self.left_out.append(link)
                    else:
                        self.add_folder(link)
                elif self._is_new(link):
                    self._add(link)
                else:
                    self.left_out.append(link)

    def _add(self, path: Path) -> None:
        self.names.append(path.relative_to(self._root).as_posix())

    def _is_new(self, path: Path) -> bool:
        identity = _identity(path)
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


@contextmanager
def _listing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{error.filename or folder} cannot be listed: {error.strerror or error}") from error


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with open_regular(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        with archive:
            yield archive
