"""Resizing of images with Pillow's filters, whose fixed-point arithmetic returns the same bytes on every machine."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coldtune.data.progress import Advance

Resize = Literal["bilinear", "bicubic", "nearest"]


def resize(
    images: npt.NDArray[np.uint8], size: int, mode: Resize, advance: Advance = lambda done: None
) -> npt.NDArray[np.uint8]:
    """Resize square images.

    Args:
        images: uint8 (N, C, H, H), with C either 1 or 3.
        mode: "bilinear" and "bicubic" antialias, because they widen their support when they shrink an image. "nearest"
            picks pixels and aliases.

    Returns:
        uint8 (N, C, size, size). If H is `size`, `images` itself.
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
        out[index] = to_planes(resize_picture(picture, (size, size), mode))
        advance(1)
    return out


def resize_picture(picture: Any, size: tuple[int, int], mode: Resize) -> Any:
    """Resize a Pillow image to `size` (width, height). If it already has this size, return it unchanged."""
    from PIL import Image

    return picture if picture.size == size else picture.resize(size, Image.Resampling[mode.upper()])


def crop_square(picture: Any) -> Any:
    """Return the largest square around the centre of a Pillow image, rounded towards the upper left."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def to_planes(picture: Any) -> npt.NDArray[np.uint8]:
    """Convert a Pillow image of mode "L" or "RGB" to uint8 (C, H, W)."""
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
