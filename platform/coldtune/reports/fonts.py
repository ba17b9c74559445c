"""Fonts for the texts of pictures. Pillow's own font has only ASCII, but users name files and variants as they like."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from PIL import ImageFont

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

_NO_CHARACTER = "\U0010ffff"  # which no font has
_INSTEAD = "?"


def choose_font(size: int, texts: Iterable[str]) -> Font:
    """Return a font for these texts: Pillow's own if it has all characters, otherwise DejaVu Sans of matplotlib.

    If matplotlib is not installed, the font is Pillow's own. `printable` then replaces what the font lacks.

    Args:
        size: The height of a line in pixels, about.
    """
    file = None if all(text.isascii() for text in texts) else _dejavu()
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size - 2)  # its letters are wider


def printable(text: str, font: Font) -> str:
    """Return a text as a font can draw it, in a line: with `?` for each character that the font lacks."""
    text = " ".join(text.split())
    return text if text.isascii() and text.isprintable() else "".join(c if _has(font, c) else _INSTEAD for c in text)


def _has(font: Font, character: str) -> bool:
    if not character.isprintable():
        return False
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(_NO_CHARACTER))


@cache
def _dejavu() -> Path | None:
    spec = find_spec("matplotlib")  # without importing it, which takes a second
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return file if file.is_file() else None
