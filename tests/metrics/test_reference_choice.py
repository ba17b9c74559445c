"""The reference of a protocol: which images it has, its keys, and intervals that draw it again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import torch
from scipy.stats import binom, norm

from coldtune.config import identity
from coldtune.data import Dataset
from coldtune.metrics import (
    DISTANCES,
    Interval,
    Judgement,
    MemoryCache,
    Protocol,
    ProtocolConfig,
    Reference,
    build_extractor,
    check_objective,
    check_same,
    compare,
    estimates,
    fid_infinity,
    frechet_influences,
    jackknife_interval,
    judge,
    kid,
    kid_influences,
    mind_influences,
    precision_recall,
    reference_features,
    reference_statistics,
    resolve,
)
from coldtune.metrics.frechet import frechet_reference_influences
from coldtune.metrics.intervals import share_interval, share_interval_of_error
from coldtune.metrics.kid import kid_reference_influences
from coldtune.metrics.protocol import first_half, select_reference


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _resolved(digits: Dataset, **config: Any) -> Protocol:
    return resolve(ProtocolConfig(**config), build_extractor("digits"), digits)


def test_protocol_reference_same_has_the_keys_of_earlier_versions(digits: Dataset) -> None:
    protocol = _resolved(digits)
    parts = {
        name: getattr(protocol, name) for name in Protocol.model_fields if name not in ("reference", "eligible_images")
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    assert protocol.key == hashlib.sha256(text.encode()).hexdigest()
    of_reference = {
        name: parts[name]
        for name in ("version", "extractor", "extractor_sha256", "extractor_input", "dim", "dataset",
                     "dataset_fingerprint", "image_shape", "resize", "split", "reference_images", "moments", "tf32")
    }  # fmt: skip
    text = json.dumps(of_reference, sort_keys=True, separators=(",", ":"))
    assert protocol.reference_key == hashlib.sha256(text.encode()).hexdigest()


def test_protocol_config_reference_same_is_no_part_of_its_identity() -> None:
    assert "reference" not in identity(ProtocolConfig(reference="same"))
    assert identity(ProtocolConfig(reference="train"))["reference"] == "train"


def test_resolve_reference_names_its_images(digits: Dataset) -> None:
    sizes = digits.sizes
    same, other, train = (_resolved(digits, reference=name) for name in ("same", "other", "train"))
    assert (same.num_images, same.reference_images) == (sizes["validation"],) * 2
    assert (other.num_images, other.reference_images) == (-(-sizes["validation"] // 2), sizes["validation"] // 2)
    assert (train.num_images, train.reference_images) == (sizes["validation"], sizes["train"])
    split = digits.split("validation").images
    judged = {tuple(image.flatten().tolist()) for image in split[other.image_indices()]}
    compared = {tuple(image.flatten().tolist()) for image in select_reference(digits, other)}
    assert not judged & compared
    assert judged | compared == {tuple(image.flatten().tolist()) for image in split}
    assert torch.equal(select_reference(digits, same), split)
    assert torch.equal(select_reference(digits, train), digits.split("train").images)
    for protocol in (same, other, train):
        assert f"reference {protocol.reference_images:,} images ({protocol.reference})" in protocol.describe()


def test_resolve_fewer_images_are_chosen_from_the_judged_half(digits: Dataset) -> None:
    other = _resolved(digits, reference="other", num_images=20, seed=3)
    assert len(other.image_indices()) == 20
    assert int(other.image_indices().max()) < other.eligible_images == -(-digits.sizes["validation"] // 2)
    train = _resolved(digits, reference="train", num_images=20, seed=3)
    assert torch.equal(train.image_indices(), _resolved(digits, num_images=20, seed=3).image_indices())
    with pytest.raises(ValueError, match=r"num_images = 200: the first half of the validation split .*: 5\.\.182"):
        _resolved(digits, reference="other", num_images=200)


def test_first_half_keeps_equal_images_together() -> None:
    images = torch.tensor([0, 1, 2, 2, 2, 3], dtype=torch.uint8)[:, None, None, None]
    assert first_half(images) == 5
    assert first_half(images[:2]) == 1
    assert first_half(images[:1]) == 1


def test_reference_key_training_split_is_shared_with_judging_that_split(digits: Dataset) -> None:
    assert _resolved(digits, reference="train").reference_key == _resolved(digits, split="train").reference_key
    keys = {_resolved(digits, reference=name).reference_key for name in ("same", "other", "train")}
    assert len(keys) == 3
    assert _resolved(digits, reference="other", seed=4).reference_key in keys


def test_resolve_reference_that_is_not_independent_is_refused(digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"protocol\.reference = 'train', protocol\.split = 'train'"):
        _resolved(digits, reference="train", split="train")
    with pytest.raises(ValueError, match=r"protocol\.reference = 'other': generated images have no originals"):
        resolve(ProtocolConfig(reference="other"), build_extractor("digits"), digits, "generated")
    assert resolve(ProtocolConfig(reference="train"), build_extractor("digits"), digits, "generated").pairs() is None


def test_check_objective_half_of_a_split_is_named(digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"^protocol\.reference = 'other': a half of the validation split judges 181"):
        check_objective(_resolved(digits, reference="other"))
    check_objective(_resolved(digits, reference="train"))


def _judged(digits: Dataset, sd: float, **config: Any) -> Judgement:
    extractor, cache, protocol = build_extractor("digits"), MemoryCache(), _resolved(digits, **config)
    split = digits.split("validation").images
    noise = torch.randn(split.shape, generator=torch.Generator().manual_seed(0)) * sd
    made = (split + noise).round().clamp(0, 255).to(torch.uint8)[protocol.image_indices()]
    of_reference = (extractor, select_reference(digits, protocol), protocol, cache)
    features = reference_features(*of_reference)
    moments = reference_statistics(*of_reference, features=features)
    clean = split[protocol.image_indices()]
    return judge(made, clean, extractor, moments, protocol, features, tuple(DISTANCES))


def test_judge_other_reference_compares_scores_with_originals(digits: Dataset) -> None:
    """Image scores need pairs, so the reference changes the distances only."""
    same, train = _judged(digits, 5), _judged(digits, 5, reference="train")
    for name in ("ssim", "rmse", "psnr"):
        assert (same.values[name].value, same.values[name].low) == (train.values[name].value, train.values[name].low)
    # Nearly perfect images: nearer to their own originals than an independent sample can be.
    assert same.values["kid"].high < 0 < train.values["kid"].high
    assert same.values["fid"].value < train.values["fid"].value
    with pytest.raises(ValueError, match="they differ in reference"):
        compare(same, train)
    with pytest.raises(ValueError, match="they differ in"):
        check_same([same.protocol, train.protocol])


def test_judgement_load_keeps_influences_of_the_reference(digits: Dataset, tmp_path) -> None:
    judgement = _judged(digits, 20, reference="train")
    judgement.save(tmp_path)
    read = Judgement.load(tmp_path)
    assert read.protocol == judgement.protocol
    assert set(read.reference_influences) == set(DISTANCES)
    for name, influences in judgement.reference_influences.items():
        torch.testing.assert_close(read.reference_influences[name], influences, rtol=1e-6, atol=1e-6)
        assert len(influences) == digits.sizes["train"]
    assert judgement.missing() == []


# --- influences of the reference


@pytest.mark.parametrize(("n", "m", "dim"), [(60, 80, 6), (7, 80, 12), (40, 7, 12), (8, 9, 20)])
def test_frechet_reference_influences_equal_those_of_swapped_sets(n: int, m: int, dim: int) -> None:
    x, y = _random(n, dim) @ _random(dim, dim, seed=1) / 2 + 0.3, _random(m, dim, seed=2) + 0.1
    influences = frechet_reference_influences(Reference.of(y), y, x)
    torch.testing.assert_close(influences, frechet_influences(Reference.of(x), y), rtol=1e-8, atol=1e-8)


def test_kid_and_mind_reference_influences_equal_those_of_swapped_sets() -> None:
    x, y = _random(50, 4) + 0.3, _random(70, 4, seed=1)
    torch.testing.assert_close(kid_reference_influences(x, y, block=16), kid_influences(y, x))
    mind = estimates(x, y, names=["mind"], seed=3, resample_reference=True)["mind"].reference_influences
    torch.testing.assert_close(mind, mind_influences(y, x, 3))


def test_fid_infinity_reference_influences_predict_leaving_an_image_out() -> None:
    x, y = _random(400, 3) * 1.4 + 0.5, _random(3000, 3, seed=1)
    influences = estimates(x, y, names=["fid_infinity"], resample_reference=True)["fid_infinity"].reference_influences
    whole = fid_infinity(x, Reference.of(y))
    rows = range(0, 3000, 100)
    without = [fid_infinity(x, Reference.of(torch.cat([y[:i], y[i + 1 :]]))) for i in rows]
    measured = (whole - torch.tensor(without, dtype=torch.float64)) * 2999
    torch.testing.assert_close(measured, influences[::100], rtol=0.02, atol=0.02 * float(influences.std()))


def test_precision_and_recall_reference_influences_are_those_of_the_jackknife() -> None:
    x, y = _random(40, 3), _random(12, 3, seed=1)
    found = estimates(x, y, names=["precision", "recall"], resample_reference=True)
    left_out = torch.tensor([precision_recall(x, torch.cat([y[:i], y[i + 1 :]]))[0] for i in range(12)])
    decrease = precision_recall(x, y)[0] - left_out
    expected = 11 * (decrease - decrease.mean())
    torch.testing.assert_close(found["precision"].reference_influences, expected.double(), atol=1e-6, rtol=1e-6)
    assert len(found["recall"].reference_influences) == 12


# --- intervals


def _half_width(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def test_jackknife_interval_of_two_means_equals_textbook() -> None:
    """The difference of two means has Welch's error if the samples are independent, and the paired error otherwise."""
    x, y = _random(30) * 2, _random(30, seed=1)
    x = x + 3 * y
    influences, of_reference = x - x.mean(), -(y - y.mean())
    value = float(x.mean() - y.mean())
    welch = float((x.var() / 30 + y.var() / 30).sqrt())
    paired = float((x - y).std() / 30**0.5)
    quantile = norm.ppf(0.975)
    independent = jackknife_interval(value, influences, of_reference)
    together = jackknife_interval(value, influences, of_reference, torch.arange(30))
    assert _half_width(independent) == pytest.approx(quantile * welch, rel=1e-12)
    assert _half_width(together) == pytest.approx(quantile * paired, rel=1e-12)


def test_jackknife_interval_part_of_the_reference_has_closed_form() -> None:
    """If the first n of m numbers are the images, the variance of mean_n - mean_m is V (1 / n - 1 / m)."""
    y = _random(4000)
    x = y[:1000]
    interval = jackknife_interval(0.0, x - x.mean(), -(y - y.mean()), torch.arange(1000))
    assert _half_width(interval) == pytest.approx(norm.ppf(0.975) * (1 / 1000 - 1 / 4000) ** 0.5, rel=0.05)


def test_share_interval_of_error_without_other_sources_is_wilsons() -> None:
    share, count = 0.8, 50
    alone = (share * (1 - share) / (count - 1)) ** 0.5
    expected = share_interval(share, count)
    interval = share_interval_of_error(share, alone, count)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    wider = share_interval_of_error(share, 2**0.5 * alone, count)
    assert (wider.low, wider.high) == pytest.approx((share_interval(share, 25).low, share_interval(share, 25).high))
    assert share_interval_of_error(1.0, 0.0, count) == share_interval(1.0, count)


def _coverage(
    names: tuple[str, ...], n: int, m: int, runs: int, paired: bool, scale: float, noise: float
) -> dict[str, tuple[int, float]]:
    """Draw images, originals and references again and again.

    Returns:
        For each distance, how many intervals contain its mean over all runs, and the ratio of stated to true deviation.
    """
    mix, found = _random(4, 4, seed=10**6) / 2, {name: [] for name in names}
    for seed in range(runs):
        y = _random(m, 4, seed=2 * seed) @ mix
        originals = y[:n] if paired else _random(n, 4, seed=2 * seed + 1) @ mix
        x = scale * originals + noise * _random(n, 4, seed=10**7 + seed) @ mix
        pairs = torch.arange(n) if paired else None
        for name, estimate in estimates(x, y, names=names, resample_reference=True, pairs=pairs).items():
            found[name].append(estimate.interval)
    counted = {}
    for name, intervals in found.items():
        values = torch.tensor([interval.value for interval in intervals], dtype=torch.float64)
        stated = torch.tensor([_half_width(interval) / norm.ppf(0.975) for interval in intervals])
        hits = sum(interval.low <= float(values.mean()) <= interval.high for interval in intervals)
        counted[name] = (hits, float((stated**2).mean().sqrt() / values.std()))
    return counted


# If images nearly equal their originals, the first order of KID vanishes. The second order is then counted up to
# 2^(1/2) times as often as it is there, or twice for pairs.
WIDEST = {"fid": 1.6, "kid": 2.6, "fid_infinity": 1.9, "mind": 1.9}


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("scale", "noise"), [(0.6, 0.3), (1, 0.3)])
def test_intervals_of_drawn_references_cover(paired: bool, scale: float, noise: float) -> None:
    for name, (hits, ratio) in _coverage(("fid", "kid"), 200, 200, 100, paired, scale, noise).items():
        assert hits >= binom.ppf(1e-3, 100, 0.95), name
        assert ratio < WIDEST[name], name


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(200, 200), (100, 300)])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("scale", "noise"), [(0.6, 0.3), (1, 0.1)])
def test_intervals_of_drawn_references_every_distance_covers(
    n: int, m: int, paired: bool, scale: float, noise: float
) -> None:
    for name, (hits, ratio) in _coverage(tuple(WIDEST), n, m, 60, paired, scale, noise).items():
        assert hits >= binom.ppf(1e-3, 60, 0.95), name
        assert ratio < WIDEST[name], name


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("scale", "noise"), [(0.6, 0.3), (1, 0.1), (1.5, 0.3)])
def test_intervals_of_drawn_references_shares_cover(paired: bool, scale: float, noise: float) -> None:
    for name, (hits, ratio) in _coverage(("precision", "recall"), 200, 200, 60, paired, scale, noise).items():
        assert hits >= binom.ppf(1e-3, 60, 0.95), name
        # They are too wide, as Efron and Stein prove. Near 1, the width of Wilson's interval remains without bound.
        assert ratio < 2.5 or scale <= 1, name


def test_interval_of_fixed_reference_misses_an_independent_reference() -> None:
    """This is why the reference is drawn too: the interval of a fixed reference is too narrow for it."""
    values, widths = [], []
    for seed in range(60):
        x, y = _random(200, 4, seed=2 * seed) * 0.5, _random(200, 4, seed=2 * seed + 1)
        values.append(kid(x, y))
        widths.append(_half_width(jackknife_interval(values[-1], kid_influences(x, y))) / norm.ppf(0.975))
    assert float(torch.tensor(widths).mean()) < 0.8 * float(torch.tensor(values, dtype=torch.float64).std())
