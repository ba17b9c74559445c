"""MNIST from its four published idx files, in torchvision's layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coldtune.data.download import Remote, fetch
from coldtune.data.progress import Bars
from coldtune.data.regular_files import read_file, read_gzip
from coldtune.data.source import Raw, Source

_PARTS = {"train": "train", "test": "t10k"}
_STEMS = tuple(f"{prefix}-{kind}-ubyte" for prefix in _PARTS.values() for kind in ("images-idx3", "labels-idx1"))
_UINT8 = 8
_MOST_AXES = 4
_LARGEST_BYTES = 1 << 28  # of an unpacked file. The published training images have 47 million


class Mnist(Source):
    """60,000 training and 10,000 test images of handwritten digits, 28 x 28, grey (LeCun, Cortes, Burges)."""

    name = "mnist"
    channels = 1
    num_classes = 10
    needs = f"MNIST/raw/ with {', '.join(_STEMS)} (each unpacked or .gz)"

    def locate(self, data_dir: Path) -> list[Path]:
        """Find the four files in `data_dir`/MNIST/raw, `data_dir`/raw or `data_dir`.

        A .gz file is preferred to the unpacked file, because it contains a checksum.

        Raises:
            ValueError: If a folder has only some of the files.
        """
        for folder in (data_dir / "MNIST" / "raw", data_dir / "raw", data_dir):
            candidates = [(folder / f"{stem}.gz", folder / stem) for stem in _STEMS]
            chosen = [next((path for path in pair if path.is_file()), None) for pair in candidates]
            files = [path for path in chosen if path is not None]
            if len(files) == len(_STEMS):
                return files
            if files:
                missing = ", ".join(stem for stem, path in zip(_STEMS, chosen, strict=True) if path is None)
                raise ValueError(f"--data-dir = {str(data_dir)!r}: {folder} lacks a part of MNIST: {missing}")
        return []

    def download(self, folder: Path, bars: Bars) -> list[Path]:
        """Download the files into `folder`/MNIST/raw, from the mirrors and with the MD5 checksums of torchvision.

        torchvision itself looks for them in this folder too.
        """
        from torchvision.datasets import MNIST

        remotes = [
            Remote(name, tuple(f"{mirror}{name}" for mirror in MNIST.mirrors), "md5", md5)
            for name, md5 in MNIST.resources
        ]
        return [fetch(remote, folder / "MNIST" / "raw", bars) for remote in remotes]

    def read(self, files: Sequence[Path], bars: Bars) -> dict[str, Raw]:
        """Read the published train and test parts."""
        by_stem = {path.name.removesuffix(".gz"): path for path in files}
        return {
            part: _part(by_stem[f"{prefix}-images-idx3-ubyte"], by_stem[f"{prefix}-labels-idx1-ubyte"])
            for part, prefix in _PARTS.items()
        }


def _part(image_file: Path, label_file: Path) -> Raw:
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"{image_file}: shape {images.shape}, but square grey images (N, H, H) are needed")
    if labels.shape != images.shape[:1] or labels.max(initial=0) >= Mnist.num_classes:
        raise ValueError(
            f"{label_file}: shape {labels.shape}, but a label 0..9 for each of {len(images)} images is needed"
        )
    return Raw(images[:, None], labels.astype(np.int64))


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read a uint8 array from an idx file, unpacked or .gz.

    An idx file consists of two zero bytes, the type, the rank, the sizes as big-endian integers, and the values.

    Raises:
        ValueError: If the file is torn, too large, or not an idx file of uint8 values.
    """
    data = read_gzip(path, _LARGEST_BYTES) if path.suffix == ".gz" else read_file(path, _LARGEST_BYTES)
    if len(data) < 4 or data[:3] != bytes((0, 0, _UINT8)) or len(data) < 4 + 4 * data[3] or data[3] > _MOST_AXES:
        raise ValueError(f"{path} is not an idx file of uint8 values")
    rank = data[3]
    shape = tuple(int(size) for size in np.frombuffer(data, dtype=">u4", count=rank, offset=4))
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * rank)
    if values.size != math.prod(shape):
        raise ValueError(f"{path} is damaged: {values.size:,} values, its header says {shape}")
    return values.reshape(shape)
