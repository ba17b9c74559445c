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
    """Images that can be told apart: image i is filled with the value i."""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 8, 8).contiguous()


def blur() -> Degradation:
    return build_degradation(BLUR, (1, 8, 8))


def batches(images: torch.Tensor, data: DataConfig = PLAIN, seed: int = 0) -> TrainingBatches:
    return TrainingBatches(images, data, blur(), seed, CPU)


def shown(x0: torch.Tensor) -> list[int]:
    return ((x0[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_every_epoch_shows_each_image_once_in_its_own_order() -> None:
    stream = batches(numbered(30))
    epochs = [shown(stream.at(30 * epoch, 30 * (epoch + 1)).x0) for epoch in range(4)]
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_another_seed_is_another_order_and_other_levels() -> None:
    one, two = (batches(numbered(30), seed=seed).at(0, 30) for seed in (0, 1))
    assert shown(one.x0) != shown(two.x0)
    assert not torch.equal(one.t, two.t)


@settings(deadline=None)
@given(st.integers(0, 70), st.integers(0, 70), st.integers(0, 70))
def test_a_batch_is_the_same_however_it_is_cut(first: int, second: int, third: int) -> None:
    """Over ends of epochs too (25 images), in any order of asking, with augmentation."""
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


def test_levels_are_uniform_over_all_severities() -> None:
    t = batches(numbered(30)).at(0, 50_000).t
    counts = torch.bincount(t, minlength=6)
    assert counts[0] == 0
    assert len(counts) == 6
    # Five standard deviations of a binomial count with p = 1/5.
    assert (counts[1:] - 10_000).abs().max() < 5 * (50_000 * 0.2 * 0.8) ** 0.5


def test_an_image_gets_a_new_level_at_every_visit() -> None:
    stream = batches(numbered(1))
    assert len(set(stream.at(0, 200).t.tolist())) == 5


def test_the_degraded_image_belongs_to_the_clean_one() -> None:
    batch = batches(numbered(30), AUGMENTED).at(0, 40)
    torch.testing.assert_close(batch.x_t, blur()(batch.x0, batch.t, None), rtol=0, atol=0)
    assert batch.x0.dtype == batch.x_t.dtype == torch.float32
    assert not batch.x_t.requires_grad


def test_augmentation_varies_an_image_between_visits(digits: Dataset) -> None:
    image = digits.split("train").images[:1]
    x0 = batches(image, AUGMENTED).at(0, 50).x0
    assert len(x0.unique(dim=0)) > 10
    assert len(batches(image, PLAIN).at(0, 50).x0.unique(dim=0)) == 1


@pytest.mark.parametrize("size", [3, 5, 17, 30, 100])
def test_the_validation_grid_spreads_levels_evenly_over_distinct_images(size: int) -> None:
    grid = ValidationGrid(numbered(30), blur(), size, CPU)
    assert grid.size == min(size, 30)
    batch = grid.at(0, grid.size)
    assert len(set(shown(batch.x0))) == grid.size
    counts = torch.bincount(batch.t, minlength=6)[1:]
    assert counts.sum() == grid.size
    assert counts.max() - counts.min() <= 1
    torch.testing.assert_close(batch.x_t, blur()(batch.x0, batch.t, None))


def test_the_validation_grid_does_not_augment_or_depend_on_a_run() -> None:
    images = numbered(30)
    batch = ValidationGrid(images, blur(), 30, CPU).at(0, 30)
    clean = to_float(images)
    assert all(any(torch.equal(x, y) for y in clean) for x in batch.x0)
