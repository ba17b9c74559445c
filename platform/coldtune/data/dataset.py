"""A prepared dataset: named, fingerprinted, split, memory-mapped."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from coldtune.data import arrow, manifest
from coldtune.data.errors import DamagedDataError, advise_to_prepare
from coldtune.data.manifest import Manifest, content_hash

_VERIFIED: set[tuple[object, ...]] = set()
"""The states of files whose pixels and labels this process has hashed and found as their manifest says."""
_SETTLED_NS = 2_000_000_000  # a younger file could still be written to without a visible change of its times


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
    _splits: dict[str, tuple[Split, tuple[int, ...]]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """Open a prepared folder, and check its manifest and the sizes of its files.

        This reads no pixels. `split` reads and checks those of a split.

        Raises:
            DamagedDataError: If the folder is torn or is not a prepared dataset (a ValueError and an OSError).
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
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of their labels, if the files told them. Otherwise ()."""
        return self.manifest.classes

    @property
    def home(self) -> Path:
        """The home in whose folder data/ the dataset lies."""
        return self.path.absolute().parents[1]

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images of each split."""
        return {split: record.images for split, record in self.manifest.splits.items()}

    def split(self, name: str) -> Split:
        """Return the split "train", "validation" or "test", after checking that its pixels are the prepared ones.

        A process hashes a file once. It hashes the file again if its size, its times or its inode have changed since.

        Raises:
            ValueError: If there is no such split.
            DamagedDataError: If its file is torn, belongs to another dataset, or has other pixels or labels than its
                manifest says.
        """
        if name not in self.manifest.splits:
            raise ValueError(f"split = {name!r}: allowed: {', '.join(self.manifest.splits)}")
        if name not in self._splits or self._changed(name):
            self._splits[name] = self._open(name)
        return self._splits[name][0]

    def recheck(self) -> None:
        """Check again the splits whose files have changed since they were opened.

        Call this before a result that was computed from their pixels is kept.

        Raises:
            DamagedDataError: If a file is no longer what its manifest says.
        """
        for name in list(self._splits):
            self.split(name)

    def find_damage(self, name: str) -> list[str]:
        """Read the whole file of a split, and return a line for everything that is not as the manifest says."""
        path, record = self.path / manifest.split_file(name), self.manifest.splits[name]
        try:
            found = arrow.read(path, record.pixels, self.image_shape)
        except DamagedDataError as error:
            return [str(error)]
        damage = []
        if len(found.images) != record.images:
            damage.append(f"{path} contains {len(found.images):,} images, its manifest says {record.images:,}")
        if content_hash(found.images) != record.pixels:
            damage.append(f"{path}: the pixels of {name} have changed since they were written")
        if content_hash(found.labels) != record.labels:
            damage.append(f"{path}: the labels of {name} have changed since they were written")
        if not damage and time.time_ns() - max(found.state[3:]) > _SETTLED_NS:
            _VERIFIED.add((found.state, record.pixels, record.labels))
        return damage

    def _open(self, name: str) -> tuple[Split, tuple[int, ...]]:
        record = self.manifest.splits[name]
        try:
            found = arrow.read(self.path / manifest.split_file(name), record.pixels, self.image_shape)
            seal = (found.state, record.pixels, record.labels)
            if seal not in _VERIFIED and (damage := self.find_damage(name)):
                raise DamagedDataError(damage[0])
        except DamagedDataError as error:
            there = self.manifest
            advice = advise_to_prepare(self.path, there.name, there.image_size, there.resize)
            raise DamagedDataError(f"{error}. {advice}") from None
        return Split(found.images, found.labels), found.state

    def _changed(self, name: str) -> bool:
        try:
            status = os.stat(self.path / manifest.split_file(name))
        except OSError:
            return False  # the file is gone, but its mapping stays valid and nobody can write to it by its name
        return arrow.file_state(status) != self._splits[name][1]
