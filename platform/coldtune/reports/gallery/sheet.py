"""Labelled sheets: rows of images with a label at the left and captions above or below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw
from torch import Tensor

from coldtune.reports.fonts import choose_font, printable

_READABLE = 96  # pixels: smaller images are enlarged by a whole factor to at least this size
_GAP, _MARGIN = 6, 12
_FONT, _SMALL = 16, 14
_LINE = 24  # pixels: the height of a line of text with the space around it
_LABEL = 200  # pixels: the least width of the labels, so that the columns of most sheets align on the page
_PAPER, _INK, _FAINT = 255, 40, 170  # grey, so that a sheet of grey images is grey


@dataclass(frozen=True)
class Row:
    """A row of a sheet.

    Attributes:
        images: The images, uint8 (C, H, W) with C = 1 or 3, or None for an empty place.
        label: The text at the left, with newlines between its lines.
        captions: The text below each image. It is empty if the sheet's head already names the columns.
    """

    images: Sequence[Tensor | None]
    label: str = ""
    captions: Sequence[str] = ()


def sheet(rows: Sequence[Row], head: Sequence[str] = (), cell: int | None = None) -> Image.Image:
    """Draw rows of equal length on a white background.

    Args:
        rows: The rows.
        head: The names of the columns.
        cell: The side of an image on the sheet, in pixels. None keeps the images' size, or enlarges small images by a
            whole factor without smoothing to at least 96 px, so that every pixel shown is a pixel of the image. A
            smaller size resamples smoothly, a larger size to the nearest pixel.

    Returns:
        The sheet, in mode L if all images are grey, otherwise in mode RGB.
    """
    width = max(len(row.images) for row in rows)
    assert all(len(row.images) == width and len(row.captions) in (0, width) for row in rows)
    assert len(head) in (0, width)
    side = cell or _side(next(image for row in rows for image in row.images if image is not None))
    texts = [*head, *(text for row in rows for text in (row.label, *row.captions))]
    font, small = choose_font(_FONT, texts), choose_font(_SMALL, texts)
    labels = ["\n".join(printable(line, font) for line in row.label.splitlines()) for row in rows]
    words = [line for label in labels for line in label.splitlines()]
    left = _MARGIN + max((max(int(font.getlength(line)), _LABEL) + 2 * _MARGIN for line in words), default=0)
    top = _MARGIN + (_LINE if head else 0)
    heights = [side + (_LINE if row.captions else _GAP) for row in rows]
    size = (left + width * (side + _GAP) - _GAP + _MARGIN, top + sum(heights) + _GAP)
    grey = all(len(image) == 1 for row in rows for image in row.images if image is not None)
    paper = Image.new("L" if grey else "RGB", size, _PAPER if grey else (_PAPER,) * 3)
    draw = ImageDraw.Draw(paper)
    ink, faint = (_INK, _FAINT) if grey else ((_INK,) * 3, (_FAINT,) * 3)
    centers = [left + column * (side + _GAP) + side / 2 for column in range(width)]
    for center, name in zip(centers, head, strict=False):
        draw.text((center, _MARGIN / 2 + _LINE / 2), name, ink, font, anchor="mm")
    for row, label, height in zip(rows, labels, heights, strict=True):
        draw.multiline_text((_MARGIN, top + side / 2), label, ink, font, anchor="lm", spacing=5)
        last = max(column for column, image in enumerate(row.images) if image is not None)
        for column, (center, image) in enumerate(zip(centers, row.images, strict=True)):
            if image is not None:
                paper.paste(_picture(image, side), (int(center - side / 2), top))
            elif column < last:
                draw.line((center - 8, top + side / 2, center + 8, top + side / 2), faint, 2)
        for center, caption in zip(centers, row.captions, strict=False):
            draw.text((center, top + side + _LINE / 2 - 1), caption, ink, small, anchor="mm")
        top += height
    return paper


def _side(image: Tensor) -> int:
    longest = max(image.shape[1:])
    return longest * -(-_READABLE // longest)


def _picture(image: Tensor, side: int) -> Image.Image:
    picture = Image.fromarray(image.cpu().expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    smooth = side < max(picture.size)
    return picture.resize((side, side), Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)
