"""Decoding an image file to 8-bit grey or RGB. Lossless conversions are made, everything else is refused.

All readers of images use this decoder: folders, zip archives, Parquet, and the pictures that are judged.
"""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import nullcontext
from functools import cache
from typing import Any

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""The endings of image files' names, which may also be in upper case."""
SMALLEST = 8
"""The least height and width of an image, in pixels. No dataset can be prepared at a smaller size."""
LARGEST_BYTES = 1 << 26
"""The most bytes of an encoded image, 64 MiB."""
LARGEST_PIXELS = 1 << 26
"""The most pixels of an image, for example 8,192 x 8,192. A small file can promise any number of pixels."""
# By default, Pillow tries every format that it knows, and starts other programs for some of them (Ghostscript for EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# While an image of more pixels than this is decoded, other threads that decode such an image wait. It needs 64 MB.
_LARGE_PIXELS = 1 << 24
_ONE_LARGE = threading.Lock()
_ORIENTATION = 0x0112  # the EXIF tag
_GREY, _COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA")


def is_image(name: str) -> bool:
    """Return True if the name is that of an image file."""
    return name.lower().endswith(SUFFIXES)


def decode(data: bytes, where: str, channels: int) -> Any:
    """Decode an image file.

    These conversions are made, all without loss: palette to RGB, 1-bit to grey, grey to RGB by repeating the channel,
    RGB to grey if the three channels are equal everywhere, and dropping an alpha channel that is opaque everywhere.
    An image with an orientation tag (EXIF) is turned and mirrored as every viewer shows it. Embedded colour profiles
    are ignored.

    Args:
        data: The content of a JPEG, PNG, WebP or BMP file. Every other format is refused, whatever the file's name is.
        where: The name of the file for error messages.
        channels: 1 or 3.

    Returns:
        A Pillow image of mode "L" or "RGB".

    Raises:
        ValueError: If the file is damaged or of another format, is an animation, has CMYK colours, more than 8 bits per
            channel or transparent pixels, has a side below `SMALLEST` or more than `LARGEST_PIXELS` pixels, or is in
            colour although `channels` is 1.
    """
    picture = open_image(io.BytesIO(data), where)
    with picture, _ONE_LARGE if picture.width * picture.height > _LARGE_PIXELS else nullcontext():
        _load(picture, where)
        return _turned(picture, _converted(picture, where, channels))


def open_image(file: Any, where: str) -> Any:
    """Open a path or a binary file as a Pillow image. Its header is read and checked, its pixels are not read yet."""
    from PIL import Image, UnidentifiedImageError

    _silence_warnings()
    try:
        picture = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"{where} is not a JPEG, PNG, WebP or BMP image, or its header is damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{where} has too many pixels, but at most {LARGEST_PIXELS:,} are allowed") from None
    except Exception as error:  # damaged headers raise errors of many types, for example IndexError
        raise ValueError(f"{where} cannot be read: {_first_line(error)}") from error
    try:
        _check(picture, where)
    except ValueError:
        picture.close()
        raise
    return picture


@cache
def _silence_warnings() -> None:
    """Leave images of too many pixels to our own limit, and say nothing about damaged tags, which are ignored.

    Pillow's own limit is higher, and only a warning at first.
    """
    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", "Corrupt EXIF data")


def is_grey(picture: Any) -> bool:
    """Return True if an opened image's header says that it has no colours."""
    return picture.mode in _GREY


def shown_size(picture: Any) -> tuple[int, int]:
    """Return the (width, height) of an opened image as viewers show it, as far as its header says.

    A PNG file may have its orientation tag behind the pixels. `decode` finds the tag there too.
    """
    width, height = picture.size
    in_header = picture.format != "PNG" or "exif" in picture.info
    return (height, width) if in_header and _orientation(picture) >= 5 else (width, height)


def _orientation(picture: Any) -> int:
    """Return the orientation tag, 1..8. 1 (as stored) if there is none, or if it cannot be read."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged tag is no tag: viewers show such an image as it is stored
        return 1
    return value if value in range(1, 9) else 1


def _turned(picture: Any, converted: Any) -> Any:
    """Return the converted image of an opened one, turned and mirrored as its orientation tag says."""
    from PIL.Image import Transpose

    ways = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    way = ways.get(_orientation(picture))
    return converted if way is None else converted.transpose(way)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _check(picture: Any, where: str) -> None:
    # The other frames of a JPEG are a thumbnail or a second view. Its first frame is the image.
    if picture.format in ("PNG", "WEBP") and getattr(picture, "n_frames", 1) > 1:
        raise ValueError(f"{where} is an animation of {picture.n_frames} frames, but only a single image is allowed")
    # Pillow reports 16-bit RGB as mode "RGB" too, and silently cuts it to 8 bits.
    deep = picture.format == "PNG" and any("16" in str(tile[3]) for tile in picture.tile)
    if picture.mode not in (*_GREY, *_COLOUR) or deep:
        reason = "16 bits a channel" if deep else f"mode {picture.mode}"
        raise ValueError(f"{where} has {reason}, but only grey, palette or RGB of 8 bits is allowed")
    width, height = picture.size
    if width * height > LARGEST_PIXELS:
        raise ValueError(f"{where} is {width} x {height} pixels, but at most {LARGEST_PIXELS:,} pixels are allowed")
    if min(picture.size) < SMALLEST:
        raise ValueError(f"{where} is {width} x {height} pixels, but at least {SMALLEST} x {SMALLEST} is needed")


def _load(picture: Any, where: str) -> None:
    try:
        picture.load()
    except Exception as error:  # damaged pixels raise errors of many types, for example zlib.error
        raise ValueError(f"{where} is damaged: {_first_line(error)}") from error


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
