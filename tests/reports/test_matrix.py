"""Matrices of pictures, checked pixel by pixel, and their animations."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from coldtune.reports.matrix import Axis, Cell, Matrix, Text, animated, colours, difference, draw, still
from coldtune.reports.pictures import PAPER


def flat(*values: int, channels: int = 1, size: int = 16) -> torch.Tensor:
    return torch.stack([torch.full((channels, size, size), value, dtype=torch.uint8) for value in values])


def matrix(cells: list[list[Cell]], across: int = 1, **more: object) -> Matrix:
    rows, columns = (
        Axis([f"{name} {i}" for i in range(n)], name) for name, n in (("r", len(cells)), ("c", len(cells[0])))
    )
    return Matrix(rows, columns, [cells], across, **more)  # type: ignore[arg-type]


def areas(picture: Image.Image, side: int) -> dict[int, tuple[int, int]]:
    """Return by grey value the place (left, top) of each uniform square of this side, without the white paper.

    The edges of letters have single pixels of any grey value.
    """
    grey, found = np.asarray(picture.convert("L")), {}
    for value in set(grey.flatten().tolist()) - {255}:
        there = grey == value
        rows, columns = np.flatnonzero(there.sum(axis=1) >= side), np.flatnonzero(there.sum(axis=0) >= side)
        if len(rows) == len(columns) == side and there[rows[0] : rows[0] + side, columns[0] : columns[0] + side].all():
            found[value] = (int(columns[0]), int(rows[0]))
    return found


def test_matrix_cells_stand_in_rows_and_columns():
    cells = [[Cell(flat(10)), Cell(flat(60))], [Cell(flat(110)), Cell(flat(160))]]
    (picture,) = draw(matrix(cells))
    found = areas(picture, 112)
    assert sorted(found) == [10, 60, 110, 160]
    assert found[10][1] == found[60][1] < found[110][1] == found[160][1]
    assert found[10][0] == found[110][0] < found[60][0] == found[160][0]


def test_matrix_images_of_a_cell_fill_its_rows_first():
    (picture,) = draw(matrix([[Cell(flat(10, 60, 110, 160))]], across=2))
    found = areas(picture, 64)
    assert found[10][1] == found[60][1] < found[110][1] == found[160][1]
    assert found[10][0] == found[110][0] < found[60][0] == found[160][0]


def test_matrix_lead_stands_before_the_first_column():
    (picture,) = draw(matrix([[Cell(flat(10))]], lead=("original", [Cell(flat(200))])))
    found = areas(picture, 112)
    assert found[200][1] == found[10][1]
    assert found[200][0] < found[10][0]


@pytest.mark.parametrize("size", [8, 16, 28, 33, 64, 200])
@pytest.mark.parametrize("channels", [1, 3])
def test_matrix_every_pixel_shown_is_a_pixel_of_the_data(size: int, channels: int):
    generator = torch.Generator().manual_seed(size)
    image = torch.randint(0, 256, (1, channels, size, size), dtype=torch.uint8, generator=generator)
    (picture,) = draw(matrix([[Cell(image)]]))
    zoom = max(1, -(-112 // size))
    want = image[0].expand(3, -1, -1).permute(1, 2, 0).numpy().repeat(zoom, 0).repeat(zoom, 1)
    shown, (height, width) = np.asarray(picture), want.shape[:2]
    places = [
        (top, left)
        for top in range(shown.shape[0] - height + 1)
        for left in np.flatnonzero((shown[top, : shown.shape[1] - width + 1] == want[0, 0]).all(axis=1)).tolist()
        if (shown[top : top + height, left : left + width] == want).all()
    ]
    assert len(places) == 1


def test_matrix_many_columns_enlarge_less_and_stay_below_the_widest():
    (wide,) = draw(matrix([[Cell(flat(10, 60)) for _ in range(40)]], across=2))
    assert wide.width < 5000
    (narrow,) = draw(matrix([[Cell(flat(10, 60))]], across=2))
    assert narrow.width < 600


@pytest.mark.parametrize("label", ["x" * 400, "a long label with very many words " * 12, "größe = 3"])
def test_matrix_long_label_never_touches_an_image_or_the_edge(label: str):
    cells = [[Cell(flat(77), ["trial 1", "FID 1.2"])]]
    (picture,) = draw(Matrix(Axis([label], label), Axis([label], label), [cells], 1, Text(label, [label])))
    assert areas(picture, 112).keys() == {77}
    edge = np.asarray(picture.convert("L")).copy()
    edge[8:-8, 8:-8] = 255
    assert (edge == 255).all()


def test_matrix_cell_without_images_is_framed_and_says_why():
    empty = draw(matrix([[Cell(flat(10)), Cell(None, [])]]))[0]
    said = draw(matrix([[Cell(flat(10)), Cell(None, ["trial 3 pruned"])]]))[0]
    assert empty.size == said.size
    assert (np.asarray(empty) != np.asarray(said)).any()
    assert list(PAPER) != np.asarray(empty)[empty.height // 2].min(axis=0).tolist()


def test_matrix_without_any_images_is_drawn():
    (picture,) = draw(matrix([[Cell(None, ["no trial"])]]))
    assert (np.asarray(picture) != 255).any()


def test_matrix_frames_have_one_size_and_the_animation_ends_with_the_last():
    frames = [[[Cell(flat(value), [line])]] for value, line in ((10, "s = 1,000,000 of 1,000,000"), (60, "s = 1"))]
    pictures = draw(Matrix(Axis([""]), Axis([""]), frames, 1))
    assert len({picture.size for picture in pictures}) == 1
    with Image.open(io.BytesIO(animated(pictures))) as file:
        assert (file.format, file.info["loop"], file.info["default_image"]) == ("PNG", 0, True)
        shown = [frame.convert("RGB").copy() for frame in ImageSequence.Iterator(file)]
    default, *moving = (areas(picture, 112).keys() for picture in shown)
    assert default == {60}, "a viewer that knows no animations shows x_0"
    assert moving == [{10}, {60}]


def test_matrix_still_is_equal_to_the_drawing():
    (picture,) = draw(matrix([[Cell(flat(10, channels=3))]]))
    with Image.open(io.BytesIO(still(picture))) as file:
        assert (np.asarray(file) == np.asarray(picture)).all()


def test_difference_is_signed_and_averages_channels():
    images = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    assert difference(images, torch.zeros_like(images)).unique().tolist() == pytest.approx([1 / 3])
    assert difference(torch.zeros_like(images), images).unique().tolist() == pytest.approx([-1 / 3])


def test_colours_are_white_at_zero_and_full_at_the_scale():
    shown = colours(torch.tensor([[[-0.5, 0.0, 0.5, 2.0]]]), scale=0.5)[0, :, 0].T.tolist()
    assert shown[1] == [255, 255, 255]
    blue, _, red, beyond = shown
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert beyond == red


def test_matrix_of_too_many_pixels_is_refused_before_it_is_drawn():
    cell = Cell(torch.zeros(1, 1, 256, 256, dtype=torch.uint8).expand(64, -1, -1, -1))
    with pytest.raises(ValueError, match=r"the picture would have .* pixels in 10 frames"):
        draw(Matrix(Axis([""] * 9), Axis([""] * 9), [[[cell] * 9] * 9] * 10, 8))
