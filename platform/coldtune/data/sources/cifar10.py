"""CIFAR-10 from Parquet shards (Hugging Face's layout) or the published binary archive, never from its pickles."""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldtune.data.download import Remote, fetch
from coldtune.data.progress import Bars
from coldtune.data.source import Raw, Source

_SIDE = 32
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE
_BINARIES = {f"data_batch_{number}.bin": "train" for number in range(1, 6)} | {"test_batch.bin": "test"}
_ARCHIVE = "cifar-10-binary.tar.gz"
_FOLDERS = ("", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "plain_text", "cifar10/plain_text")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")


class Cifar10(Source):
    """50,000 training and 10,000 test photographs in 10 classes, 32 x 32, RGB (Krizhevsky 2009)."""

    name = "cifar10"
    channels = 3
    num_classes = 10
    needs = (
        f"train-*.parquet and test-*.parquet (columns img, label), {_ARCHIVE}, or its data_batch_1..5.bin and "
        "test_batch.bin, there or in cifar10/ (the Python version is not read: pickles can run code)"
    )
    archive = Remote(
        _ARCHIVE,
        (f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}",),
        "sha256",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )

    def locate(self, data_dir: Path) -> list[Path]:
        """Find the archive, the unpacked binary files or the Parquet shards, in this order in each folder.

        Raises:
            ValueError: If a folder has only some of the files.
        """
        for folder in (data_dir / name for name in _FOLDERS):
            if (folder / _ARCHIVE).is_file():
                return [folder / _ARCHIVE]
            if binaries := [folder / name for name in _BINARIES if (folder / name).is_file()]:
                missing = set(_BINARIES) - {path.name for path in binaries}
                return _if_complete(folder, binaries, sorted(missing))
            if shards := sorted(path for part in ("train", "test") for path in folder.glob(f"{part}-*.parquet")):
                return _if_complete(folder, shards, _missing_shards(shards))
        return []

    def download(self, folder: Path, bars: Bars) -> list[Path]:
        """Download the binary archive from its published address into `folder`/cifar10."""
        return [fetch(self.archive, folder / "cifar10", bars)]

    def read(self, files: Sequence[Path], bars: Bars) -> dict[str, Raw]:
        """Read the published train and test parts."""
        if files[0].suffix == ".parquet":
            parts = ((path.name.partition("-")[0], raw) for path, raw in _parquet(files, bars))
        else:
            parts = ((_BINARIES[name], _records(name, data)) for name, data in _binaries(files))
        collected: dict[str, list[Raw]] = {"train": [], "test": []}
        for part, raw in parts:
            collected[part].append(raw)
        return {
            part: Raw(np.concatenate([raw.images for raw in raws]), np.concatenate([raw.labels for raw in raws]))
            for part, raws in collected.items()
        }


def _if_complete(folder: Path, files: list[Path], missing: list[str]) -> list[Path]:
    if missing:
        raise ValueError(f"{folder} lacks a part of CIFAR-10: {', '.join(missing)}")
    return files


def _missing_shards(shards: Sequence[Path]) -> list[str]:
    """Return the missing shards. The names of the others say how many there are (`train-00000-of-00005...`)."""
    missing = []
    for part in ("train", "test"):
        numbers = [_SHARD.search(path.name) for path in shards if path.name.startswith(f"{part}-")]
        if not numbers:
            missing.append(f"{part}-*.parquet")
        present = {int(match[1]) for match in numbers if match}
        promised = max((int(match[2]) for match in numbers if match), default=0)
        missing += [f"{part}-{n:05d}-of-{promised:05d}.parquet" for n in range(promised) if n not in present]
    return missing


def _binaries(files: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the six binary files, unpacked or inside the archive, which is never extracted."""
    if files[0].name != _ARCHIVE:
        yield from ((path.name, path.read_bytes()) for path in files)
        return
    seen = set()
    try:
        with tarfile.open(files[0], "r:gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in _BINARIES and (content := archive.extractfile(member)):
                    seen.add(name)
                    yield name, content.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise ValueError(f"{files[0]} is damaged: {error}") from error
    if missing := sorted(set(_BINARIES) - seen):
        raise ValueError(f"{files[0]} lacks {', '.join(missing)}")


def _records(name: str, data: bytes) -> Raw:
    """Parse records of a label byte and 3,072 pixel bytes, which are the red, green and blue planes, row by row."""
    if not data or len(data) % _RECORD_BYTES:
        raise ValueError(f"{name} is damaged: {len(data):,} bytes are not a multiple of {_RECORD_BYTES}-byte records")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, _RECORD_BYTES)
    return _raw(name, records[:, 1:].reshape(-1, 3, _SIDE, _SIDE), records[:, 0].astype(np.int64))


def _parquet(files: Sequence[Path], bars: Bars) -> Iterator[tuple[Path, Raw]]:
    """Yield each shard with its decoded images, in any format that Pillow reads."""
    tables = [(path, _table(path)) for path in files]
    advance = bars.start("decode", sum(len(table) for _, table in tables), "images")
    for path, table in tables:
        if not len(table):
            raise ValueError(f"{path} contains no images")
        images = np.empty((len(table), 3, _SIDE, _SIDE), dtype=np.uint8)
        for index, encoded in enumerate(table["bytes"].to_pylist()):
            images[index] = _decode(path, encoded)
            advance(1)
        yield path, _raw(path.name, images, table["label"].to_numpy().astype(np.int64))


def _table(path: Path) -> Any:
    """Read a shard as an Arrow table with the columns `bytes` (of `img`) and `label`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        return pa.table({"bytes": pa.compute.struct_field(table["img"], "bytes"), "label": table["label"]})
    except KeyError:
        raise ValueError(f"{path}: columns {', '.join(table.column_names)}; needed: img (bytes, path), label") from None
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _decode(path: Path, encoded: bytes) -> npt.NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            pixels = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except OSError as error:
        raise ValueError(f"{path} contains an image that cannot be decoded: {error}") from error
    if pixels.shape != (_SIDE, _SIDE, 3):
        raise ValueError(
            f"{path} contains an image of {pixels.shape[1]} x {pixels.shape[0]}, but only {_SIDE} x {_SIDE} is allowed"
        )
    return pixels.transpose(2, 0, 1)


def _raw(where: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Raw:
    if labels.min() < 0 or labels.max() >= Cifar10.num_classes:
        raise ValueError(f"{where}: labels {labels.min()}..{labels.max()}; allowed: 0..9")
    return Raw(images, labels)
