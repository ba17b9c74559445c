"""CIFAR-10 from Parquet shards (Hugging Face's layout) or the published binary archive, never from its pickles."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coldtune.data.decode import decode
from coldtune.data.download import Remote, fetch
from coldtune.data.parquet import Columns, missing_shards, read_images
from coldtune.data.progress import Bars
from coldtune.data.regular_files import check_size, open_regular, read_file
from coldtune.data.resize import to_planes
from coldtune.data.source import Raw, Source

_SIDE = 32
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE
_BINARIES = {f"data_batch_{number}.bin": "train" for number in range(1, 6)} | {"test_batch.bin": "test"}
_ARCHIVE = "cifar-10-binary.tar.gz"
_FOLDERS = ("", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "plain_text", "cifar10/plain_text")
_MOST_BYTES = 1 << 28  # of a binary file, or of the whole archive. The published archive unpacks to 184 million
_COLUMNS = Columns(
    image=("img",),
    label="integers 0..9",
    most_image_bytes=1 << 20,  # of an encoded image of 32 x 32 pixels
    most_bytes=1 << 29,  # of a shard, unpacked. The published training images have 120 million
)
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
    parts = {part: [path for path in shards if path.name.startswith(f"{part}-")] for part in ("train", "test")}
    missing = missing_shards(shards)
    return [*missing, *(f"{part}-*.parquet" for part, found in parts.items() if not found)]


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
    """Read the columns `img` and `label` of a shard. Raises the errors of `read_images`."""
    rows = read_images(path, _COLUMNS)
    return rows.images, np.array(rows.labels, np.int64)


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
