"""Reading a user's own pictures of any size, as they would be prepared for a dataset."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coldtune.data.decode import LARGEST_BYTES, SUFFIXES, decode, is_image
from coldtune.data.file_collections import FolderFiles
from coldtune.data.progress import show
from coldtune.data.read_images import natural_order
from coldtune.data.regular_files import check_memory, read_file
from coldtune.data.resize import Resize, crop_square, resize_picture, to_planes
from coldtune.data.threads import run_in_threads


@dataclass(frozen=True)
class Picture:
    """A picture as the network sees it.

    Attributes:
        path: The file that it was read from.
        pixels: uint8 (C, H, W).
        changes: What was changed, in words. Empty if the file has these pixels.
    """

    path: Path
    pixels: torch.Tensor
    changes: tuple[str, ...] = ()


def list_pictures(paths: Sequence[Path]) -> list[Path]:
    """Return the image files that `paths` name, in their order. A folder stands for the image files in it and below.

    A warning names what is left out of a folder.

    Raises:
        ValueError: If a path does not exist, or a folder contains no image file. The message names it.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder; allowed: image files ({', '.join(SUFFIXES)}), folders")
        if not path.is_dir():
            files.append(path)
            continue
        found = FolderFiles.find(path, once=True)
        names = sorted(filter(is_image, found.names), key=natural_order)
        if not names:
            raise ValueError(f"{path}: contains no image file; allowed: {', '.join(SUFFIXES)}")
        for notice in filter(None, (found.notice(), found.notice_of_others())):
            warnings.warn(notice, stacklevel=2)
        files += [path / name for name in names]
    return files


def read_pictures(
    files: Sequence[Path], image_shape: tuple[int, int, int], resize: Resize, progress: bool = True
) -> list[Picture]:
    """Read image files, each cropped to the largest square around its centre and resized, as a dataset is prepared.

    A grey picture is repeated into three channels if the network takes colours. A picture in colour becomes grey (ITU-R
    601 luma) if the network takes grey images.

    Args:
        image_shape: (C, H, W) of the network, with H = W.
        progress: Show a progress bar on a terminal.

    Raises:
        ValueError: If a file cannot be read or is refused (see `decode`). The message names the first such file.
    """
    channels, size = image_shape[0], image_shape[1]
    check_memory("the pictures", len(files) * channels * size * size)
    pictures: dict[int, Picture] = {}
    with show(progress) as bars:
        advance = bars.start("read", len(files), "pictures")

        def work(i: int) -> None:
            pictures[i] = _read(files[i], channels, size, resize)

        run_in_threads(len(files), work, advance)
    return [pictures[i] for i in range(len(files))]


def describe_changes(pictures: Sequence[Picture]) -> list[str]:
    """Return a sentence for each kind of change, with the number of pictures and the first of them."""
    counts = Counter(change for picture in pictures for change in picture.changes)
    sentences = []
    for change, count in counts.items():
        first = next(picture.path.name for picture in pictures if change in picture.changes)
        who = first if count == 1 else f"{first} and {count - 1:,} more"
        sentences.append(f"{who}: {change}")
    return sentences


def _read(path: Path, channels: int, size: int, resize: Resize) -> Picture:
    colour = decode(read_file(path, LARGEST_BYTES), str(path), 3)
    picture, changes = colour, []
    if channels == 1:
        changes += [] if _is_grey(colour) else ["colours converted to grey"]
        picture = colour.convert("L")  # exact if the three channels are equal
    elif _is_grey(colour):
        changes.append("grey, repeated into three channels")
    width, height = picture.size
    if width != height:
        changes.append("cropped to the largest square around the centre")
    square = crop_square(picture)
    if square.size[0] != size:
        way = "enlarged" if square.size[0] < size else "reduced"
        changes.append(f"{way} to {size} x {size} pixels ({resize})")
    pixels = to_planes(resize_picture(square, (size, size), resize))
    return Picture(path, torch.from_numpy(pixels.copy()), tuple(changes))


def _is_grey(picture: Any) -> bool:
    red, green, blue = (picture.getchannel(name).tobytes() for name in "RGB")
    return bool(red == green == blue)
