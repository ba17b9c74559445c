"""The stream of training samples and the validation grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coldtune.data import DataConfig, Dataset, to_float
from coldtune.diffusion import Degradation, build_degradation
from coldtune.training.batches import TrainingBatches, ValidationGrid

CPU = torch.device("cpu")
BLUR = {
    "kind": "blur",
    "steps": 5,
    "kernel_size": 3,
    "padding": "circular",
    "sigma": {"schedule": "constant", "start": 1},
}
PLAIN = DataConfig(name="digits", image_size=8)
AUGMENTED = DataConfig(name="digits", image_size=8, crop_pad=2, flip=True)


def numbered(count: int) -> torch.Tensor:
    """Return images that can be distinguished: image i is filled with the value i."""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 8, 8).contiguous()


def blur() -> Degradation:
    return build_degradation(BLUR, (1, 8, 8))


def batches(images: torch.Tensor, data: DataConfig = PLAIN, seed: int = 0) -> TrainingBatches:
    return TrainingBatches(images, data, blur(), seed, CPU)


def image_numbers(x0: torch.Tensor) -> list[int]:
    """Return the numbers of `numbered` images."""
    return ((x0[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_batches_epoch_contains_each_image_once_in_new_order() -> None:
    stream = batches(numbered(30))
    epochs = [image_numbers(stream.at(30 * epoch, 30 * (epoch + 1)).x0) for epoch in range(4)]
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_batches_other_seed_changes_order_and_levels() -> None:
    first, second = (batches(numbered(30), seed=seed).at(0, 30) for seed in (0, 1))
    assert image_numbers(first.x0) != image_numbers(second.x0)
    assert not torch.equal(first.t, second.t)


@settings(deadline=None)
@given(st.integers(0, 70), st.integers(0, 70), st.integers(0, 70))
def test_batches_split_range_equals_whole_range(first: int, second: int, third: int) -> None:
    """The range may cross ends of epochs (25 images), and its later part may be computed first. With augmentation."""
    a, b, c = sorted((first, second, third))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (25, 1, 8, 8), dtype=torch.uint8, generator=generator)
    if a == b or b == c:
        return
    whole = batches(images, AUGMENTED).at(a, c)
    stream = batches(images, AUGMENTED)
    late, early = stream.at(b, c), stream.at(a, b)
    for name in ("x0", "t"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(early, name), getattr(late, name)]))
    torch.testing.assert_close(whole.x_t, torch.cat([early.x_t, late.x_t]), rtol=0, atol=1e-6)


def test_batches_levels_are_uniform() -> None:
    t = batches(numbered(30)).at(0, 50_000).t
    counts = torch.bincount(t, minlength=6)
    assert counts[0] == 0
    assert len(counts) == 6
    # Five standard deviations of a binomial count with p = 1/5.
    assert (counts[1:] - 10_000).abs().max() < 5 * (50_000 * 0.2 * 0.8) ** 0.5


def test_batches_image_of_every_epoch_gets_new_level() -> None:
    stream = batches(numbered(1))
    assert len(set(stream.at(0, 200).t.tolist())) == 5


def test_batches_degraded_image_matches_clean_image() -> None:
    batch = batches(numbered(30), AUGMENTED).at(0, 40)
    torch.testing.assert_close(batch.x_t, blur()(batch.x0, batch.t, None), rtol=0, atol=0)
    assert batch.x0.dtype == batch.x_t.dtype == torch.float32
    assert not batch.x_t.requires_grad


def test_batches_augmented_image_varies_between_epochs(digits: Dataset) -> None:
    image = digits.split("train").images[:1]
    x0 = batches(image, AUGMENTED).at(0, 50).x0
    assert len(x0.unique(dim=0)) > 10
    assert len(batches(image, PLAIN).at(0, 50).x0.unique(dim=0)) == 1


@pytest.mark.parametrize("size", [3, 5, 17, 30, 100])
def test_validation_grid_levels_are_even_over_distinct_images(size: int) -> None:
    grid = ValidationGrid(numbered(30), blur(), size, CPU)
    assert grid.size == min(size, 30)
    batch = grid.at(0, grid.size)
    assert len(set(image_numbers(batch.x0))) == grid.size
    counts = torch.bincount(batch.t, minlength=6)[1:]
    assert counts.sum() == grid.size
    assert counts.max() - counts.min() <= 1
    torch.testing.assert_close(batch.x_t, blur()(batch.x0, batch.t, None))


def test_validation_grid_images_are_not_augmented() -> None:
    images = numbered(30)
    batch = ValidationGrid(images, blur(), 30, CPU).at(0, 30)
    clean = to_float(images)
    assert all(any(torch.equal(x, y) for y in clean) for x in batch.x0)
