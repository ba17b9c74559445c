from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from coldtune.data import Dataset
from coldtune.metrics import extract_features
from coldtune.metrics.classifiers import WEIGHTS, accuracy, load_classifier
from coldtune.metrics.train_classifier import RECIPES, mirrored, shifted, train, write


def test_train_short_recipe_learns_and_repeats_exactly(digits: Dataset, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPES["digits"], epochs=3)
    data, test = digits.split("train"), digits.split("test")
    first, again = (train(recipe, data.images, data.labels, seed=4) for _ in range(2))
    for one, other in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert accuracy(first, test.images, test.labels) > 0.5  # chance is 0.1
    write("short", first, {}, tmp_path)
    features = extract_features(load_classifier("short", tmp_path), test.images)
    with torch.no_grad():
        torch.testing.assert_close(features, first.features(test.images).double(), rtol=1e-5, atol=1e-5)


def test_shifted_moves_by_whole_pixels() -> None:
    x = torch.arange(2.0, 27.0).view(1, 1, 5, 5).repeat(200, 1, 1, 1)
    moved = shifted(x, 1, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x[:1], (1, 1, 1, 1), value=-1.0)
    windows = [padded[0, :, r : r + 5, c : c + 5] for r in range(3) for c in range(3)]
    found = [sum(torch.equal(image, window) for image in moved) for window in windows]
    assert sum(found) == 200
    assert min(found) > 0


def test_shifted_and_mirrored_photos_have_no_dark_border() -> None:
    x = torch.arange(1.0, 26.0).view(1, 1, 5, 5).repeat(200, 1, 1, 1)
    moved = shifted(x, 1, torch.Generator().manual_seed(0), reflect=True)
    # A shift by 1 repeats the second value: [2, 1, 2, 3, 4] if the border is on the left.
    row = x[0, 0, 2].tolist()
    windows = [row, [row[1], *row[:-1]], [*row[1:], row[-2]]]
    allowed = [[value + rows for value in window] for window in windows for rows in (-5, 0, 5)]
    assert all(image[0, 2].tolist() in allowed for image in moved)
    assert float(moved.min()) >= 1
    both = mirrored(x, torch.Generator().manual_seed(0))
    flipped = sum(torch.equal(image, x[0].flip(-1)) for image in both)
    assert flipped + sum(torch.equal(image, x[0]) for image in both) == 200
    assert 65 < flipped < 135  # 100 +- 5 standard deviations of a fair coin


@pytest.mark.slow
def test_train_full_recipe_equals_shipped_accuracy(digits: Dataset) -> None:
    data, test = digits.split("train"), digits.split("test")
    classifier = train(RECIPES["digits"], data.images, data.labels)
    card = json.loads((WEIGHTS / "digits.json").read_text())
    # Another machine or torch rounds differently, so expect the same accuracy within its standard error of 0.6 %.
    assert accuracy(classifier, test.images, test.labels) == pytest.approx(card["accuracy"]["test"], abs=0.012)
