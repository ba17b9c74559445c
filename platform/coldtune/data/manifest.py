"""The manifest of a prepared dataset, with its origin and the sizes and hashes to check it against."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError

from coldtune.config import Config, digest
from coldtune.data.errors import DamagedDataError, advise_to_prepare
from coldtune.data.regular_files import read_file
from coldtune.data.resize import Resize
from coldtune.files import write_file

FILE = "manifest.json"
_LARGEST_BYTES = 1 << 20
_SHA256 = r"^[0-9a-f]{64}$"


class SplitRecord(Config):
    """The manifest's record of a split.

    Attributes:
        images: The number of images.
        bytes: The size of the split's file.
        pixels: The SHA-256 of the images.
        labels: The SHA-256 of the labels.
        sha256: The SHA-256 of the whole file. None in folders that were prepared before it was recorded.
    """

    images: int = Field(ge=1)
    bytes: int = Field(ge=1)
    pixels: str = Field(pattern=_SHA256)
    labels: str = Field(pattern=_SHA256)
    sha256: str | None = Field(None, pattern=_SHA256)


class Manifest(Config):
    """The contents of a prepared folder.

    Attributes:
        source: The identity of the published files and of the code that read them (`Source.identity`).
        fingerprint: See `fingerprint`.
        classes: The names of the classes in the order of their labels. Empty if the dataset itself says them, if there
            are no classes, and in folders that were prepared before it was recorded.
    """

    format: Literal["coldtune-data-1"] = "coldtune-data-1"
    name: str
    image_size: int
    resize: Resize
    source: str
    image_shape: tuple[int, int, int]
    num_classes: int = Field(ge=1)
    fingerprint: str
    splits: dict[str, SplitRecord]
    classes: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        """Write the manifest into `folder` and force it to the disk."""
        write_file(folder / FILE, self.model_dump_json(indent=2) + "\n", durable=True)


def split_file(split: str) -> str:
    """Return the name of a split's file inside the prepared folder."""
    return f"{split}.arrow"


def content_hash(tensor: torch.Tensor) -> str:
    """Return the SHA-256 (hex) of the bytes of a CPU tensor, in its logical order."""
    return hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()


def fingerprint(image_shape: tuple[int, int, int], pixels: Mapping[str, str]) -> str:
    """Return the dataset's fingerprint, the SHA-256 (hex) over the image shape and the pixel hash of every split.

    Equal fingerprints mean the same resized images, in the same splits, at the same indices. Labels are not part of
    the fingerprint, because training and metrics use the pixels alone.

    Args:
        pixels: {split: `content_hash` of its images}.
    """
    return digest({"image_shape": image_shape, "pixels": dict(pixels)})


def load(folder: Path) -> Manifest:
    """Read the manifest of `folder`, and check it against itself and against the sizes of the files beside it.

    This reads no pixels (`verify` reads them all).

    Raises:
        DamagedDataError: If a check fails. The message says which.
    """
    path = folder / FILE
    try:
        manifest = Manifest.model_validate_json(read_file(path, _LARGEST_BYTES))
    except ValidationError as error:
        wrong = "; ".join(".".join(map(str, [*item["loc"], item["msg"]])) for item in error.errors())
        raise DamagedDataError(f"{path} is torn or foreign: {wrong}") from error
    except (OSError, ValueError) as error:
        raise DamagedDataError(f"{folder} is not a prepared dataset: {error}") from error
    if manifest.fingerprint != fingerprint(manifest.image_shape, {s: r.pixels for s, r in manifest.splits.items()}):
        raise DamagedDataError(f"{path} contradicts itself: its fingerprint is not that of its splits")
    for split, record in manifest.splits.items():
        file = folder / split_file(split)
        size = file.stat().st_size if file.is_file() else None
        if size != record.bytes:
            actual = "missing" if size is None else f"{size:,} bytes"
            advice = advise_to_prepare(folder, manifest.name, manifest.image_size, manifest.resize)
            raise DamagedDataError(f"{file} is {actual}, its manifest says {record.bytes:,} bytes. {advice}")
    return manifest
