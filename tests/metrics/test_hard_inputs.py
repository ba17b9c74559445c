"""Degenerate sets: fewer images than dimensions, no spread, no images, features that are not finite."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from coldtune.data import Dataset
from coldtune.metrics import (
    DISTANCES,
    Cache,
    Extractor,
    Judgement,
    MemoryCache,
    ProtocolConfig,
    build_extractor,
    estimates,
    extract_features,
    judge,
    reference_features,
    reference_statistics,
    resolve,
)
from coldtune.store.cache import StoreCache
from coldtune.store.store import Store


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _judged(digits: Dataset, made: torch.Tensor, cache: Cache | None = None, n: int | None = None) -> Judgement:
    extractor, images, cache = build_extractor("digits"), digits.split("validation").images, cache or MemoryCache()
    protocol = resolve(ProtocolConfig(num_images=n), extractor, digits)
    reference = reference_statistics(extractor, images, protocol, cache)
    features = reference_features(extractor, images, protocol, cache)
    clean = images[protocol.image_indices()]
    return judge(made[: len(clean)], clean, extractor, reference, protocol, features, tuple(DISTANCES))


def _assert_sound(judgement: Judgement) -> None:
    for name, value in judgement.values.items():
        assert value.low is not None
        assert value.high is not None
        assert all(map(math.isfinite, (value.low, value.value, value.high))), name
        assert value.low <= value.value <= value.high, name


@pytest.mark.parametrize("n", [5, 20, 63])
def test_judge_fewer_images_than_dimensions_is_finite(digits: Dataset, n: int) -> None:
    images = digits.split("validation").images
    generator = torch.Generator().manual_seed(0)
    noise = 40 * torch.randn(images.shape, generator=generator)
    _assert_sound(_judged(digits, (images + noise).round().clamp(0, 255).to(torch.uint8), n=n))


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_judge_constant_images_every_metric_is_finite(digits: Dataset, shade: int) -> None:
    judgement = _judged(digits, torch.full_like(digits.split("validation").images, shade))
    _assert_sound(judgement)
    values = judgement.values
    # All features are the same point. No reference vector lies in its ball of radius 0, and all images are alike.
    assert values["recall"].value == 0
    assert values["precision"].value in (0, 1)
    for name in ("fid", "fid_infinity", "kid", "mind"):
        assert values[name].value > 0
        # Other images of this kind would be the same. So only another reference moves the value.
        assert float(judgement.influences[name].abs().max()) < 1e-6 * values[name].value, name
    # Without spread FID has no bias, so it does not depend on N.
    assert values["fid_infinity"].value == pytest.approx(values["fid"].value, rel=1e-6)


def test_estimates_two_points_are_finite() -> None:
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64).repeat(10, 1)
    for name, estimate in estimates(x, x + 1, None).items():
        interval = estimate.interval
        assert interval.low <= interval.value <= interval.high, name
        assert bool(torch.isfinite(estimate.influences).all()), name


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", list(DISTANCES))
def test_estimates_not_finite_features_are_counted(name: str, wrong: float) -> None:
    x, y = _random(30, 4), _random(40, 4, seed=1)
    broken = x.clone()
    broken[[2, 9, 11], 1] = wrong
    with pytest.raises(ValueError, match="3 of 30 feature vectors hold NaN or infinity"):
        estimates(broken, y, names=[name])
    with pytest.raises(ValueError, match="3 of 30 feature vectors hold NaN or infinity"):
        estimates(y, broken, names=[name])


def test_judge_network_with_not_finite_features_is_refused(digits: Dataset) -> None:
    good, images = build_extractor("digits"), digits.split("validation").images
    dark = int((images[:100].amin((1, 2, 3)) == images[:100].amax((1, 2, 3))).sum())
    made = images.clone()
    made[[3, 7]] = 0

    def breaks(batch: torch.Tensor) -> torch.Tensor:
        return good(batch) / batch.amax((1, 2, 3))[:, None]

    extractor = Extractor("digits", breaks, 64, good.sha256, good.input)
    protocol = resolve(ProtocolConfig(), extractor, digits)
    reference = reference_statistics(good, images, protocol, MemoryCache())
    with pytest.raises(ValueError, match=f"{2 + dark} of 100 feature vectors hold NaN or infinity"):
        judge(made, images, extractor, reference, protocol, batch_size=100)


def test_judge_no_images_is_refused(digits: Dataset) -> None:
    extractor = build_extractor("digits")
    assert extract_features(extractor, torch.empty(0, 1, 16, 16, dtype=torch.uint8)).shape == (0, 64)
    with pytest.raises(ValueError, match="0 images: the protocol judges num_images = 363"):
        _judged(digits, torch.empty(0, 1, 16, 16, dtype=torch.uint8))


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100], ids=["cut", "overwritten"])
def test_reference_statistics_damaged_store_entry_is_rebuilt(digits: Dataset, tmp_path: Path, damage: bytes) -> None:
    images = digits.split("validation").images
    whole = _judged(digits, images.flip(0), StoreCache(Store(tmp_path)))
    files = list(tmp_path.rglob("*.safetensors"))
    assert sorted({path.relative_to(tmp_path).parts[0] for path in files}) == [
        "reference", "reference_features", "reference_kid", "reference_nearest_4"
    ]  # fmt: skip
    for path in files:
        path.chmod(0o644)
        path.write_bytes(damage or path.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="is damaged"):
        again = _judged(digits, images.flip(0), StoreCache(Store(tmp_path)))
    assert again.values == whole.values
