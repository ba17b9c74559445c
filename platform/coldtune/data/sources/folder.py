"""A folder of the user's own images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from coldtune.data.decode import SUFFIXES, is_image
from coldtune.data.encoded import Encoded
from coldtune.data.file_collections import FileCollection
from coldtune.data.progress import Bars
from coldtune.data.sources.image_files import ImageFiles, find_files
from coldtune.data.sources.layout import Layout, arrange

LEAST = 20
"""The least number of images. Fewer would leave a few for validation and test."""


class Folder(ImageFiles):
    """All images of the folder `--data-dir`, flat or in folders inside it.

    Folders `train`, `val` and `test` are the splits. What they do not say is split by the hash of each file. The
    folders of classes are the labels. Without such folders, all labels are 0 (`arrange` has the rules). Other files are
    left out, with a warning unless they are hidden.
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
            parquet = ". For Parquet files, use the dataset parquet" if _has_parquet(found) else ""
            count = f"{len(images)} image{'s' * (len(images) != 1)}"
            raise ValueError(f"--data-dir = {str(path)!r}: contains {count}; it needs {self.needs}{parquet}")
        return replace(found, names=images)

    def classes(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Return the names of the folders of classes, or () if the images have no classes."""
        return self._layout(self.images(files[0])).classes

    def notices(self, files: Sequence[Path]) -> list[str]:
        """Return sentences about links, about files that are not images, and about folders that are no classes."""
        found = find_files(files[0])
        outside = self._layout(self.images(files[0])).outside
        unlabelled = f"{found.describe(outside or '')}: lies outside of the folders of classes, so no image has a label"
        return [
            *super().notices(files),
            *filter(None, [found.notice_of_others()]),
            *([unlabelled] if outside is not None else []),
        ]

    def read(self, files: Sequence[Path], bars: Bars) -> Mapping[str, Encoded]:
        """Read the images of each part."""
        images = self.images(files[0])
        layout = self._layout(images)
        return {
            part: Encoded(images, tuple(names), layout.labels(part), self.channels, bars)
            for part, names in layout.parts.items()
        }

    def _layout(self, images: FileCollection) -> Layout:
        return arrange(images.names, images.describe)


def _has_parquet(files: FileCollection) -> bool:
    return any(name.lower().endswith(".parquet") for name in files.names)
