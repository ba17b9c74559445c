"""Resizing of the published images, once, when a dataset is prepared."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coldtune.data.progress import Advance

Resize = Literal["bilinear", "bicubic", "nearest"]


def resize(
    images: npt.NDArray[np.uint8], size: int, mode: Resize, advance: Advance = lambda done: None
) -> npt.NDArray[np.uint8]:
    """`images` uint8 (N, C, H, W) with C 1 or 3, H = W, as uint8 (N, C, size, size); the same array where H is `size`.

    Pillow's filters, whose fixed-point arithmetic gives the same bytes on every machine: bilinear and bicubic widen
    their support when they shrink an image (antialiasing), nearest picks pixels and aliases.
    """
    count, channels, height, width = images.shape
    assert height == width, images.shape
    assert channels in (1, 3), images.shape
    if height == size:
        return images
    from PIL import Image

    out = np.empty((count, channels, size, size), dtype=np.uint8)
    for index, image in enumerate(images):
        picture = Image.fromarray(image[0] if channels == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
        out[index] = planes(resized(picture, (size, size), mode))
        advance(1)
    return out


def resized(picture: Any, size: tuple[int, int], mode: Resize) -> Any:
    """A Pillow image at `size` (width, height), by the same filters; the same image where it has that size."""
    from PIL import Image

    return picture if picture.size == size else picture.resize(size, Image.Resampling[mode.upper()])


def planes(picture: Any) -> npt.NDArray[np.uint8]:
    """A Pillow image of mode "L" or "RGB" as uint8 (C, H, W)."""
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
