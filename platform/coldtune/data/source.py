"""What a dataset's source is: where its published files lie, and how they are read."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from coldtune.config import digest
from coldtune.data.progress import Advance, Bars
from coldtune.data.resize import Resize, resize


class Part(Protocol):
    """A published part of a dataset: `Raw` in memory, `Encoded` as files."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """int64 (N,)."""

    def hashes(self) -> list[bytes]:
        """What tells an image from all others, for each of them; equal for equal images."""

    def at(
        self, indices: npt.NDArray[np.int64], size: int, mode: Resize, scratch: Path, advance: Advance
    ) -> npt.NDArray[np.uint8]:
        """The images at `indices`, resized: uint8 (N, C, size, size). Temporary files may lie in `scratch`."""


@dataclass(frozen=True)
class Raw:
    """Images and labels as published: `images` uint8 (N, C, H, W), `labels` int64 (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8, self.images.dtype
        assert self.images.ndim == 4, self.images.shape
        assert self.labels.shape == (len(self.images),), self.labels.shape

    def hashes(self) -> list[bytes]:
        """SHA-256 of each image, over its shape and its pixels in C, H, W order."""
        shape = "x".join(map(str, self.images.shape[1:])).encode() + b":"
        return [hashlib.sha256(shape + image.tobytes()).digest() for image in self.images]

    def at(
        self, indices: npt.NDArray[np.int64], size: int, mode: Resize, scratch: Path, advance: Advance
    ) -> npt.NDArray[np.uint8]:
        """The images at `indices`, resized, in memory."""
        return resize(self.images[indices], size, mode, advance)


class Source(ABC):
    """A dataset that `prepare` can prepare. Subclass it in one file and add one line to the registry.

    `read` returns {"all": part}, which is then split 60/20/20; {"train": part, "test": part}, whose test set is kept as
    published and whose validation set is held out of train; or {"train": part, "validation": part, "test": part}, all
    kept as published. A part is `Raw`, or `Encoded` where the images at their published size would fill the memory.
    """

    name: ClassVar[str]
    channels: ClassVar[int]
    num_classes: ClassVar[int]
    needs: ClassVar[str]
    """The files that `locate` looks for, as an error message names them."""
    version: ClassVar[int] = 1
    """Part of the prepared folder's identity: raise it when the same files are to give other images or labels."""

    @abstractmethod
    def locate(self, data_dir: Path) -> list[Path]:
        """The published files under `data_dir`; empty where they are not there. Reads no contents."""

    @abstractmethod
    def download(self, folder: Path, bars: Bars) -> list[Path]:
        """The published files in `folder`, those that are missing fetched and checked against published checksums."""

    @abstractmethod
    def read(self, files: Sequence[Path], bars: Bars) -> Mapping[str, Part]:
        """Images and labels of `files`, a list that `locate` or `download` returned."""

    def files(self, data_dir: Path | None, downloads: Path, bars: Bars) -> list[Path]:
        """The published files: those of `data_dir` where the user named one, the download otherwise."""
        if data_dir is None:
            try:
                return self.download(downloads, bars)
            except ValueError as error:
                help_ = f"give --data-dir PATH with {self.needs}, or run where there is internet"
                raise ValueError(f"{self.name}: {error}; {help_}") from error
        if not data_dir.is_dir():
            raise ValueError(f"--data-dir = {str(data_dir)!r}: no such directory")
        found = self.locate(data_dir)
        if not found:
            raise ValueError(f"--data-dir = {str(data_dir)!r}: no {self.name} there; it needs {self.needs}")
        return found

    def identity(self, files: Sequence[Path], bars: Bars) -> str:
        """SHA-256 of what is going to be read: the reader and the contents of the files, never where they lie."""
        contents = {path.name: _sha256(path) for path in files}
        return digest({"name": self.name, "version": self.version, "files": contents})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
