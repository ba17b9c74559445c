"""The manifest of a prepared dataset: what it was made from, and sizes and hashes to check it against."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError

from coldtune.config import Config, digest
from coldtune.data.resize import Resize
from coldtune.files import write_file

FILE = "manifest.json"


class SplitRecord(Config):
    """One split: its number of images, the size of its file in bytes, SHA-256 of its pixels and of its labels."""

    images: int
    bytes: int
    pixels: str
    labels: str


class Manifest(Config):
    """What a prepared folder holds. `source` is the identity of the published files and of the code that read them."""

    format: Literal["coldtune-data-1"] = "coldtune-data-1"
    name: str
    image_size: int
    resize: Resize
    source: str
    image_shape: tuple[int, int, int]
    num_classes: int
    fingerprint: str
    splits: dict[str, SplitRecord]

    def save(self, folder: Path) -> None:
        """Write the manifest into `folder` and flush it to the disk."""
        write_file(folder / FILE, self.model_dump_json(indent=2) + "\n", durable=True)


def split_file(split: str) -> str:
    """File name of a split inside the prepared folder."""
    return f"{split}.arrow"


def content_hash(tensor: torch.Tensor) -> str:
    """SHA-256 (hex) of the bytes of a CPU tensor, in its logical order."""
    return hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()


def fingerprint(image_shape: tuple[int, int, int], pixels: Mapping[str, str]) -> str:
    """The dataset's fingerprint: SHA-256 (hex) over the image shape and the pixel hash of every split.

    Equal fingerprints mean: the same images, after resizing, in the same splits, at the same indices. Labels are not
    part of it: nothing that is trained or measured on pixels alone depends on them.
    """
    return digest({"image_shape": image_shape, "pixels": dict(pixels)})


def load(folder: Path) -> Manifest:
    """The manifest of `folder`, checked against itself and the sizes of the files beside it.

    Costs no reading of pixels (`verify` reads them all). Raises ValueError saying what is wrong.
    """
    path = folder / FILE
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{folder} is not a prepared dataset: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(".".join(map(str, [*item["loc"], item["msg"]])) for item in error.errors())
        raise ValueError(f"{path} is torn or foreign: {wrong}") from error
    if manifest.fingerprint != fingerprint(manifest.image_shape, {s: r.pixels for s, r in manifest.splits.items()}):
        raise ValueError(f"{path} contradicts itself: its fingerprint is not that of its splits")
    for split, record in manifest.splits.items():
        file = folder / split_file(split)
        size = file.stat().st_size if file.is_file() else None
        if size != record.bytes:
            found = "missing" if size is None else f"{size:,} bytes"
            raise ValueError(f"{file} is {found}, its manifest says {record.bytes:,} bytes")
    return manifest
