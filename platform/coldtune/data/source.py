"""The interface of a dataset's source, which finds, downloads and reads the published files."""

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
from coldtune.data.regular_files import hash_file
from coldtune.data.resize import Resize, resize


class Part(Protocol):
    """A published part of a dataset, for example its test set. `Raw` is in memory, `Encoded` in image files."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The label of each image, int64 (N,)."""

    def hashes(self) -> list[bytes]:
        """Return a hash of each image. Equal images have equal hashes."""

    def load_resized(
        self, indices: npt.NDArray[np.int64], size: int, mode: Resize, scratch: Path, advance: Advance
    ) -> npt.NDArray[np.uint8]:
        """Return the images at `indices`, resized to uint8 (N, C, size, size).

        Args:
            scratch: A folder for temporary files.
            advance: Called with the number of images that were just done.
        """


@dataclass(frozen=True)
class Raw:
    """A published part of a dataset, as arrays at the published size.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8, self.images.dtype
        assert self.images.ndim == 4, self.images.shape
        assert self.labels.shape == (len(self.images),), self.labels.shape

    def hashes(self) -> list[bytes]:
        """Return the SHA-256 of each image, over its shape and its pixels in C, H, W order."""
        shape = "x".join(map(str, self.images.shape[1:])).encode() + b":"
        return [hashlib.sha256(shape + image.tobytes()).digest() for image in self.images]

    def load_resized(
        self, indices: npt.NDArray[np.int64], size: int, mode: Resize, scratch: Path, advance: Advance
    ) -> npt.NDArray[np.uint8]:
        """Return the images at `indices`, resized in memory."""
        return resize(self.images[indices], size, mode, advance)


class Source(ABC):
    """A dataset that `prepare` can prepare. To add a dataset, subclass this in a file and add a line to the registry.

    The keys of the dictionary that `read` returns decide how the images are split:

    - {"all"}: The images are split 60/20/20.
    - {"all", "validation"} or {"all", "test"}: The named part is kept as published, and "all" is split 80/20.
    - {"train", "test"}: The test set is kept as published, and the validation set is taken out of train.
    - {"train", "validation", "test"}: All three are kept as published.

    Its values are `Raw`, or `Encoded` if the images at their published size would fill the memory.
    """

    name: ClassVar[str]
    channels: ClassVar[int]
    num_classes: ClassVar[int]
    needs: ClassVar[str]
    """The files that `locate` looks for, as an error message names them."""
    version: ClassVar[int] = 1
    """Increase it when the code reads other images or labels out of the same files, so that homes prepare again."""
    reads_everything: ClassVar[bool] = False
    """True if any image below `--data-dir` counts, so that a home inside it would add its own pictures."""

    @abstractmethod
    def locate(self, data_dir: Path) -> list[Path]:
        """Find the published files under `data_dir` by name, without reading them. Return [] if there are none."""

    @abstractmethod
    def download(self, folder: Path, bars: Bars) -> list[Path]:
        """Download the published files that are missing in `folder`, and return all.

        Downloaded files are checked against published checksums.
        """

    @abstractmethod
    def read(self, files: Sequence[Path], bars: Bars) -> Mapping[str, Part]:
        """Read the images and labels of `files`, a list that `locate` or `download` returned."""

    def classes(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Return the names of the classes in the order of their labels, if only the files tell. Otherwise ()."""
        return ()

    def notices(self, files: Sequence[Path]) -> list[str]:
        """Return sentences that a user should read after `files` were prepared, for example about ignored files."""
        return []

    def files(self, data_dir: Path | None, downloads: Path, bars: Bars) -> list[Path]:
        """Return the published files, from `data_dir` if the user named a folder, otherwise downloaded.

        Raises:
            ValueError: If they are not in `data_dir` or cannot be downloaded. The message says which files are needed.
        """
        if data_dir is None:
            try:
                return self.download(downloads, bars)
            except ValueError as error:
                advice = f"pass --data-dir PATH with {self.needs}, or run on a machine with internet access"
                raise ValueError(f"{self.name}: {error}; {advice}") from error
        try:
            if not data_dir.is_dir():
                problem = "is no directory" if data_dir.exists() else "no such directory"
                raise ValueError(f"--data-dir = {str(data_dir)!r}: {problem}")
            files = self.locate(data_dir)
        except OSError as error:
            reason = f"{error.filename or data_dir}: {error.strerror or error}"
            raise ValueError(f"--data-dir = {str(data_dir)!r}: cannot be read ({reason})") from error
        if not files:
            raise ValueError(f"--data-dir = {str(data_dir)!r}: no {self.name} there; it needs {self.needs}")
        return files

    def identity(self, files: Sequence[Path], bars: Bars) -> str:
        """Return the SHA-256 of the source's name and version and of the files' names and contents.

        The path of the files is no part of it, so a moved dataset is not prepared again.
        """
        contents = {path.name: hash_file(path) for path in files}
        return digest({"name": self.name, "version": self.version, "files": contents})
