"""Decoding an image file to 8-bit grey or RGB. Lossless conversions are made, everything else is refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""The endings of image files' names, which may also be in upper case."""
SMALLEST = 8
"""The least height and width of an image, in pixels. No dataset can be prepared at a smaller size."""
# By default, Pillow tries every format that it knows, and starts other programs for some of them.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_GREY, _COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA")


def is_image(name: str) -> bool:
    """Return True if the name is that of an image file."""
    return name.lower().endswith(SUFFIXES)


def decode(data: bytes, where: str, channels: int) -> Any:
    """Decode an image file.

    These conversions are made, all without loss: palette to RGB, 1-bit to grey, grey to RGB by repeating the channel,
    RGB to grey if the three channels are equal everywhere, and dropping an alpha channel that is opaque everywhere.
    Embedded colour profiles and orientation tags are ignored.

    Args:
        data: The content of a JPEG, PNG, WebP or BMP file.
        where: The name of the file for error messages.
        channels: 1 or 3.

    Returns:
        A Pillow image of mode "L" or "RGB".

    Raises:
        ValueError: If the file is damaged or of another format, is an animation, has CMYK colours, more than 8 bits per
            channel or transparent pixels, has a side below `SMALLEST`, or is in colour although `channels` is 1.
    """
    picture = open_image(io.BytesIO(data), where)
    _load(picture, where)
    return _converted(picture, where, channels)


def open_image(file: Any, where: str) -> Any:
    """Open a path or a binary file as a Pillow image. Its header is read and checked, its pixels are not read yet."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"{where} is not a JPEG, PNG, WebP or BMP image, or its header is damaged") from None
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} cannot be read: {error}") from error
    try:
        _check(picture, where)
    except ValueError:
        picture.close()
        raise
    return picture


def is_grey(picture: Any) -> bool:
    """Return True if an opened image's header says that it has no colours."""
    return picture.mode in _GREY


def _check(picture: Any, where: str) -> None:
    # The other frames of a JPEG are a thumbnail or a second view. Its first frame is the image.
    if picture.format in ("PNG", "WEBP") and getattr(picture, "n_frames", 1) > 1:
        raise ValueError(f"{where} is an animation of {picture.n_frames} frames, but only a single image is allowed")
    # Pillow reports 16-bit RGB as mode "RGB" too, and silently cuts it to 8 bits.
    deep = picture.format == "PNG" and any("16" in str(tile[3]) for tile in picture.tile)
    if picture.mode not in (*_GREY, *_COLOUR) or deep:
        reason = "16 bits a channel" if deep else f"mode {picture.mode}"
        raise ValueError(f"{where} has {reason}, but only grey, palette or RGB of 8 bits is allowed")
    if min(picture.size) < SMALLEST:
        width, height = picture.size
        raise ValueError(f"{where} is {width} x {height} pixels, but at least {SMALLEST} x {SMALLEST} is needed")


def _load(picture: Any, where: str) -> None:
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"{where} is damaged: {error}") from error


def _converted(picture: Any, where: str, channels: int) -> Any:
    assert channels in (1, 3), channels
    if picture.has_transparency_data and picture.convert("RGBA").getextrema()[3] != (255, 255):
        raise ValueError(f"{where} has transparent pixels, whose colour is unknown. Only opaque images are allowed")
    if is_grey(picture):
        grey = picture.convert("L")
        return grey if channels == 1 else grey.convert("RGB")
    colour = picture.convert("RGB")
    if channels == 3:
        return colour
    red, green, blue = (colour.getchannel(name) for name in "RGB")
    if not red.tobytes() == green.tobytes() == blue.tobytes():
        raise ValueError(
            f"{where} is in colour, but only grey images are allowed (RGB with three equal channels counts as grey)"
        )
    return red
