"""Retrieval scores against scikit-learn's nearest neighbours."""

from __future__ import annotations

import torch
from sklearn.neighbors import NearestNeighbors

from coldtune.data import Dataset
from coldtune.metrics.retrieval import label_retrieval, nearest, view_retrieval
from coldtune.metrics.self_supervised import make_view


def test_nearest_neighbours_equal_scikit_learns(digits: Dataset) -> None:
    split = digits.split("validation")
    pixels = split.images.double().flatten(1) / 255
    neighbours = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(pixels.numpy())
    expected = torch.from_numpy(neighbours.kneighbors(pixels.numpy(), return_distance=False)[:, 1])
    assert torch.equal(nearest(pixels, pixels, leave_out_self=True), expected)
    right = float((split.labels[expected] == split.labels).double().mean())
    assert label_retrieval(pixels, split.labels) == right > 0.9


def test_view_retrieval_equals_scikit_learns_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(700, 8, generator=generator, dtype=torch.float64)
    second = first + torch.randn(700, 8, generator=generator, dtype=torch.float64)
    neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(second.numpy())
    found = torch.from_numpy(neighbours.kneighbors(first.numpy(), return_distance=False)[:, 0])
    assert (
        view_retrieval(first, second) == float((found == torch.arange(700)).double().mean()) > 10 / 700
    )  # ten times chance
    assert view_retrieval(first, first) == 1


def test_view_is_a_window_of_whole_pixels_with_another_brightness_and_contrast() -> None:
    x = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    views = make_view(x, torch.Generator().manual_seed(1))
    assert views.shape == (50, 1, 6, 6)
    found = 0
    for image, view in zip(x, views, strict=True):
        for r in range(3):
            for c in range(3):
                pair = torch.stack([image[0, r : r + 6, c : c + 6].flatten(), view.flatten()])
                found += bool(torch.corrcoef(pair)[0, 1] > 0.9999)
    assert found == 50
