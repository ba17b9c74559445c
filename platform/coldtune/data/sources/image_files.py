"""What datasets of photographs share: one image file each, no download, decoding as late as possible."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from coldtune.config import digest
from coldtune.data.decode import SUFFIXES, is_image
from coldtune.data.files import Archive, Files, Folder, Read
from coldtune.data.progress import Bars
from coldtune.data.source import Source
from coldtune.data.threads import in_threads


class ImageFiles(Source):
    """Images in a folder or a zip archive, which comes first in the list that `locate` returns; others may follow.

    RGB: grey images are repeated into three channels, palettes looked up; CMYK, 16 bits, transparency and animations
    are refused, as is whatever is not an image but lies among them (see `decode`). Each image is cropped to the
    largest square around its centre and resized.
    """

    channels = 3
    published: ClassVar[str]
    """Where users get the files: there is no download, because no stable address serves them without a form."""

    def download(self, folder: Path, bars: Bars) -> list[Path]:
        """Raises ValueError: users fetch the files themselves."""
        raise ValueError(
            f"there is no automatic download: {self.published}, then give --data-dir PATH with {self.needs}"
        )

    def files(self, data_dir: Path | None, downloads: Path, bars: Bars) -> list[Path]:
        """The files under `data_dir`; ValueError saying where to get them where no directory is named."""
        if data_dir is not None:
            return super().files(data_dir, downloads, bars)
        try:
            return self.download(downloads, bars)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def identity(self, files: Sequence[Path], bars: Bars) -> str:
        """SHA-256 of names (inside the folder of images) and contents of all files; reads them all."""
        sums: dict[str, str] = {}
        for path in files:
            if path.is_dir():
                sums |= _sums(self.images(path), bars)
            else:
                sums[path.name] = _sum(path)
        return digest({"name": self.name, "version": self.version, "files": sums})

    def images(self, path: Path) -> Files:
        """The files in the folder or archive `path`. Raises ValueError where one is not an image by its name."""
        files = self.listed(path)
        for name in files.names:
            if not is_image(name):
                raise ValueError(f"{files.where(name)} is not an image ({', '.join(SUFFIXES)}): move it elsewhere")
        if not files.names:
            raise ValueError(f"{path} holds no images")
        return files

    @abstractmethod
    def listed(self, path: Path) -> Files:
        """What of the folder or archive `path` belongs to the dataset."""


def open_files(path: Path, inside: Sequence[str] = ("",)) -> Files:
    """All files of the archive `path`, or of the folder `path` (of its folders `inside` alone)."""
    return Folder.of(path, inside) if path.is_dir() else Archive.of(path)


def _sums(files: Files, bars: Bars) -> dict[str, str]:
    names, sums = files.names, dict.fromkeys(files.names, "")

    def work(i: int, read: Read) -> None:
        sums[names[i]] = hashlib.sha256(read(names[i])).hexdigest()

    with files.opened() as read:
        in_threads(len(names), lambda i: work(i, read), bars.start("check", len(names), "files"))
    return sums


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
