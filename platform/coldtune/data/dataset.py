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
    """Images uint8 (N, C, H, W) in canonical order, so that index i is the same image everywhere; labels int64 (N,).

    Both lie on the pages of the prepared file, which all processes of a machine share. Treat them as read-only: a write
    changes the private copy of this process alone, for everyone in it who holds this dataset.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A folder that `prepare` made. Pickles as its path: a worker process opens the same files."""

    path: Path
    manifest: Manifest
    _splits: dict[str, Split] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """Open a prepared folder; checks its manifest and file sizes (`verify` re-reads every pixel).

        Raises ValueError where the folder is torn or is not a prepared dataset.
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
        """SHA-256 (hex) of the pixels after resizing, in canonical order, split by split."""
        return self.manifest.fingerprint

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.manifest.image_shape

    @property
    def num_classes(self) -> int:
        """Labels are 0..num_classes-1."""
        return self.manifest.num_classes

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images of each split."""
        return {split: record.images for split, record in self.manifest.splits.items()}

    def split(self, name: str) -> Split:
        """The split "train", "validation" or "test"; opened once for each dataset object.

        Raises ValueError for another name, and where the file is torn or belongs to another dataset.
        """
        record = self.manifest.splits.get(name)
        if record is None:
            raise ValueError(f"split = {name!r}: allowed: {', '.join(self.manifest.splits)}")
        if name not in self._splits:
            images, labels = arrow.read(self.path / manifest.split_file(name), tag=record.pixels)
            if images.shape != (record.images, *self.image_shape):
                raise ValueError(
                    f"{self.path}: split {name} has shape {tuple(images.shape)}, its manifest says otherwise"
                )
            self._splits[name] = Split(images, labels)
        return self._splits[name]
