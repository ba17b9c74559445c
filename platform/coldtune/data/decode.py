"""Decoding one image file to 8-bit grey or RGB: what is converted is lossless, everything else is refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Names of image files end in one of these, in lower or upper case."""
SMALLEST = 8
"""Height and width that an image has at least, in pixels; no dataset can be prepared smaller."""
# Pillow would try every format that it knows, some of them by starting other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_GREY, _COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA")


def is_image(name: str) -> bool:
    """Whether a file of this name should hold an image."""
    return name.lower().endswith(SUFFIXES)


def decode(data: bytes, where: str, channels: int) -> Any:
    """The image in `data`, a whole JPEG, PNG, WebP or BMP file, as a Pillow image of mode "L" or "RGB".

    channels: 1 or 3. Conversions, all without loss: palette to RGB, 1-bit to grey, grey to RGB by repeating, RGB whose
    three channels are equal everywhere to grey, and leaving out an alpha channel that is opaque everywhere. Embedded
    colour profiles and orientation tags are ignored. Raises ValueError naming `where` (the file) and the reason for
    everything else: damaged or foreign files, CMYK, more than 8 bits, transparent pixels, animations, coloured images
    where channels = 1, a side below `SMALLEST`.
    """
    picture = open_image(io.BytesIO(data), where)
    _load(picture, where)
    return _converted(picture, where, channels)


def open_image(file: Any, where: str) -> Any:
    """A Pillow image of `file` (a path or a binary file) with its header read and checked; the pixels are not."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"{where} is no JPEG, PNG, WebP or BMP image, or its header is damaged") from None
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} cannot be read: {error}") from error
    try:
        _check(picture, where)
    except ValueError:
        picture.close()
        raise
    return picture


def is_grey(picture: Any) -> bool:
    """Whether an opened image's header says that it has no colours."""
    return picture.mode in _GREY


def _check(picture: Any, where: str) -> None:
    # A JPEG may carry a thumbnail or a second view as another frame; of it, the first is the image.
    if picture.format in ("PNG", "WEBP") and getattr(picture, "n_frames", 1) > 1:
        raise ValueError(f"{where} is an animation of {picture.n_frames} frames; allowed: one image")
    # Pillow calls 16-bit RGB "RGB" too, and cuts it to 8 bits.
    deep = picture.format == "PNG" and any("16" in str(tile[3]) for tile in picture.tile)
    if picture.mode not in (*_GREY, *_COLOUR) or deep:
        what = "16 bits a channel" if deep else f"mode {picture.mode}"
        raise ValueError(f"{where} has {what}; allowed: grey, palette or RGB of 8 bits")
    if min(picture.size) < SMALLEST:
        width, height = picture.size
        raise ValueError(f"{where} is {width} x {height} pixels; allowed: at least {SMALLEST} x {SMALLEST}")


def _load(picture: Any, where: str) -> None:
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"{where} is damaged: {error}") from error


def _converted(picture: Any, where: str, channels: int) -> Any:
    assert channels in (1, 3), channels
    if picture.has_transparency_data and picture.convert("RGBA").getextrema()[3] != (255, 255):
        raise ValueError(f"{where} has transparent pixels, whose colour nobody can know; allowed: opaque images")
    if is_grey(picture):
        grey = picture.convert("L")
        return grey if channels == 1 else grey.convert("RGB")
    colour = picture.convert("RGB")
    if channels == 3:
        return colour
    red, green, blue = (colour.getchannel(name) for name in "RGB")
    if not red.tobytes() == green.tobytes() == blue.tobytes():
        raise ValueError(f"{where} is in colour; allowed: grey images (RGB with three equal channels counts as grey)")
    return red
