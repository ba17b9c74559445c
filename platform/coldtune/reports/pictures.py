"""Pictures of restorations: the paper's four columns, and a sampling run from x_T to x_0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

COLUMNS = ("degraded", "direct", "sampled", "original")
GENERATED = ("x_T", "direct", "sampled")

_READABLE = 112  # pixels: smaller images are enlarged, by a whole factor, to at least this much
_WIDEST = 2400  # pixels: a strip keeps its images smaller rather than growing wider than a screen can show
_GAP = 6
_MARGIN = 12
_HEAD = 30
_FONT = 17
_PAPER = (255, 255, 255)
_INK = (40, 40, 46)


def four_columns(
    degraded: torch.Tensor, direct: torch.Tensor, sampled: torch.Tensor, original: torch.Tensor | None, rows: int = 8
) -> Image.Image:
    """The four images of each sample side by side, a row each: degraded | direct | sampled | original.

    Generated images have no original (None): three columns then, of which the first is x_T as drawn. Each tensor is
    uint8 (B, C, H, W) with C = 1 or 3, all of one shape; the first `rows` samples are shown. Small images are enlarged
    by a whole factor without smoothing, so every pixel shown is a pixel of the data.
    Raises ValueError for other tensors.
    """
    names = COLUMNS if original is not None else GENERATED
    batches = (degraded, direct, sampled, original) if original is not None else (degraded, direct, sampled)
    images = dict(zip(names, batches, strict=True))
    return _sheet([(name, _checked(name, batch, degraded)[:rows]) for name, batch in images.items()])


def strip(iterates: Sequence[tuple[int, torch.Tensor]], columns: int = 10, rows: int = 8) -> Image.Image:
    """A sampling run from left to right: the iterates x_s at `columns` values of s, labelled, a row per sample.

    `iterates` are pairs of s and the uint8 (B, C, H, W) images x_s, in the order in which the sampler made them (s
    falls from T to 0). The first and the last are always shown, those between evenly spaced.
    Raises ValueError where there is nothing to show or the shapes differ.
    """
    if not iterates:
        raise ValueError("iterates = []: a strip needs at least one (s, images)")
    if columns < 1:
        raise ValueError(f"columns = {columns}: allowed: at least 1")
    first = iterates[0][1]
    chosen = np.unique(np.linspace(0, len(iterates) - 1, min(columns, len(iterates))).round().astype(int))
    picked = [(f"s = {iterates[i][0]}", _checked(f"x_{iterates[i][0]}", iterates[i][1], first)) for i in chosen]
    return _sheet([(label, images[:rows]) for label, images in picked])


def _checked(name: str, images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        shown = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"{name} = {shown}: allowed: a uint8 tensor (B, C, H, W) with C = 1 or 3 and B >= 1")
    if images.shape != like.shape:
        raise ValueError(f"{name} = {tuple(images.shape)}: all columns must have one shape, here {tuple(like.shape)}")
    return images


def _sheet(columns: Sequence[tuple[str, torch.Tensor]]) -> Image.Image:
    """Labelled columns of images on white paper."""
    rows, _, height, width = columns[0][1].shape
    zoom = _zoom(width, height, len(columns))
    font = ImageFont.load_default(size=_FONT)
    # A column is at least as wide as its label, or labels of narrow columns would run into each other.
    cell = max(width * zoom, *(int(font.getlength(label)) + 4 for label, _ in columns))
    size = (
        2 * _MARGIN + len(columns) * cell + (len(columns) - 1) * _GAP,
        _HEAD + _MARGIN + rows * height * zoom + (rows - 1) * _GAP,
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (label, images) in enumerate(columns):
        left = _MARGIN + i * (cell + _GAP)
        draw.text((left + cell / 2, _HEAD / 2), label, _INK, font, anchor="mm")
        for j, pixels in enumerate(_pixels(images)):
            picture = Image.fromarray(pixels).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + (cell - width * zoom) // 2, _HEAD + j * (height * zoom + _GAP)))
    return sheet


def _zoom(width: int, height: int, columns: int) -> int:
    zoom = -(-_READABLE // max(width, height))
    return max(1, min(zoom, _WIDEST // (columns * width)))


def _pixels(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    """(B, C, H, W) as (B, H, W, 3)."""
    colour: npt.NDArray[np.uint8] = images.cpu().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    return colour
