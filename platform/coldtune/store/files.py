"""The operations that the store needs of a file system.

`local_files` implements them for a folder, `object_files` for object storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

FileStats = dict[str, tuple[int, ...]]
"""The files below a folder. Maps each relative name to its size in bytes, followed by numbers that change with the
content, such as the modification time in nanoseconds."""


class StoreFiles(Protocol):
    """Files by name, relative to the store's root, with `/` between the parts of a name.

    An entry is published as a whole, and a folder without a manifest is no entry. Entries are always written into and
    read from local folders, because the libraries that save and load tensors need paths.

    Names that begin with a dot belong to the store itself: leases, records of users, damaged entries.
    """

    parallel: int
    """How many calls to make at once: 1 for system calls, more if each call waits for a network."""

    def has(self, name: str) -> bool:
        """Return True if the file exists. The answer never comes from a cache."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            OSError: If `name` is not a file (FileNotFoundError, IsADirectoryError or NotADirectoryError), or cannot
                be read.
        """
        ...

    def stream(self, name: str) -> BinaryIO:
        """Open a file for reading at its original place, even if there is a local copy."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, replacing any previous content."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless it exists. Of several concurrent writers exactly one gets True."""
        ...

    def list(self, folder: str) -> list[str]:
        """Return the sorted names in a folder, empty if there is no folder. They never come from a cache."""
        ...

    def tree(self, name: str) -> FileStats | None:
        """Return the files below a folder, or None if there is nothing. A file is returned under the name `.`."""
        ...

    def leftovers(self) -> Iterator[tuple[str, FileStats]]:
        """Yield files that belong to no entry: those of killed writers, and of writers that are still at work.

        Yields:
            A name that `remove` accepts, and the files below it.
        """
        ...

    def scratch(self) -> Path:
        """Create an empty local folder in which to write an entry before `publish`."""
        ...

    def publish(self, scratch: Path, name: str) -> bool:
        """Make the content of `scratch` appear as `name`, all at once. Return False if `name` exists."""
        ...

    def move(self, name: str, to: str) -> bool:
        """Rename a file or folder. Return False if it does not exist."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with everything below it, so that no reader mistakes a part for the whole."""
        ...

    def local_path(self, name: str) -> Path:
        """Return a local path at which the files below `name` can be read."""
        ...

    def discard_copies(self, name: str) -> bool:
        """Remove local copies of the files below `name`.

        Returns:
            False if there were no copies, so that a second look would find the same.
        """
        ...

    def where(self, name: str) -> str:
        """Return the place of `name` for people: a path, or a URL without credentials."""
        ...

    def address(self, path: Path) -> str:
        """Return the place, as `where` does, of a path that `local_path` returned."""
        ...
