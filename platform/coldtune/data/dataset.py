"""A prepared dataset: named, fingerprinted, split, memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from coldtune.data import arrow, manifest
from coldtune.data.manifest import Manifest


@dataclass(frozen=True)
class Split:
    """The images and labels of a split, in canonical order, so that index i is the same image everywhere.

    Both lie on the pages of the prepared file, which all processes of a machine share. Treat them as read-only. A write
    changes them for all users of this dataset in this process, but in no other process and not in the file.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A folder that `prepare` made.

    A dataset is pickled as its path, so a worker process that receives it opens the same files.
    """

    path: Path
    manifest: Manifest
    _splits: dict[str, Split] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """Open a prepared folder, and check its manifest and the sizes of its files.

        This reads no pixels (`verify` reads them all).

        Raises:
            ValueError: If the folder is torn or is not a prepared dataset.
        """
        return cls(Path(path), manifest.load(Path(path)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Dataset.open, (self.path,))

    @property
    def name(self) -> str:
        """The name in the registry."""
        return self.manifest.name

    @property
    def fingerprint(self) -> str:
        """The SHA-256 (hex) of the pixels after resizing, in canonical order, split by split."""
        return self.manifest.fingerprint

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of each image."""
        return self.manifest.image_shape

    @property
    def num_classes(self) -> int:
        """The number of classes. Labels are 0..num_classes-1."""
        return self.manifest.num_classes

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images of each split."""
        return {split: record.images for split, record in self.manifest.splits.items()}

    def split(self, name: str) -> Split:
        """Return the split "train", "validation" or "test". Its file is opened at the first call.

        Raises:
            ValueError: If there is no such split, or if its file is torn or belongs to another dataset.
        """
        record = self.manifest.splits.get(name)
        if record is None:
            raise ValueError(f"split = {name!r}: allowed: {', '.join(self.manifest.splits)}")
        if name not in self._splits:
            images, labels = arrow.read(self.path / manifest.split_file(name), tag=record.pixels)
            if images.shape != (record.images, *self.image_shape):
                raise ValueError(
                    f"{self.path}: split {name} has shape {tuple(images.shape)}, which is not its manifest's"
                )
            self._splits[name] = Split(images, labels)
        return self._splits[name]
