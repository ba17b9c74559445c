"""Resizing of the published images, once, when a dataset is prepared."""

from __future__ import annotations

from typing import Literal

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

    resample = Image.Resampling[mode.upper()]
    out = np.empty((count, channels, size, size), dtype=np.uint8)
    for index, image in enumerate(images):
        picture = Image.fromarray(image[0] if channels == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
        pixels = np.asarray(picture.resize((size, size), resample))
        out[index] = pixels if channels == 1 else pixels.transpose(2, 0, 1)
        advance(1)
    return out
