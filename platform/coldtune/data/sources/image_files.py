"""The base class of datasets of photographs, which have a file per image, no download, and are decoded late."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from coldtune.config import digest
from coldtune.data.decode import SUFFIXES, is_image
from coldtune.data.file_collections import ArchiveFiles, FileCollection, FolderFiles, ReadFile
from coldtune.data.progress import Bars
from coldtune.data.regular_files import hash_file
from coldtune.data.source import Source
from coldtune.data.threads import run_in_threads


class ImageFiles(Source):
    """A dataset whose images are files in a folder or in a zip archive.

    The folder or archive is the first path in the list that `locate` returns. Other files may follow it.

    Images are decoded as RGB (see `decode`). Grey images are repeated into three channels, and palettes are looked up.
    CMYK, 16 bits, transparency, animations and files that are not images are refused. Each image is cropped to the
    largest square around its centre and resized.
    """

    channels = 3
    published: ClassVar[str]
    """How users get the files, as an error message says it.

    There is no download, because no stable address serves the files without a form.
    """

    def download(self, folder: Path, bars: Bars) -> list[Path]:
        """Raise ValueError, because users must download the files themselves."""
        raise ValueError(
            f"there is no automatic download: {self.published}, then pass --data-dir PATH with {self.needs}"
        )

    def files(self, data_dir: Path | None, downloads: Path, bars: Bars) -> list[Path]:
        """Return the files under `data_dir`. Without it, raise ValueError saying how to get them."""
        if data_dir is not None:
            return super().files(data_dir, downloads, bars)
        try:
            return self.download(downloads, bars)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def identity(self, files: Sequence[Path], bars: Bars) -> str:
        """Return the SHA-256 of the names and contents of all files, which are all read.

        The name of an image is relative to the folder or archive of images.
        """
        sums: dict[str, str] = {}
        for path in files:
            if path.is_dir():
                sums |= _hash_all(self.images(path), bars)
            else:
                sums[path.name] = hash_file(path)
        return digest({"name": self.name, "version": self.version, "files": sums})

    def notices(self, files: Sequence[Path]) -> list[str]:
        """Return a sentence about links that are left out, if there are such links."""
        return list(filter(None, [find_files(files[0]).notice()]))

    def images(self, path: Path) -> FileCollection:
        """List the images in the folder or archive `path`. Raises ValueError if a file's name is not an image's."""
        files = self.list_files(path)
        for name in files.names:
            if not is_image(name):
                raise ValueError(f"{files.describe(name)} is not an image ({', '.join(SUFFIXES)}): move it elsewhere")
        if not files.names:
            raise ValueError(f"{path} contains no images")
        return files

    @abstractmethod
    def list_files(self, path: Path) -> FileCollection:
        """List the files in the folder or archive `path` that belong to the dataset."""


def find_files(path: Path, inside: Sequence[str] = ("",)) -> FileCollection:
    """List all files of the archive `path`, or of the folder `path`, there only those in its subfolders `inside`."""
    return FolderFiles.find(path, inside) if path.is_dir() else ArchiveFiles.find(path)


def _hash_all(files: FileCollection, bars: Bars) -> dict[str, str]:
    names, sums = files.names, dict.fromkeys(files.names, "")

    def work(i: int, read: ReadFile) -> None:
        sums[names[i]] = hashlib.sha256(read(names[i])).hexdigest()

    with files.open() as read:
        run_in_threads(len(names), lambda i: work(i, read), bars.start("check", len(names), "files"))
    return sums
