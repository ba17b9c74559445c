"""Images that come as one encoded file each, more of them than fit into memory: decoded where they are needed."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldtune.data.decode import decode
from coldtune.data.files import Files
from coldtune.data.progress import Advance, Bars
from coldtune.data.resize import Resize, planes, resized
from coldtune.data.threads import in_threads


@dataclass(frozen=True)
class Encoded:
    """The image files `names` of `files`; `labels` int64 (N,). A part of what a source reads, as `Raw` is one.

    An image is what the largest square around the centre of its file shows (rounded towards the upper left), in
    `channels` channels; what decoding converts and refuses is said in `decode`.
    """

    files: Files
    names: Sequence[str]
    labels: npt.NDArray[np.int64]
    channels: int
    bars: Bars

    def __post_init__(self) -> None:
        assert self.labels.shape == (len(self.names),), self.labels.shape

    def hashes(self) -> list[bytes]:
        """SHA-256 of each file: unlike that of its pixels, equal whichever decoder a machine has."""
        found = [b""] * len(self.names)
        advance = self.bars.start("read", len(found), "images")
        with self.files.opened() as read:

            def work(i: int) -> None:
                found[i] = hashlib.sha256(read(self.names[i])).digest()

            in_threads(len(found), work, advance)
        return found

    def at(
        self, indices: npt.NDArray[np.int64], size: int, mode: Resize, scratch: Path, advance: Advance
    ) -> npt.NDArray[np.uint8]:
        """The images at `indices`, uint8 (N, C, size, size), on the pages of a nameless file in `scratch`.

        In memory are only the images that the threads are at; the file goes when the array goes. Warns where an image
        is smaller than `size`. Raises ValueError naming the first file that is damaged or refused.
        """
        shape = (self.channels, size, size)
        each = int(np.prod(shape))
        enlarged = np.zeros(len(indices), dtype=np.bool_)
        with self.files.opened() as read, tempfile.TemporaryFile(dir=scratch) as file:

            def work(i: int) -> None:
                name = self.names[indices[i]]
                picture = _square(decode(read(name), self.files.where(name), self.channels))
                enlarged[i] = picture.size[0] < size
                # Written, not stored into a mapping: there a full disk would end the process.
                _write(file.fileno(), planes(resized(picture, (size, size), mode)).tobytes(), i * each)

            in_threads(len(indices), work, advance)
            if enlarged.any():
                warnings.warn(f"data.image_size = {size}: some images are smaller and are enlarged", stacklevel=2)
            return np.memmap(file, dtype=np.uint8, mode="r+", shape=(len(indices), *shape))


def _square(picture: Any) -> Any:
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _write(descriptor: int, data: bytes, offset: int) -> None:
    """All of `data` at `offset`, for any number of threads."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
