"""Rules that every registered metric obeys, and the proof that one line in the registry adds a metric."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coldtune.metrics import (
    DISTANCES,
    IMAGE_SCORES,
    Distance,
    Extractor,
    ImageScore,
    Judgement,
    PerImageScore,
    Protocol,
    Reference,
    compare,
    distances,
    estimates,
    higher_is_better,
    judge,
)
from coldtune.metrics.descriptors import FeatureSets
from coldtune.metrics.protocol import LEAST_IMAGES
from coldtune.metrics.registry import per_image_scores


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y = _random(80, 6) + 0.3, _random(90, 6, seed=1)


@pytest.mark.parametrize("name", list(DISTANCES))
def test_distance_direction_matches_descriptor(name: str) -> None:
    near, far = Y[:80] + 0.1, Y[:80] * 2 + 2
    better, worse = (distances(x, Y, names=[name])[name] for x in (near, far))
    assert (better > worse) == DISTANCES[name].higher_is_better == higher_is_better(name)


@pytest.mark.parametrize("name", list(DISTANCES))
def test_distance_estimate_is_value_with_influences_and_interval(name: str) -> None:
    estimate = estimates(X, Y, names=[name], seed=4)[name]
    interval, (low, high) = estimate.interval, DISTANCES[name].bounds
    assert interval.value == pytest.approx(distances(X, Y, names=[name], seed=4)[name], rel=1e-9)
    assert low <= interval.low <= interval.value <= interval.high <= high
    assert (estimate.influences.shape, estimate.influences.dtype) == ((80,), torch.float64)
    assert float(estimate.influences.sum()) == pytest.approx(0, abs=1e-9 * float(estimate.influences.abs().sum()))


@pytest.mark.parametrize("name", list(DISTANCES))
def test_distance_needs_reference_features_only_if_descriptor_says_so(name: str) -> None:
    reference = Reference.of(Y)
    if DISTANCES[name].needs_reference_features:
        with pytest.raises(ValueError, match=f"{name}: needs the features of the reference's images"):
            estimates(X, None, reference, [name])
    else:
        assert distances(X, None, reference, [name]) == distances(X, Y, names=[name])


@pytest.mark.parametrize("name", list(DISTANCES))
def test_distance_accepts_least_images(name: str) -> None:
    estimates(X[:LEAST_IMAGES], Y, names=[name])
    estimates(X, Y[:LEAST_IMAGES], names=[name])


def _image_pairs(noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(9, 3, 16, 16, generator=generator, dtype=torch.float64)
    change = torch.rand(clean.shape, generator=generator, dtype=torch.float64)
    return (clean + noise * change).clamp(0, 1), clean


@pytest.mark.parametrize("name", list(IMAGE_SCORES))
def test_image_score_direction_matches_descriptor(name: str) -> None:
    score = IMAGE_SCORES[name]
    means = [float(score.per_image.compute(*_image_pairs(noise)).mean()) for noise in (0.05, 0.4)]
    assert (means[0] > means[1]) == score.per_image.higher_is_better
    better, worse = map(score.of_mean, means)
    assert (better > worse) == score.higher_is_better == higher_is_better(name)


@pytest.mark.parametrize("name", list(per_image_scores()))
def test_per_image_score_does_not_depend_on_other_images(name: str) -> None:
    images, clean = _image_pairs(0.3)
    compute = per_image_scores()[name].compute
    whole = compute(images, clean)
    assert (whole.shape, whole.dtype) == ((9,), torch.float64)
    parts = [compute(a, b) for a, b in zip(images.split(2), clean.split(2), strict=True)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=1e-12)


def test_higher_is_better_unknown_name_is_false() -> None:
    assert not higher_is_better("nfe")


def _shift(sets: FeatureSets) -> tuple[float, torch.Tensor]:
    """Compute the distance of the means in the first dimension, and the influences on it."""
    first = sets.features[:, 0]
    shift = first.mean() - sets.reference.mean[0]
    return float(shift.abs()), shift.sign() * (first - first.mean())


def _largest_error(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).abs().amax((1, 2, 3))


def test_registry_one_line_adds_a_metric(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    distance = Distance(value=lambda sets: _shift(sets)[0], estimate=_shift, needs_reference_features=False)
    score = ImageScore(
        PerImageScore("largest_error", _largest_error), of_mean=lambda mean: 1 - mean, higher_is_better=True
    )
    monkeypatch.setitem(DISTANCES, "shift", distance)
    monkeypatch.setitem(IMAGE_SCORES, "closeness", score)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(50, 200, (40, 1, 12, 12), generator=generator, dtype=torch.uint8)
    extractor = Extractor("pixels", lambda batch: batch[:, 0, 0, :3].double() / 255, 3, "0" * 64, "as given")
    protocol = Protocol(
        extractor="pixels", extractor_sha256="0" * 64, extractor_input="as given", dim=3, dataset="noise",
        dataset_fingerprint="1" * 64, image_shape=(1, 12, 12), resize="none", split="test", num_images=40,
        reference_images=40, seed=0,
    )  # fmt: skip
    reference = Reference.of(extractor(clean))
    judged = []
    for name, change in (("a", 10), ("b", 50)):
        judgement = judge(clean + change, clean, extractor, reference, protocol, names=["shift"])
        (tmp_path / name).mkdir()
        judgement.save(tmp_path / name)
        judged.append(Judgement.load(tmp_path / name))
    assert judged[0].values["shift"].value == pytest.approx(10 / 255)
    assert judged[0].values["closeness"].value == pytest.approx(1 - 10 / 255)
    for metric in ("shift", "closeness"):
        comparison = compare(*judged, metric)
        assert comparison.better == "A"
        assert str(comparison).startswith(f"A is better than B: {metric.upper()} ")
    assert comparison.per_image().startswith("LARGEST_ERROR is smaller for A on 40 of 40 images")
