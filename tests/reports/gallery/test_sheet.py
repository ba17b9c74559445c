"""The layout of labelled sheets, measured in pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coldtune.reports.gallery.sheet import Row, sheet


def flat(value: int, size: int = 32) -> torch.Tensor:
    """Return an image in a shade of red that no text has."""
    image = torch.zeros(3, size, size, dtype=torch.uint8)
    image[0] = value
    return image


def areas(picture, value: int) -> tuple[int, tuple[int, int, int, int]]:
    """Return how many pixels have exactly this red, and their bounding box: left, top, right, bottom."""
    rows, columns = np.nonzero((np.asarray(picture) == (value, 0, 0)).all(axis=-1))
    return len(rows), (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))


def test_sheet_small_image_is_enlarged_by_a_whole_factor():
    count, (left, top, right, bottom) = areas(sheet([Row([flat(99)])]), 99)
    assert count == 96 * 96 == (right - left + 1) * (bottom - top + 1)


def test_sheet_large_image_keeps_every_pixel():
    image = torch.randint(100, 256, (3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = sheet([Row([flat(99, size=128), image])])
    _, (_, top, right, _) = areas(picture, 99)
    start = right + 7
    shown = np.asarray(picture)[top : top + 128, start : start + 128]
    assert np.array_equal(shown, image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("cell", [16, 64])
def test_sheet_cell_argument_sets_the_size_of_an_image(cell):
    count, _ = areas(sheet([Row([flat(99)])], cell=cell), 99)
    assert count == cell * cell


def test_sheet_labels_and_captions_cover_no_image():
    rows = [Row([flat(60), flat(70)], "a label\nof two lines", ["one", "two"]), Row([flat(80), flat(90)], "b")]
    picture = sheet(rows, ["first", "second"])
    boxes = {value: areas(picture, value) for value in (60, 70, 80, 90)}
    # No image is covered, and rows and columns are aligned.
    assert {count for count, _ in boxes.values()} == {96 * 96}
    left, top, right, bottom = (int(edge) for edge in boxes[60][1])
    assert boxes[80][1][0] == left
    assert boxes[70][1][1] == top
    ink = np.asarray(picture).max(axis=-1) < 50
    assert ink[:, : left - 1].any()
    assert ink[: top - 1, left:].any()
    assert ink[bottom + 1 : boxes[80][1][1] - 1, left : right + 1].any()


def test_sheet_empty_place_is_dashed_only_before_an_image():
    dashed = np.asarray(sheet([Row([flat(99), None, flat(99)])]))
    ended = np.asarray(sheet([Row([flat(99), flat(99), None])]))
    assert (dashed == 170).all(axis=-1).any()
    assert not (ended == 170).all(axis=-1).any()


def test_sheet_mode_is_grey_only_if_all_images_are_grey():
    assert sheet([Row([flat(9)[:1]], "label")]).mode == "L"
    assert sheet([Row([flat(9)], "label")]).mode == "RGB"
