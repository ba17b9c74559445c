"""Images from elsewhere, to be judged: a folder of image files or one array file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from coldtune.data import arrays
from coldtune.data.decode import SUFFIXES, decode, is_grey, is_image, open_image
from coldtune.data.files import Folder
from coldtune.data.progress import Bars, show
from coldtune.data.resize import Resize, planes, resized
from coldtune.data.threads import in_threads

_FEWEST = 2
_FORMATS = f"{', '.join(SUFFIXES)}, or one file {', '.join(arrays.SUFFIXES)}"


def read_images(
    folder: Path | str,
    image_shape: tuple[int, int, int] | None = None,
    progress: bool = True,
    resize: Resize | None = None,
) -> tuple[torch.Tensor, list[str]]:
    """The images in `folder` and a name for each: uint8 (N, C, H, W), N >= 2.

    folder: a directory, whose .png, .jpg, .jpeg, .webp and .bmp files count, those inside its directories too, in
    natural order of their relative paths (2.png before 10.png), which are the names; other and hidden files are left
    out. Or one file .npz, .npy or .safetensors (see `arrays.read_array`); names are then "0", "1", ...
    image_shape: (C, H, W) that the images must have, that of the dataset to be compared with. With C = 3 grey images
    are repeated into three channels; with C = 1 colours are refused, and RGB whose channels are equal counts as grey.
    Without it, C is 1 where all files are grey and 3 otherwise, and H x W is that of the files.
    resize: nothing is resized unasked, because FID depends on the filter; with "bilinear", "bicubic" or "nearest",
    images of another size but the same aspect ratio are resized to `image_shape` by Pillow's filters, as datasets are.

    Headers are checked before anything is decoded. Transparent images are refused: over which colour they are to be
    seen is not for a metric to choose. Raises ValueError, naming the file where there is one, for a directory without
    images, sizes that differ from each other or from `image_shape`, files that cannot be read, and fewer than two.
    """
    path = Path(folder)
    if resize is not None and image_shape is None:
        raise ValueError(f"resize = {resize!r}: needs the image_shape to resize to")
    if path.is_file() and path.suffix.lower() in arrays.SUFFIXES:
        return _array(path, image_shape, resize)
    if not path.is_dir():
        what = "no such directory" if not path.exists() else "is not a directory"
        raise ValueError(f"images = {str(path)!r}: {what}; allowed: a directory of {_FORMATS}")
    with show(progress) as bars:
        return _directory(path, image_shape, resize, bars)


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]
    grey: bool


def _directory(
    path: Path, image_shape: tuple[int, int, int] | None, resize: Resize | None, bars: Bars
) -> tuple[torch.Tensor, list[str]]:
    files = Folder.of(path)
    names = sorted(filter(is_image, files.names), key=_natural)
    if not names:
        raise ValueError(f"images = {str(path)!r}: no images there; allowed: {_FORMATS}")
    _check_count(path, len(names))
    headers = _headers(files, names, bars)
    if resize is None:
        _check_alike(files, names, headers)
    if image_shape is None:
        width, height = headers[0].size
        image_shape = (1 if all(header.grey for header in headers) else 3, height, width)
    channels, target = image_shape[0], (image_shape[2], image_shape[1])
    for name, header in zip(names, headers, strict=True):
        _check_size(files.where(name), header.size, target, resize)
    out = np.empty((len(names), *image_shape), dtype=np.uint8)
    with files.opened() as read:

        def work(i: int) -> None:
            picture = decode(read(names[i]), files.where(names[i]), channels)
            out[i] = planes(resized(picture, target, resize or "nearest"))

        in_threads(len(names), work, bars.start("decode", len(names), "images"))
    return torch.from_numpy(out), names


def _headers(files: Folder, names: Sequence[str], bars: Bars) -> list[_Header]:
    found: dict[int, _Header] = {}

    def work(i: int) -> None:
        with open_image(files.path / names[i], files.where(names[i])) as picture:
            found[i] = _Header(picture.size, is_grey(picture))

    in_threads(len(names), work, bars.start("check", len(names), "images"))
    return [found[i] for i in range(len(names))]


def _array(
    path: Path, image_shape: tuple[int, int, int] | None, resize: Resize | None
) -> tuple[torch.Tensor, list[str]]:
    images = arrays.read_array(path, image_shape)
    _check_count(path, len(images))
    if image_shape is not None:
        target = (image_shape[2], image_shape[1])
        _check_size(f"{path}: each image", (images.shape[3], images.shape[2]), target, resize)
        images = _resized(_with_channels(path, images, image_shape[0]), target, resize or "nearest")
    return images, [str(i) for i in range(len(images))]


def _with_channels(path: Path, images: torch.Tensor, channels: int) -> torch.Tensor:
    """As `decode` does for files: grey into three channels, three equal ones into one."""
    if images.shape[1] == channels:
        return images
    if channels == 1 and not torch.equal(images, images[:, :1].expand_as(images)):
        raise ValueError(f"{path} is in colour; allowed: grey images (three equal channels count as grey)")
    return images[:, :1].repeat(1, channels, 1, 1)


def _resized(images: torch.Tensor, target: tuple[int, int], mode: Resize) -> torch.Tensor:
    from PIL import Image

    if (images.shape[3], images.shape[2]) == target:
        return images
    pictures = (Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in images.numpy())
    return torch.from_numpy(np.stack([planes(resized(picture, target, mode)) for picture in pictures]))


def _check_count(path: Path, count: int) -> None:
    if count < _FEWEST:
        raise ValueError(f"images = {str(path)!r}: {count} image there; allowed: at least {_FEWEST}")


def _check_alike(files: Folder, names: Sequence[str], headers: Sequence[_Header]) -> None:
    for name, header in zip(names, headers, strict=True):
        if header.size != headers[0].size:
            raise ValueError(
                f"{files.where(names[0])} is {_by(headers[0].size)} pixels, {files.where(name)} is {_by(header.size)}: "
                "all images must have one size"
            )


def _check_size(where: str, size: tuple[int, int], target: tuple[int, int], resize: Resize | None) -> None:
    if size == target:
        return
    is_not = f"{where} is {_by(size)} pixels, not {_by(target)} as the images to compare with"
    if resize is None:
        raise ValueError(
            f'{is_not}; a resize changes FID, so none is made unasked: resize them beforehand or give resize="bilinear"'
        )
    if size[0] * target[1] != size[1] * target[0]:
        raise ValueError(f"{is_not}; resize = {resize!r} would distort it: crop it beforehand")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _natural(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sorts numbers inside names as numbers: a folder's parts first to last, "2.png" before "10.png"."""
    parts = re.split(r"([0-9]+)", name)  # text and number in turn
    return [(0, int(part)) if place % 2 else (1, part) for place, part in enumerate(parts) if part], name
