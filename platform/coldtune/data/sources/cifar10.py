"""CIFAR-10 from Parquet shards (Hugging Face's layout) or the published binary archive, never from its pickles."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldtune.data.decode import decode
from coldtune.data.download import Remote, fetch
from coldtune.data.progress import Bars
from coldtune.data.regular_files import check_size, open_regular, read_file
from coldtune.data.resize import to_planes
from coldtune.data.source import Raw, Source

_SIDE = 32
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE
_BINARIES = {f"data_batch_{number}.bin": "train" for number in range(1, 6)} | {"test_batch.bin": "test"}
_ARCHIVE = "cifar-10-binary.tar.gz"
_FOLDERS = ("", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "plain_text", "cifar10/plain_text")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")
_MOST_SHARDS = 1000
_MOST_BYTES = 1 << 28  # of a binary file, or of the whole archive. The published archive unpacks to 184 million
_MOST_ROWS = 1_000_000
_MOST_IMAGE_BYTES = 1 << 20  # of an encoded image of 32 x 32 pixels
_MOST_SHARD_BYTES = 1 << 29  # of a shard, unpacked. The published training images have 120 million
_NAMED = 5  # missing files that a message names


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
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ValueError(f"{folder} lacks a part of CIFAR-10: {', '.join(missing[:_NAMED])}{more}")
    return files


def _missing_shards(shards: Sequence[Path]) -> list[str]:
    """Return the missing shards. The names of the others say how many there are (`train-00000-of-00005...`).

    Raises ValueError if a name promises more than `_MOST_SHARDS`.
    """
    for path in shards:
        if (match := _SHARD.search(path.name)) and not int(match[1]) < int(match[2]) <= _MOST_SHARDS:
            raise ValueError(f"{path} is shard {match[1]} of {match[2]}, but at most {_MOST_SHARDS} are allowed")
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
        yield from ((path.name, read_file(path, _MOST_BYTES)) for path in files)
        return
    seen: set[str] = set()
    try:
        with (
            open_regular(files[0]) as file,
            gzip.open(file) as unpacked,
            # As a stream, the archive is read once from begin to end, and no longer than `_Limited` allows.
            tarfile.open(fileobj=_Limited(unpacked, files[0]), mode="r|") as archive,
        ):
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name not in _BINARIES:
                    continue
                if name in seen or not member.isreg():
                    problem = "there twice" if name in seen else "not a regular file"
                    raise ValueError(f"{files[0]}: {member.name} is {problem}")
                check_size(f"{files[0]}: {member.name}", member.size, _MOST_BYTES)
                content = archive.extractfile(member)
                assert content is not None
                seen.add(name)
                yield name, content.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise ValueError(f"{files[0]} is damaged: {error}") from error
    if missing := sorted(set(_BINARIES) - seen):
        raise ValueError(f"{files[0]} lacks {', '.join(missing)}")


class _Limited(io.RawIOBase):
    """A stream that raises ValueError after `_MOST_BYTES`, so that a small archive cannot unpack without an end."""

    def __init__(self, file: gzip.GzipFile, path: Path) -> None:
        super().__init__()
        self._file, self._path, self._left = file, path, _MOST_BYTES

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes."""
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"{self._path} unpacks to more than {_MOST_BYTES:,} bytes, which is the most that is read")
        return data


def _records(name: str, data: bytes) -> Raw:
    """Parse records of a label byte and 3,072 pixel bytes, which are the red, green and blue planes, row by row."""
    if not data or len(data) % _RECORD_BYTES:
        raise ValueError(f"{name} is damaged: {len(data):,} bytes are not a multiple of {_RECORD_BYTES}-byte records")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, _RECORD_BYTES)
    return _raw(name, records[:, 1:].reshape(-1, 3, _SIDE, _SIDE), records[:, 0].astype(np.int64))


def _parquet(files: Sequence[Path], bars: Bars) -> Iterator[tuple[Path, Raw]]:
    """Yield each shard with its decoded images, in any format that `decode` reads."""
    tables = [(path, _table(path)) for path in files]
    advance = bars.start("decode", sum(len(encoded) for _, (encoded, _) in tables), "images")
    for path, (encoded, labels) in tables:
        images = np.empty((len(encoded), 3, _SIDE, _SIDE), dtype=np.uint8)
        for row, data in enumerate(encoded):
            images[row] = _decode(f"{path}, row {row}: the image", data)
            advance(1)
        yield path, _raw(path.name, images, labels)


def _table(path: Path) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """Read the column `bytes` (of `img`) and the column `label` of a shard, a few rows at a time.

    Raises:
        ValueError: If the shard is damaged, too large, or lacks a column, an image or a label. The message names the
            row, counted from 0.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    encoded: list[bytes] = []
    labels: list[int] = []
    size = 0
    with open_regular(path) as file:
        try:
            shard = pq.ParquetFile(file)
            _check_columns(path, shard.schema_arrow)
            _check_sizes(path, shard.metadata)
            largest = max((_unpacked(shard.metadata, group) for group in range(shard.num_row_groups)), default=1)
            # A dictionary can repeat a value in each row, so no row is larger than the group that contains it.
            rows = min(1024, max(1, _MOST_BYTES // largest))
            for batch in shard.iter_batches(rows, columns=["img.bytes", "label"]):
                images = pc.struct_field(batch["img"], "bytes")
                _check_rows(path, len(encoded), images, batch["label"])
                size += pc.sum(pc.binary_length(images)).as_py()
                check_size(str(path), size, _MOST_SHARD_BYTES)
                encoded += images.to_pylist()
                labels += batch["label"].to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path} is damaged: {str(error).partition(chr(10))[0]}") from error
    if not encoded:
        raise ValueError(f"{path} contains no images")
    return encoded, np.array(labels, np.int64)


def _check_columns(path: Path, schema: Any) -> None:
    import pyarrow as pa

    kinds = {field.name: field.type for field in schema}
    image, label = kinds.get("img"), kinds.get("label")
    if image is None or label is None or not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise ValueError(f"{path}: columns {', '.join(kinds)}; needed: img (bytes, path), label")
    data = image.field("bytes").type
    if not pa.types.is_binary(data) and not pa.types.is_large_binary(data):
        raise ValueError(f"{path}: img.bytes is a column of {data}, but binary is needed")
    if not pa.types.is_integer(label):
        raise ValueError(f"{path}: label is a column of {label}, but integers 0..{Cifar10.num_classes - 1} are needed")


def _check_sizes(path: Path, metadata: Any) -> None:
    if metadata.num_rows > _MOST_ROWS:
        raise ValueError(f"{path} promises {metadata.num_rows:,} rows, but at most {_MOST_ROWS:,} are read")
    unpacked = sum(_unpacked(metadata, group) for group in range(metadata.num_row_groups))
    check_size(str(path), unpacked, _MOST_SHARD_BYTES)


def _unpacked(metadata: Any, group: int) -> int:
    return max(1, int(metadata.row_group(group).total_byte_size))


def _check_rows(path: Path, first: int, images: Any, labels: Any) -> None:
    """Raise ValueError naming the first row of a batch that has no image, no label, or an image that is too large."""
    import pyarrow.compute as pc

    sizes = pc.binary_length(images)
    for what, wrong in (
        ("img.bytes is null", pc.is_null(images)),
        ("label is null", pc.is_null(labels)),
        (f"img.bytes has more than {_MOST_IMAGE_BYTES:,} bytes", pc.greater(sizes, _MOST_IMAGE_BYTES)),
    ):
        if (row := pc.index(wrong, True).as_py()) >= 0:
            raise ValueError(f"{path}, row {first + row}: {what}")


def _decode(where: str, data: bytes) -> npt.NDArray[np.uint8]:
    picture = decode(data, where, Cifar10.channels)
    if picture.size != (_SIDE, _SIDE):
        width, height = picture.size
        raise ValueError(f"{where} is {width} x {height} pixels, but only {_SIDE} x {_SIDE} is allowed")
    return to_planes(picture)


def _raw(where: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Raw:
    if labels.min() < 0 or labels.max() >= Cifar10.num_classes:
        raise ValueError(f"{where}: labels {labels.min()}..{labels.max()}; allowed: 0..9")
    return Raw(images, labels)
