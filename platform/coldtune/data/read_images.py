"""Reading images that another program made, to be measured here, from a folder of image files or an array file."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from coldtune.data import arrays
from coldtune.data.decode import LARGEST_BYTES, SUFFIXES, decode, is_grey, is_image, open_image, shown_size
from coldtune.data.file_collections import FolderFiles
from coldtune.data.progress import Bars, show
from coldtune.data.regular_files import check_memory, check_size, open_regular
from coldtune.data.resize import Resize, resize_picture, to_planes
from coldtune.data.threads import run_in_threads

_FEWEST = 2
_FORMATS = f"{', '.join(SUFFIXES)}, or one file {', '.join(arrays.SUFFIXES)}"


def read_images(
    folder: Path | str,
    image_shape: tuple[int, int, int] | None = None,
    progress: bool = True,
    resize: Resize | None = None,
) -> tuple[torch.Tensor, list[str]]:
    """Read a set of images and a name for each.

    All headers are checked before anything is decoded. Transparent images are refused, because a metric must not choose
    the colour behind them.

    Args:
        folder: A directory with .png, .jpg, .jpeg, .webp or .bmp files, which may be in directories inside it. Their
            relative paths are their names, in natural order (2.png before 10.png). Other files are left out, and links
            to files or folders that are read already, both with a warning. Hidden files are left out. Or an array file
            .npz, .npy or .safetensors (see `arrays.read_array`), with names "0", "1", ...
        image_shape: The (C, H, W) of the dataset to compare with, which the images must have. If C is 3, grey images
            are repeated into three channels. If C is 1, coloured images are refused, but RGB images whose channels are
            equal count as grey. Without `image_shape`, C is 1 if all files are grey and otherwise 3.
        progress: Show progress bars on a terminal.
        resize: "bilinear", "bicubic" or "nearest" resizes images of another size but the same aspect ratio to
            `image_shape`, as datasets are resized. By default nothing is resized, because FID depends on the filter.

    Returns:
        The images, uint8 (N, C, H, W) with N >= 2, and their names.

    Raises:
        ValueError: If there are fewer than two images, if their sizes differ from each other or from `image_shape`, or
            if a file cannot be read or is refused (see `decode`). The message names the file.
    """
    path = Path(folder)
    if resize is not None and image_shape is None:
        raise ValueError(f"resize = {resize!r}: needs the image_shape to resize to")
    if path.is_file() and path.suffix.lower() in arrays.SUFFIXES:
        return _read_array_file(path, image_shape, resize)
    if not path.is_dir():
        problem = "no such directory" if not path.exists() else "is not a directory"
        raise ValueError(f"images = {str(path)!r}: {problem}; allowed: a directory of {_FORMATS}")
    with show(progress) as bars:
        return _read_directory(path, image_shape, resize, bars)


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]
    grey: bool


def _read_directory(
    path: Path, image_shape: tuple[int, int, int] | None, resize: Resize | None, bars: Bars
) -> tuple[torch.Tensor, list[str]]:
    files = FolderFiles.find(path, once=True)
    names = sorted(filter(is_image, files.names), key=natural_order)
    if not names:
        raise ValueError(f"images = {str(path)!r}: no images there; allowed: {_FORMATS}")
    _check_count(path, len(names))
    headers = _read_headers(files, names, bars)
    if resize is None:
        _check_equal_sizes(files, names, headers)
    if image_shape is None:
        width, height = headers[0].size
        image_shape = (1 if all(header.grey for header in headers) else 3, height, width)
    channels, target = image_shape[0], (image_shape[2], image_shape[1])
    for name, header in zip(names, headers, strict=True):
        _check_size(files.describe(name), header.size, target, resize)
    check_memory(str(path), len(names) * math.prod(image_shape))
    out = np.empty((len(names), *image_shape), dtype=np.uint8)
    with files.open() as read:

        def work(i: int) -> None:
            picture = decode(read(names[i]), files.describe(names[i]), channels)
            if picture.size != headers[i].size:  # its orientation tag is behind the pixels
                _check_size(files.describe(names[i]), picture.size, target, resize)
            out[i] = to_planes(resize_picture(picture, target, resize or "nearest"))

        run_in_threads(len(names), work, bars.start("decode", len(names), "images"))
    for notice in filter(None, (files.notice(), files.notice_of_others())):
        warnings.warn(notice, stacklevel=3)
    return torch.from_numpy(out), names


def _read_headers(files: FolderFiles, names: Sequence[str], bars: Bars) -> list[_Header]:
    headers: dict[int, _Header] = {}

    def work(i: int) -> None:
        where = files.describe(names[i])
        with open_regular(files.path / names[i]) as file:
            check_size(where, os.fstat(file.fileno()).st_size, LARGEST_BYTES)
            with open_image(file, where) as picture:
                headers[i] = _Header(shown_size(picture), is_grey(picture))

    run_in_threads(len(names), work, bars.start("check", len(names), "images"))
    return [headers[i] for i in range(len(names))]


def _read_array_file(
    path: Path, image_shape: tuple[int, int, int] | None, resize: Resize | None
) -> tuple[torch.Tensor, list[str]]:
    images = arrays.read_array(path, image_shape)
    _check_count(path, len(images))
    if image_shape is not None:
        target = (image_shape[2], image_shape[1])
        _check_size(f"{path}: each image", (images.shape[3], images.shape[2]), target, resize)
        images = _resize(_with_channels(path, images, image_shape[0]), target, resize or "nearest")
    return images, [str(i) for i in range(len(images))]


def _with_channels(path: Path, images: torch.Tensor, channels: int) -> torch.Tensor:
    """Convert grey images to three channels, or three equal channels to grey, as `decode` does for files."""
    if images.shape[1] == channels:
        return images
    if channels == 1 and not torch.equal(images, images[:, :1].expand_as(images)):
        raise ValueError(f"{path} is in colour, but only grey images are allowed (three equal channels count as grey)")
    return images[:, :1].repeat(1, channels, 1, 1)


def _resize(images: torch.Tensor, target: tuple[int, int], mode: Resize) -> torch.Tensor:
    from PIL import Image

    if (images.shape[3], images.shape[2]) == target:
        return images
    pictures = (Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in images.numpy())
    return torch.from_numpy(np.stack([to_planes(resize_picture(picture, target, mode)) for picture in pictures]))


def _check_count(path: Path, count: int) -> None:
    if count < _FEWEST:
        raise ValueError(f"images = {str(path)!r}: {count} image there, but at least {_FEWEST} are needed")


def _check_equal_sizes(files: FolderFiles, names: Sequence[str], headers: Sequence[_Header]) -> None:
    for name, header in zip(names, headers, strict=True):
        if header.size != headers[0].size:
            raise ValueError(
                f"{files.describe(names[0])} is {_shown(headers[0].size)} pixels, but {files.describe(name)} is "
                f"{_shown(header.size)}: all images must have the same size"
            )


def _check_size(where: str, size: tuple[int, int], target: tuple[int, int], resize: Resize | None) -> None:
    if size == target:
        return
    mismatch = f"{where} is {_shown(size)} pixels, not {_shown(target)} as the images to compare with"
    if resize is None:
        raise ValueError(
            f"{mismatch}. Resizing changes FID, so images are never resized by default. "
            'Resize them beforehand or pass resize="bilinear"'
        )
    if size[0] * target[1] != size[1] * target[0]:
        raise ValueError(f"{mismatch}; resize = {resize!r} would distort it: crop it beforehand")


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def natural_order(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Return a sort key that compares numbers inside names as numbers, so that "2.png" comes before "10.png"."""
    parts = re.split(r"([0-9]+)", name)  # text and numbers alternate
    return [(0, int(part)) if index % 2 else (1, part) for index, part in enumerate(parts) if part], name
