"""A matrix of pictures: the same images in every cell, a row and a column for each setting, still or moving."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from coldtune.reports.fonts import Font, choose_font, printable
from coldtune.reports.pictures import INK, PAPER, to_pixels

_IMAGE, _ALONE = 64, 112  # pixels: smaller images, or a single image, are enlarged by a whole factor to this size
_WIDEST = 2400  # pixels: a matrix enlarges its images less if it would become wider than this
_NARROWEST = 460  # pixels: the least width, so that the title of a single cell has few lines
_TIGHT, _GAP, _MARGIN = 2, 14, 16  # pixels between the images of a cell, between cells, and around the matrix
_LABEL = 240  # pixels: the widest label of a row
_LONGEST_LABEL = 4  # lines of a label, before it is shortened
_FONT, _SMALL = 17, 14
_LINE, _SMALL_LINE = 22, 18
_SOFT, _RULE = (105, 105, 115), (205, 205, 212)
_BAR, _BAR_HEIGHT = 160, 12  # pixels: the scale of the differences
_NEGATIVE, _POSITIVE = (33, 102, 172), (178, 24, 43)  # blue and red, which colour-blind readers can tell apart
_MOST_PIXELS = 1 << 28  # of all frames, which need 0.8 GB
_FIRST_MS, _FRAME_MS, _LAST_MS = 900, 350, 2200


@dataclass(frozen=True)
class Cell:
    """The images of a setting, and the lines below them.

    Attributes:
        images: uint8 (B, C, H, W) with C = 1 or 3. None for a setting without images: then the cell is a frame around
            the lines.
        across: The number of images side by side, if it is not that of the matrix.
    """

    images: Tensor | None
    lines: Sequence[str] = ()
    across: int | None = None


@dataclass(frozen=True)
class Axis:
    """The rows or the columns of a matrix.

    Attributes:
        labels: The label of each row or column.
        name: What the labels are values of, or "" if the labels say so themselves.
    """

    labels: Sequence[str]
    name: str = ""


@dataclass(frozen=True)
class Text:
    """The text around a matrix.

    Attributes:
        title: The line above the matrix.
        foot: The lines below the matrix.
        scale: The difference that has the full colour, if the matrix shows differences. It is drawn as a colour bar.
    """

    title: str = ""
    foot: Sequence[str] = ()
    scale: float | None = None


@dataclass(frozen=True)
class Matrix:
    """Everything that a matrix of pictures shows.

    Attributes:
        frames: The cells by row and column, for each frame of an animation. A still picture has a single frame.
        across: The number of images side by side in a cell.
        lead: A cell for each row that stands before the first column, such as the originals, and its label.
    """

    rows: Axis
    columns: Axis
    frames: Sequence[Sequence[Sequence[Cell]]]
    across: int
    text: Text = field(default_factory=Text)
    lead: tuple[str, Sequence[Cell]] | None = None

    def __post_init__(self) -> None:
        assert self.frames
        for cells in self.frames:
            assert len(cells) == len(self.rows.labels)
            assert all(len(row) == len(self.columns.labels) for row in cells)
        assert self.lead is None or len(self.lead[1]) == len(self.rows.labels)


def draw(matrix: Matrix) -> list[Image.Image]:
    """Draw a matrix on a white background, a picture of the same size for each frame.

    Small images are enlarged by a whole factor without smoothing, so every pixel shown is a pixel of the data.
    Long labels are broken into several lines.

    Raises:
        ValueError: If the picture would need too much memory.
    """
    layout = _Layout(matrix)
    if layout.width * layout.height * len(matrix.frames) > _MOST_PIXELS:
        frames = f" in {len(matrix.frames)} frames" if len(matrix.frames) > 1 else ""
        raise ValueError(
            f"the picture would have {layout.width:,} x {layout.height:,} pixels{frames}, but at most "
            f"{_MOST_PIXELS:,} are drawn in all. Show fewer images in each cell, or fewer cells."
        )
    return [layout.draw(frame) for frame in range(len(matrix.frames))]


def still(picture: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def animated(pictures: Sequence[Image.Image]) -> bytes:
    """Return pictures of equal size as an animated PNG file, which repeats without end.

    A viewer that knows no animated PNG shows the last picture.
    """
    durations = [_FIRST_MS, *[_FRAME_MS] * (len(pictures) - 2), _LAST_MS][-len(pictures) :]
    file = io.BytesIO()
    pictures[-1].save(
        file, "PNG", save_all=True, append_images=list(pictures), default_image=True, duration=durations, loop=0
    )
    return file.getvalue()


def difference(images: Tensor, originals: Tensor) -> Tensor:
    """Return images - originals, the mean over the channels, on a scale of -1 to 1: float32 (B, H, W).

    Args:
        images: uint8 (B, C, H, W).
        originals: uint8 of the same shape.
    """
    return (images.float() - originals.float()).mean(dim=1) / 255


def colours(differences: Tensor, scale: float) -> Tensor:
    """Return differences as colours: white for 0, red for brighter, blue for darker. uint8 (B, 3, H, W).

    Args:
        differences: float (B, H, W).
        scale: The difference that has the full colour. Must be larger than 0.
    """
    share = (differences / scale).clamp(-1, 1)[:, None]
    full = torch.where(share > 0, _planes(_POSITIVE), _planes(_NEGATIVE))
    return (_planes(PAPER) + share.abs() * (full - _planes(PAPER))).round().to(torch.uint8)


def _planes(colour: tuple[int, int, int]) -> Tensor:
    return torch.tensor(colour, dtype=torch.float32)[None, :, None, None]


def _texts(matrix: Matrix) -> Iterator[str]:
    """Yield all texts of a matrix."""
    for axis in (matrix.rows, matrix.columns):
        yield from (axis.name, *axis.labels)
    yield from (matrix.text.title, *matrix.text.foot, *([matrix.lead[0]] if matrix.lead else []))
    for frame in matrix.frames:
        for row in frame:
            for cell in row:
                yield from cell.lines


class _Layout:
    """The places of everything in a matrix, which are the same for every frame."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        texts = list(_texts(matrix))
        self.font, self.small = choose_font(_FONT, texts), choose_font(_SMALL, texts)
        columns = len(matrix.columns.labels) + bool(matrix.lead)
        shown = [cell.images for cell in self._cells() if cell.images is not None]
        count = max((len(images) for images in shown), default=1)
        height, width = shown[0].shape[2:] if shown else (_IMAGE, _IMAGE)
        self.across, self.down = min(matrix.across, count), -(-count // min(matrix.across, count))
        words = [line for cell in self._cells() if cell.images is not None for line in cell.lines]
        captions = max(self._width(line) + 2 for line in [*words, *([matrix.lead[0]] if matrix.lead else []), ""])
        fitting = (_WIDEST - _LABEL) // (columns * self.across * width)
        fitting = max(fitting, captions // (self.across * (width + _TIGHT)))  # enlarging does not widen the cell
        least = _ALONE if count == 1 else _IMAGE
        self.zoom = max(1, min(-(-least // max(width, height)), fitting))
        self.image = (width * self.zoom, height * self.zoom)
        self.block = tuple(
            n * side + (n - 1) * _TIGHT for n, side in zip((self.across, self.down), self.image, strict=True)
        )
        self.cell = max(self.block[0], captions)
        self.lines = max((len(cell.lines) for cell in self._cells() if cell.images is not None), default=0)
        names = [matrix.rows.name, *matrix.rows.labels]
        self.label = min(_LABEL, max(int(self.font.getlength(name)) + 1 for name in names))
        self.rows = [self._wrap(label, self.font, self.label) for label in matrix.rows.labels]
        self.columns = [self._wrap(label, self.font, self.cell) for label in matrix.columns.labels]
        self.left = _MARGIN + (self.label + _GAP if any(names) else 0)
        body = self.left + columns * (self.cell + _GAP) - _GAP + _MARGIN
        self.width = max(body, _NARROWEST)
        self._place_rows()

    def _place_rows(self) -> None:
        text, inner = self.matrix.text, self.width - 2 * _MARGIN
        self.title = self._wrap(text.title, self.font, inner, most=99) if text.title else []
        self.foot = [line for part in text.foot for line in self._wrap(part, self.small, inner, most=99)]
        lead = [self.matrix.lead[0]] if self.matrix.lead else []
        self.head = max(len(label) for label in [*self.columns, lead]) + bool(self.matrix.columns.name)
        self.top = _MARGIN + len(self.title) * _LINE + (8 if self.title else 0) + self.head * _LINE + 6
        self.row = self.block[1] + self.lines * _SMALL_LINE + _GAP + 4
        below = self.top + len(self.matrix.rows.labels) * self.row - _GAP
        self.bar = below + 14
        self.first_foot = self.bar + (_BAR_HEIGHT + 12 if text.scale is not None else 0)
        self.height = self.first_foot + len(self.foot) * _SMALL_LINE + _MARGIN

    def _cells(self) -> Iterator[Cell]:
        for frame in self.matrix.frames:
            for row in frame:
                yield from row
        yield from self.matrix.lead[1] if self.matrix.lead else ()

    def draw(self, frame: int) -> Image.Image:
        """Draw the matrix with the cells of a frame."""
        sheet = Image.new("RGB", (self.width, self.height), PAPER)
        pen = ImageDraw.Draw(sheet)
        for number, line in enumerate(self.title):
            pen.text((_MARGIN, _MARGIN + number * _LINE), line, INK, self.font)
        self._draw_heads(pen)
        for number, row in enumerate(self.matrix.frames[frame]):
            top = self.top + number * self.row
            middle = top + self.block[1] / 2 - (len(self.rows[number]) - 1) * _LINE / 2
            for place, line in enumerate(self.rows[number]):
                pen.text((_MARGIN, middle + place * _LINE), line, INK, self.font, anchor="lm")
            lead = [self.matrix.lead[1][number]] if self.matrix.lead else []
            for column, cell in enumerate([*lead, *row]):
                self._draw_cell(sheet, pen, cell, self._left_of(column), top)
        if self.matrix.text.scale is not None:
            self._draw_scale(sheet, pen, self.matrix.text.scale)
        for number, line in enumerate(self.foot):
            pen.text((_MARGIN, self.first_foot + number * _SMALL_LINE), line, _SOFT, self.small)
        return sheet

    def _left_of(self, column: int) -> int:
        return self.left + column * (self.cell + _GAP)

    def _draw_heads(self, pen: ImageDraw.ImageDraw) -> None:
        bottom = self.top - 6
        heads = [[self.matrix.lead[0]] if self.matrix.lead else [], *self.columns]
        for column, lines in enumerate(heads if self.matrix.lead else heads[1:]):
            center = self._left_of(column) + self.cell / 2
            for place, line in enumerate(reversed(lines)):
                pen.text((center, bottom - (place + 0.5) * _LINE), line, INK, self.font, anchor="mm")
        if self.matrix.rows.name:
            name = self._wrap(self.matrix.rows.name, self.font, self.label, most=1)[0]
            pen.text((_MARGIN, bottom - _LINE / 2), name, _SOFT, self.font, anchor="lm")
        if self.matrix.columns.name:
            first = self._left_of(bool(self.matrix.lead))
            last = self._left_of(len(heads) - 1 - (not self.matrix.lead)) + self.cell
            name = self._wrap(self.matrix.columns.name, self.font, self.width - first - _MARGIN, most=1)[0]
            middle = max((first + last) / 2, first + self.font.getlength(name) / 2)
            pen.text((middle, bottom - (self.head - 0.5) * _LINE), name, _SOFT, self.font, anchor="mm")

    def _draw_cell(self, sheet: Image.Image, pen: ImageDraw.ImageDraw, cell: Cell, left: int, top: int) -> None:
        center = left + self.cell / 2
        if cell.images is None:
            pen.rectangle((left, top, left + self.cell - 1, top + self.block[1] - 1), outline=_RULE)
            lines = [part for line in cell.lines for part in self._wrap(line, self.small, self.cell - 6, most=3)]
            lines = lines[: max(1, self.block[1] // _SMALL_LINE)]
            first = top + self.block[1] / 2 - (len(lines) - 1) * _SMALL_LINE / 2
            for place, line in enumerate(lines):
                pen.text((center, first + place * _SMALL_LINE), line, _SOFT, self.small, anchor="mm")
            return
        across = min(cell.across or self.across, len(cell.images))
        inset = left + (self.cell - across * self.image[0] - (across - 1) * _TIGHT) // 2
        for place, pixels in enumerate(to_pixels(cell.images)):
            row, column = divmod(place, across)
            picture = Image.fromarray(pixels).resize(self.image, Image.Resampling.NEAREST)
            sheet.paste(picture, (inset + column * (self.image[0] + _TIGHT), top + row * (self.image[1] + _TIGHT)))
        for place, line in enumerate(cell.lines):
            at = top + self.block[1] + 4 + (place + 0.5) * _SMALL_LINE
            pen.text((center, at), line, _SOFT, self.small, anchor="mm")

    def _draw_scale(self, sheet: Image.Image, pen: ImageDraw.ImageDraw, scale: float) -> None:
        ends = f"-{scale:.2g} darker", f"+{scale:.2g} brighter"
        left, middle = _MARGIN, self.bar + _BAR_HEIGHT / 2
        pen.text((left, middle), ends[0], _SOFT, self.small, anchor="lm")
        left += self._width(ends[0]) + 8
        shades = colours(torch.linspace(-1, 1, _BAR).expand(1, _BAR_HEIGHT, -1), 1.0)
        sheet.paste(Image.fromarray(to_pixels(shades)[0]), (left, self.bar))
        pen.rectangle((left, self.bar, left + _BAR - 1, self.bar + _BAR_HEIGHT - 1), outline=_RULE)
        pen.text((left + _BAR + 8, middle), ends[1], _SOFT, self.small, anchor="lm")

    def _width(self, line: str) -> int:
        return int(self.small.getlength(line)) + 1

    def _wrap(self, text: str, font: Font, width: int, most: int = _LONGEST_LABEL) -> list[str]:
        """Break a text into lines of at most `width` pixels, between words if possible. Shorten it to `most` lines."""
        lines = [""]
        for word in printable(text, font).split(" "):
            joined = f"{lines[-1]} {word}" if lines[-1] else word
            if font.getlength(joined) <= width:
                lines[-1] = joined
                continue
            lines += [word] if lines[-1] else []
            lines[-1] = word
            while font.getlength(lines[-1]) > width and len(lines[-1]) > 1:
                word = lines.pop()
                fits = bisect_right(range(2, len(word)), width, key=lambda n, word=word: font.getlength(word[:n])) + 1  # type: ignore[misc]
                lines += [word[:fits], word[fits:]]
        if len(lines) <= most:
            return lines
        last = lines[most - 1]
        while last and font.getlength(f"{last}...") > width:
            last = last[:-1]
        return [*lines[: most - 1], f"{last}..."]
