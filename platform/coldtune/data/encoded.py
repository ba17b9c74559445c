"""Images that are published as a file each, and decoded only when they are needed because they do not fit in memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coldtune.data.decode import decode
from coldtune.data.file_collections import FileCollection
from coldtune.data.progress import Advance, Bars
from coldtune.data.resize import Resize, crop_square, resize_picture, to_planes
from coldtune.data.threads import run_in_threads


@dataclass(frozen=True)
class Encoded:
    """A published part of a dataset, as image files.

    Each image is cropped to the largest square around its centre, rounded towards the upper left. `decode` says which
    files are converted and which are refused.

    Attributes:
        names: The image files of this part, in `files`.
        labels: int64 (N,).
        channels: 1 or 3.
    """

    files: FileCollection
    names: Sequence[str]
    labels: npt.NDArray[np.int64]
    channels: int
    bars: Bars

    def __post_init__(self) -> None:
        assert self.labels.shape == (len(self.names),), self.labels.shape

    def hashes(self) -> list[bytes]:
        """Return the SHA-256 of each file.

        The files are hashed and not their pixels, because JPEG decoders differ from machine to machine.
        """
        digests = [b""] * len(self.names)
        advance = self.bars.start("read", len(digests), "images")
        with self.files.open() as read:

            def work(i: int) -> None:
                digests[i] = hashlib.sha256(read(self.names[i])).digest()

            run_in_threads(len(digests), work, advance)
        return digests

    def load_resized(
        self, indices: npt.NDArray[np.int64], size: int, mode: Resize, scratch: Path, advance: Advance
    ) -> npt.NDArray[np.uint8]:
        """Decode and resize the images at `indices`, with a warning if some of them are enlarged.

        Memory contains only the images that the threads work on. The result lies on the pages of an unnamed file in
        `scratch`, which disappears with the array.

        Returns:
            uint8 (N, C, size, size).

        Raises:
            ValueError: If a file is damaged or refused. The message names the first such file.
        """
        shape = (self.channels, size, size)
        image_bytes = int(np.prod(shape))
        enlarged = np.zeros(len(indices), dtype=np.bool_)
        with self.files.open() as read, tempfile.TemporaryFile(dir=scratch) as file:

            def work(i: int) -> None:
                name = self.names[indices[i]]
                picture = crop_square(decode(read(name), self.files.describe(name), self.channels))
                enlarged[i] = picture.size[0] < size
                # A write reports a full disk as an error. Storing into a mapping would kill the process with SIGBUS.
                pixels = to_planes(resize_picture(picture, (size, size), mode))
                _write(file.fileno(), pixels.tobytes(), i * image_bytes)

            run_in_threads(len(indices), work, advance)
            if enlarged.any():
                warnings.warn(f"data.image_size = {size}: some images are smaller and are enlarged", stacklevel=2)
            return np.memmap(file, dtype=np.uint8, mode="r+", shape=(len(indices), *shape))


def _write(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`. Threads may write to other offsets at the same time."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
