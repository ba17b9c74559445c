"""Sheets of restorations and strips of sampling runs, checked pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from coldtune.reports.pictures import COLUMNS, four_columns, side_by_side, strip


def constant(value: int, batch: int = 3, channels: int = 1, size: int = 16) -> torch.Tensor:
    return torch.full((batch, channels, size, size), value, dtype=torch.uint8)


def blocks(sheet: Image.Image) -> list[int]:
    """Return the grey values of the uniform areas at half the height of a sheet, from left to right."""
    row = np.asarray(sheet.convert("L"))[sheet.height // 2]
    edges = np.flatnonzero(np.diff(row.astype(int))) + 1
    return [int(part[0]) for part in np.split(row, edges) if len(part) > 20 and part[0] != 255]


def test_four_columns_have_the_order_of_the_paper() -> None:
    assert COLUMNS == ("degraded", "direct", "sampled", "original")
    sheet = four_columns(constant(10), constant(60), constant(120), constant(200))
    assert blocks(sheet) == [10, 60, 120, 200]


def test_strip_shows_evenly_spaced_iterates_from_first_to_last() -> None:
    iterates = [(s, constant(2 * s)) for s in range(100, -1, -1)]
    assert blocks(strip(iterates, columns=5)) == [200, 150, 100, 50, 0]
    assert blocks(strip(iterates[:3], columns=5)) == [200, 198, 196]
    assert blocks(strip(iterates, columns=1)) == [200]


@pytest.mark.parametrize("size", [8, 16, 28, 33, 64, 128, 200])
def test_four_columns_every_pixel_shown_is_a_pixel_of_the_data(size: int) -> None:
    image = torch.randint(0, 255, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flat = torch.zeros_like(image)
    sheet = np.asarray(four_columns(flat, flat, flat, image))
    zoom = max(1, -(-112 // size))
    assert size * zoom >= 112
    want = image[0].permute(1, 2, 0).numpy().repeat(zoom, 0).repeat(zoom, 1)
    height, width = want.shape[:2]
    found = sheet[-12 - height : -12, :]
    lefts = [left for left in range(found.shape[1] - width + 1) if (found[:, left : left + width] == want).all()]
    assert len(lefts) == 1


def test_four_columns_many_samples_only_first_rows_are_shown() -> None:
    few, many = (four_columns(*[constant(0, batch=n)] * 4, rows=5) for n in (5, 50))
    assert few.size == many.size
    assert four_columns(*[constant(0, batch=2)] * 4).height < few.height


def test_strip_wide_images_fit_a_screen() -> None:
    iterates = [(s, constant(0, size=128)) for s in range(10)]
    assert strip(iterates).width <= 2500
    assert strip([(s, constant(0, size=16)) for s in range(40)], columns=40).width <= 3600


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(3, 1, 16, 16),
        constant(0)[0],
        constant(0, channels=2),
        constant(0, batch=0),
        constant(0, size=8),
        constant(0, batch=2),
    ],
)
def test_pictures_wrong_tensor_is_named(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"sampled = .*(allowed: a uint8 tensor|must have one shape)"):
        four_columns(constant(0), constant(0), wrong, constant(0))
    with pytest.raises(ValueError, match="x_0 = "):
        strip([(1, constant(0)), (0, wrong)])


def test_strip_without_iterates_or_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        strip([])
    with pytest.raises(ValueError, match="columns = 0"):
        strip([(0, constant(0))], columns=0)


def test_side_by_side_pixels_are_those_of_the_images() -> None:
    images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1).expand(-1, 1, 4, 4) * 40
    sheet = np.asarray(side_by_side(images, columns=4))
    side = 112  # a multiple of 4
    assert sheet.shape == (2 * side + 6, 4 * side + 3 * 6, 3)
    for i in range(6):
        top, left = i // 4 * (side + 6), i % 4 * (side + 6)
        assert (sheet[top : top + side, left : left + side] == 40 * i).all()
    assert (sheet[side + 6 :, 2 * (side + 6) :] == 255).all(), "two places stay empty"
