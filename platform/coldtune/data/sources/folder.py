"""A folder of the user's own images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from coldtune.data.decode import SUFFIXES, is_image
from coldtune.data.encoded import Encoded
from coldtune.data.file_collections import FileCollection
from coldtune.data.progress import Bars
from coldtune.data.sources.image_files import ImageFiles, find_files

LEAST = 20
"""The least number of images. Fewer would leave a few for validation and test."""


class Folder(ImageFiles):
    """All images of the folder `--data-dir`, flat or in folders inside it.

    The images are split 60/20/20 by the hash of each file. They have no labels, so all are 0. Other files are left out,
    with a warning unless they are hidden.
    """

    name = "folder"
    num_classes = 1
    reads_everything = True
    published = "put your images into a folder"
    needs = f"at least {LEAST} images ({', '.join(SUFFIXES)}), there or in folders inside"

    def locate(self, data_dir: Path) -> list[Path]:
        """Return the folder itself, whatever is in it."""
        return [data_dir]

    def list_files(self, path: Path) -> FileCollection:
        """List the images. Raises ValueError if there are fewer than `LEAST`."""
        found = find_files(path)
        images = tuple(filter(is_image, found.names))
        if len(images) < LEAST:
            raise ValueError(f"--data-dir = {str(path)!r}: contains {len(images)} images; it needs {self.needs}")
        return replace(found, names=images)

    def notices(self, files: Sequence[Path]) -> list[str]:
        """Return sentences about links and about files that are left out because they are not images."""
        found = find_files(files[0])
        others = [name for name in found.names if not is_image(name)]
        text = f"{found.describe(others[0])}: not an image, so it is left out" if others else ""
        more = f", as are {len(others) - 1:,} other files" if len(others) > 1 else ""
        return [*super().notices(files), *([f"{text}{more}"] if others else [])]

    def read(self, files: Sequence[Path], bars: Bars) -> Mapping[str, Encoded]:
        """Read all images as a single part."""
        images = self.images(files[0])
        return {"all": Encoded(images, images.names, np.zeros(len(images.names), np.int64), self.channels, bars)}
