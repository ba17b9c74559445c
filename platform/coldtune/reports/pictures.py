"""Pictures of restorations: the paper's four columns, and a sampling run from x_T to x_0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

COLUMNS = ("degraded", "direct", "sampled", "original")
GENERATED = ("x_T", "direct", "sampled")

_READABLE = 112  # pixels: smaller images are enlarged by a whole factor to at least this size
_WIDEST = 2400  # pixels: a strip enlarges its images less if it would become wider than this
_GAP = 6
_MARGIN = 12
_HEAD = 30
_FONT = 17
PAPER = (255, 255, 255)
INK = (40, 40, 46)


def four_columns(
    degraded: torch.Tensor, direct: torch.Tensor, sampled: torch.Tensor, original: torch.Tensor | None, rows: int = 8
) -> Image.Image:
    """Draw the four images of each sample side by side, a row for each: degraded | direct | sampled | original.

    All tensors are uint8 (B, C, H, W) with C = 1 or 3, and have the same shape. Small images are enlarged by a whole
    factor without smoothing, so every pixel shown is a pixel of the data.

    Args:
        degraded: The input of the restorer, x_T.
        direct: The images that the restorer makes of x_T in one step.
        sampled: The images that the trial's own sampler makes of x_T.
        original: The images x_0, or None for generated images. The sheet then has three columns, and the first is
            the x_T that the prior drew.
        rows: The number of samples shown, from the start of the batch.

    Raises:
        ValueError: If a tensor has another type or shape.
    """
    names = COLUMNS if original is not None else GENERATED
    batches = (degraded, direct, sampled, original) if original is not None else (degraded, direct, sampled)
    images = dict(zip(names, batches, strict=True))
    return _sheet([(name, _checked(name, batch, degraded)[:rows]) for name, batch in images.items()])


def strip(iterates: Sequence[tuple[int, torch.Tensor]], columns: int = 10, rows: int = 8) -> Image.Image:
    """Draw a sampling run from left to right: iterates x_s under their values of s, a row for each sample.

    Args:
        iterates: Pairs of s and the images x_s, uint8 (B, C, H, W), in the order of the sampler: s falls from T to 0.
        columns: The number of iterates shown, evenly spaced. The first iterate is always shown, and so is the last if
            there are at least two columns.
        rows: The number of samples shown, from the start of the batch.

    Raises:
        ValueError: If there is nothing to show, or the shapes differ.
    """
    if not iterates:
        raise ValueError("iterates = []: a strip needs at least one (s, images)")
    if columns < 1:
        raise ValueError(f"columns = {columns}: allowed: at least 1")
    first = iterates[0][1]
    chosen = np.unique(np.linspace(0, len(iterates) - 1, min(columns, len(iterates))).round().astype(int))
    picked = [(f"s = {iterates[i][0]}", _checked(f"x_{iterates[i][0]}", iterates[i][1], first)) for i in chosen]
    return _sheet([(label, images[:rows]) for label, images in picked])


def side_by_side(images: torch.Tensor, columns: int = 4) -> Image.Image:
    """Draw images without labels in rows of `columns`, for a page that shows such a picture of several trials.

    Args:
        images: uint8 (B, C, H, W) with C = 1 or 3. Small images are enlarged by a whole factor.

    Raises:
        ValueError: If the tensor has another type or shape.
    """
    pixels = to_pixels(_checked("images", images, images))
    count, height, width, _ = pixels.shape
    zoom, across = _zoom(width, height, columns), min(columns, count)
    right, down = width * zoom + _GAP, height * zoom + _GAP
    sheet = Image.new("RGB", (across * right - _GAP, -(-count // across) * down - _GAP), PAPER)
    for i, image in enumerate(pixels):
        picture = Image.fromarray(image).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
        sheet.paste(picture, (i % across * right, i // across * down))
    return sheet


def _checked(name: str, images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        shown = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"{name} = {shown}: allowed: a uint8 tensor (B, C, H, W) with C = 1 or 3 and B >= 1")
    if images.shape != like.shape:
        raise ValueError(f"{name} = {tuple(images.shape)}: all columns must have one shape, here {tuple(like.shape)}")
    return images


def _sheet(columns: Sequence[tuple[str, torch.Tensor]]) -> Image.Image:
    """Draw labelled columns of images on a white background."""
    rows, _, height, width = columns[0][1].shape
    zoom = _zoom(width, height, len(columns))
    font = ImageFont.load_default(size=_FONT)
    # A column is at least as wide as its label. Otherwise the labels of narrow columns would overlap.
    cell = max(width * zoom, *(int(font.getlength(label)) + 4 for label, _ in columns))
    size = (
        2 * _MARGIN + len(columns) * cell + (len(columns) - 1) * _GAP,
        _HEAD + _MARGIN + rows * height * zoom + (rows - 1) * _GAP,
    )
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (label, images) in enumerate(columns):
        left = _MARGIN + i * (cell + _GAP)
        draw.text((left + cell / 2, _HEAD / 2), label, INK, font, anchor="mm")
        for j, pixels in enumerate(to_pixels(images)):
            picture = Image.fromarray(pixels).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + (cell - width * zoom) // 2, _HEAD + j * (height * zoom + _GAP)))
    return sheet


def _zoom(width: int, height: int, columns: int) -> int:
    zoom = -(-_READABLE // max(width, height))
    return max(1, min(zoom, _WIDEST // (columns * width)))


def to_pixels(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Convert uint8 (B, C, H, W) with C = 1 or 3 to uint8 (B, H, W, 3)."""
    colour: npt.NDArray[np.uint8] = images.cpu().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    return colour


def to_picture(image: torch.Tensor) -> Image.Image:
    """Return an image, uint8 (C, H, W) with C = 1 or 3, as a Pillow image of mode "L" or "RGB"."""
    pixels = image.cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
