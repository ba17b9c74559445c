"""Writers of small files in the published formats, from the formats' descriptions and without the code under test."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MNIST_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def random_images(count: int, channels: int, side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return images, uint8 (N, C, side, side), and labels 0..9."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8), rng.integers(0, 10, count)


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, train: tuple, test: tuple, compressed: bool = True) -> dict[str, str]:
    """Write the four files into `folder`/MNIST/raw. Return {file name: MD5}."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    arrays = (train[0][:, 0], train[1], test[0][:, 0], test[1])
    sums = {}
    for name, array in zip(MNIST_NAMES, arrays, strict=True):
        data = gzip.compress(idx_bytes(array)) if compressed else idx_bytes(array)
        path = raw / (f"{name}.gz" if compressed else name)
        path.write_bytes(data)
        sums[path.name] = hashlib.md5(data).hexdigest()
    return sums


def cifar_binaries(train: tuple, test: tuple) -> dict[str, bytes]:
    """Return the contents of the six binary files. Records are a label byte and the red, green and blue planes."""
    files = {}
    for number, chunk in enumerate(np.array_split(np.arange(len(train[0])), 5), start=1):
        files[f"data_batch_{number}.bin"] = _records(train[0][chunk], train[1][chunk])
    files["test_batch.bin"] = _records(*test)
    return files


def _records(images: np.ndarray, labels: np.ndarray) -> bytes:
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))


def write_cifar_binaries(folder: Path, train: tuple, test: tuple) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in cifar_binaries(train, test).items():
        (folder / name).write_bytes(data)


def write_cifar_archive(path: Path, train: tuple, test: tuple) -> str:
    """Write cifar-10-binary.tar.gz as published, with its files in a folder beside other files. Return its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {**cifar_binaries(train, test), "batches.meta.txt": b"airplane\n"}.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_cifar_parquet(folder: Path, train: tuple, test: tuple, shards: int = 2) -> None:
    """Write Hugging Face's layout, numbered shards with a struct column img (PNG bytes, path) and a column label."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels), count in (("train", train, shards), ("test", test, 1)):
        for number, chunk in enumerate(np.array_split(np.arange(len(images)), count)):
            rows = [{"bytes": png_bytes(images[i]), "path": None} for i in chunk]
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            table = pa.table({"img": pa.array(rows, kind), "label": pa.array(labels[chunk], pa.int64())})
            pq.write_table(table, folder / f"{part}-{number:05d}-of-{count:05d}.parquet")


def png_bytes(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(out, "PNG")
    return out.getvalue()


def jpeg_bytes(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(out, "JPEG", quality=95)
    return out.getvalue()


def photo(seed: int, width: int = 36, height: int = 44) -> np.ndarray:
    """Return a smooth picture, uint8 (3, height, width). Its levels 64..191 are clipped by no filter or JPEG coder."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    a, b, c = rng.uniform(-3, 3, (3, 3, 1, 1))
    return (127.5 + 63 * np.sin(a * x + b * y + c)).astype(np.uint8)


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip archive that also has entries for folders and macOS's copies, as published archives have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
            archive.writestr(f"{folder}/", b"")
        for name, data in files.items():
            archive.writestr(name, data)
            archive.writestr(f"__MACOSX/{name}", b"resource fork")
