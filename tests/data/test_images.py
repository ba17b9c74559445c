"""Tests of conversion, resizing, augmentation and progress bars."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress
from torch.nn.functional import interpolate, pad

from coldtune.data import DataConfig, augment, to_float, to_uint8
from coldtune.data.progress import Bars, _Rate, show
from coldtune.data.resize import resize

FLIP = DataConfig(image_size=8, flip=True)
CROP = DataConfig(image_size=8, crop_pad=2)
BOTH = DataConfig(image_size=8, crop_pad=2, flip=True)


def batch(count: int = 64, channels: int = 3) -> torch.Tensor:
    """Return images without a black pixel, so that the frame of a crop can be told from the image."""
    return torch.randint(1, 256, (count, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeds(count: int) -> torch.Tensor:
    return torch.randint(-(2**62), 2**62, (count,), generator=torch.Generator().manual_seed(1))


def test_to_float_all_256_levels_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_float(levels)
    assert floats.dtype == torch.float32
    assert (floats[0], floats[-1]) == (-1.0, 1.0)
    assert torch.allclose(floats, torch.linspace(-1, 1, 256), atol=1e-6)
    assert torch.equal(to_uint8(floats), levels)


def test_to_uint8_rounds_and_clamps() -> None:
    x = torch.tensor([-7.0, -1.0, 1.0, 7.0, 100.4 / 127.5 - 1, 100.6 / 127.5 - 1], dtype=torch.float64)
    assert to_uint8(x).tolist() == [0, 0, 255, 255, 100, 101]


def test_conversions_do_not_change_their_input() -> None:
    x = torch.zeros(3)
    to_uint8(x)
    assert torch.equal(x, torch.zeros(3))
    with pytest.raises(ValueError, match=r"torch\.float32; allowed: torch\.uint8"):
        to_float(x)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 12, 16, 40])
def test_resize_constant_image_stays_constant(mode: str, channels: int, size: int) -> None:
    images = np.full((2, channels, 16, 16), 173, dtype=np.uint8)
    assert np.array_equal(resize(images, size, mode), np.full((2, channels, size, size), 173))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [8, 12, 20, 32])
def test_resize_agrees_with_antialiased_interpolation(mode: str, size: int) -> None:
    """torch's float filters do not round between passes, so levels differ by up to 1.5. Extreme levels would clip."""
    images = np.random.default_rng(0).integers(64, 192, (4, 3, 16, 16), dtype=np.uint8)
    expected = interpolate(torch.from_numpy(images).double(), (size, size), mode=mode, antialias=True)
    assert np.abs(resize(images, size, mode) - expected.numpy()).max() < 1.5


def test_resize_nearest_repeats_pixels_and_same_size_changes_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    assert np.array_equal(resize(images, 32, "nearest"), images.repeat(2, axis=2).repeat(2, axis=3))
    for mode in ("bilinear", "bicubic", "nearest"):
        assert np.array_equal(resize(images, 16, mode), images)


def test_augment_switched_off_returns_the_images() -> None:
    images = batch()
    assert augment(images, DataConfig(image_size=8), seeds(64)) is images


def test_augment_flip_mirrors_half_and_twice_is_the_identity() -> None:
    images, some = batch(4000, 1), seeds(4000)
    once = augment(images, FLIP, some)
    flipped = (once == images.flip(-1)).flatten(1).all(1)
    kept = (once == images).flatten(1).all(1)
    assert torch.equal(flipped, ~kept)
    assert abs(int(flipped.sum()) - 2000) < 4 * 4000**0.5 / 2
    assert torch.equal(augment(once, FLIP, some), images)


@pytest.mark.parametrize("config", [CROP, BOTH])
def test_augment_crop_is_a_uniform_window_of_the_framed_image(config: DataConfig) -> None:
    images = batch(1000)
    out = augment(images, config, seeds(1000))
    framed = pad(images, (2, 2, 2, 2))
    counts = {}
    for mirror in (False, True) if config.flip else (False,):
        for row in range(5):
            for column in range(5):
                window = framed[:, :, row : row + 8, column : column + 8]
                hit = (out == (window.flip(-1) if mirror else window)).flatten(1).all(1)
                counts[row, column, mirror] = int(hit.sum())
    assert sum(counts.values()) == 1000
    # All windows are equally likely. The bound is the mean of chi-squared and four standard deviations.
    expected = 1000 / len(counts)
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi2 < len(counts) + 4 * (2 * len(counts)) ** 0.5


@given(st.permutations(range(12)), st.integers(1, 11))
@settings(max_examples=20, deadline=None)
def test_augment_result_does_not_depend_on_the_batch(order: list[int], cut: int) -> None:
    images, some = batch(12), seeds(12)
    whole = augment(images, BOTH, some)
    parts = [augment(images[i], BOTH, some[i]) for i in (order[:cut], order[cut:])]
    assert torch.equal(torch.cat(parts), whole[order])
    assert whole.dtype == torch.uint8
    assert whole.is_contiguous()


def test_augment_does_not_change_its_input() -> None:
    images = batch()
    augment(images, BOTH, seeds(64))
    assert torch.equal(images, batch())


def test_progress_on_a_terminal_shows_count_and_total() -> None:
    out = io.StringIO()
    with Progress("{task.description}", _Rate(), console=Console(file=out, force_terminal=True, width=80)) as progress:
        advance = Bars(progress).start("decode", 60_000, "images")
        advance(30_000)
        advance(15_000)
    assert "decode" in out.getvalue()
    assert "45,000/60,000 images" in out.getvalue()


@pytest.mark.parametrize("enabled", [True, False])
def test_progress_without_a_terminal_is_silent(enabled: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with show(enabled) as bars:
        bars.start("decode", 10, "images")(10)
    assert capsys.readouterr() == ("", "")
