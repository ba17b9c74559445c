from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from coldtune.data import Dataset
from coldtune.metrics import (
    DISTANCES,
    Extractor,
    Judgement,
    MemoryCache,
    Observations,
    ProtocolConfig,
    build_extractor,
    compare,
    distances,
    extract_features,
    frechet_influences,
    frechet_interval,
    image_scores,
    image_set_metrics,
    judge,
    judge_observed,
    reference_features,
    reference_statistics,
    resolve,
)


def noisy(images: torch.Tensor, sd: float, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)) * sd
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def judged(digits: Dataset, sd: float, seed: int = 0, **config: object) -> Judgement:
    extractor, cache = build_extractor("digits"), MemoryCache()
    protocol = resolve(ProtocolConfig.model_validate(config), extractor, digits)
    images = digits.split(protocol.split).images
    clean = images[protocol.image_indices()]
    reference = reference_statistics(extractor, images, protocol, cache)
    features = reference_features(extractor, images, protocol, cache)
    return judge(noisy(clean, sd, seed), clean, extractor, reference, protocol, features, tuple(DISTANCES))


def test_values_are_those_of_the_single_functions(digits: Dataset) -> None:
    judgement = judged(digits, 20)
    extractor, images = build_extractor("digits"), digits.split("validation").images
    made, features = noisy(images, 20), extract_features(build_extractor("digits"), images)
    protocol = judgement.protocol
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    expected = distances(extract_features(extractor, made), features)
    expected |= image_set_metrics(made, images, extractor, reference)
    values = {name: value.value for name, value in judgement.values.items()}
    assert values == pytest.approx(expected, rel=1e-9)
    interval = frechet_interval(reference, extract_features(extractor, made))
    fid = judgement.values["fid"]
    assert (fid.low, fid.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    torch.testing.assert_close(
        judgement.influences["fid"], frechet_influences(reference, extract_features(extractor, made))
    )
    for value in judgement.values.values():
        assert (value.n, value.protocol) == (len(images), protocol)


def test_intervals_hold_their_value(digits: Dataset) -> None:
    values = judged(digits, 20).values
    assert set(values) == {*DISTANCES, "ssim", "rmse", "psnr"}
    for name in values:
        low, high = values[name].low, values[name].high
        assert low is not None
        assert high is not None
        assert low < values[name].value < high
    # psnr = -20 log10(rmse), so the bounds of one are those of the other, in reverse.
    rmse, psnr = values["rmse"], values["psnr"]
    assert rmse.low is not None
    assert psnr.high == pytest.approx(-20 * math.log10(rmse.low), rel=1e-12)


def test_the_originals_themselves(digits: Dataset, tmp_path: Path) -> None:
    judgement = judged(digits, 0)
    values = judgement.values
    assert values["fid"].value < 1e-6
    assert values["mind"].value == 0
    assert (values["precision"].value, values["recall"].value) == (1, 1)
    assert values["rmse"].value == 0
    assert values["psnr"].value == math.inf
    # More like the reference than a second sample of it could be: KID counts no image against itself.
    assert values["kid"].value < 0
    for value in values.values():
        assert value.low is not None
        assert value.high is not None
        assert value.low <= value.value <= value.high
    assert (values["psnr"].low, values["psnr"].high) == (math.inf, math.inf)
    judgement.save(tmp_path)
    assert Judgement.load(tmp_path).values == values
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_one_wrong_image_among_perfect_ones_has_an_interval(digits: Dataset) -> None:
    extractor, images = build_extractor("digits"), digits.split("validation").images
    protocol = resolve(ProtocolConfig(), extractor, digits)
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    made = images.clone()
    made[5] = 255 - made[5]
    judgement = judge(made, images, extractor, reference, protocol)
    psnr = judgement.values["psnr"]
    # A third of the resamples leave that image out: (1 - 1/N)^N = 1/e.
    assert psnr.high == math.inf
    assert psnr.low is not None
    assert psnr.low < psnr.value < math.inf
    with pytest.raises(ValueError, match="infinite wherever the few images with an error are left out; take rmse"):
        compare(judgement, judgement, "psnr")
    assert compare(judgement, judgement, "rmse").better is None


def test_progress_is_the_share_of_images(digits: Dataset) -> None:
    extractor, images = build_extractor("digits"), digits.split("validation").images
    protocol, seen = resolve(ProtocolConfig(), extractor, digits), []
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    judge(images, images, extractor, reference, protocol, batch_size=100, progress=seen.append)
    assert seen == [min(end, len(images)) / len(images) for end in range(100, len(images) + 100, 100)]


def test_every_distance_is_compared_in_pairs(digits: Dataset) -> None:
    a, b = judged(digits, 15), judged(digits, 45)
    for name in DISTANCES:
        comparison = compare(a, b, name)
        assert comparison.better == "A", name
        assert comparison.difference.value == pytest.approx(a.values[name].value - b.values[name].value)
        separate = sum((judgement.influences[name] ** 2).sum() for judgement in (a, b))
        paired = ((a.influences[name] - b.influences[name]) ** 2).sum()
        assert float(paired) < float(separate), name


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_observed_in_any_shares_and_order(digits: Dataset, share: float) -> None:
    extractor, images = build_extractor("digits"), digits.split("validation").images
    protocol = resolve(ProtocolConfig(), extractor, digits)
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    features = reference_features(extractor, images, protocol, MemoryCache())
    made, numbers = noisy(images, 30), protocol.image_indices()
    whole = judge(made, images, extractor, reference, protocol, features, tuple(DISTANCES))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    observations = Observations(extractor.dim, pairs=True)
    for rows in order.split(max(int(share * len(images)), 1)):
        # The same features, so that what is compared is the gathering and not the rounding of float32 in batches.
        known = extract_features(extractor, made)[rows]
        observations.update(numbers[rows], known, image_scores(made[rows], images[rows]))
    again = judge_observed(observations, reference, protocol, features, tuple(DISTANCES))
    for name, value in whole.values.items():
        assert again.values[name].value == pytest.approx(value.value, rel=1e-9), name
        assert (again.values[name].low, again.values[name].high) == pytest.approx((value.low, value.high), rel=1e-9)


def test_batches_leave_no_trace(digits: Dataset) -> None:
    extractor, images = build_extractor("digits"), digits.split("validation").images
    protocol = resolve(ProtocolConfig(), extractor, digits)
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    made = noisy(images, 30)
    one, other = (judge(made, images, extractor, reference, protocol, batch_size=size) for size in (50, 1000))
    assert set(one.values) == {"fid", "ssim", "rmse", "psnr"}
    assert {name: value.value for name, value in one.values.items()} == pytest.approx(
        {name: value.value for name, value in other.values.items()}, rel=1e-6
    )


def test_features_of_the_reference_are_extracted_once(digits: Dataset) -> None:
    extractor, cache, seen = build_extractor("digits"), MemoryCache(), []
    counting = Extractor(
        "digits", lambda images: (seen.append(len(images)), extractor(images))[1], 64, extractor.sha256, extractor.input
    )
    images = digits.split("validation").images
    first, second = (resolve(ProtocolConfig(num_images=n), counting, digits) for n in (100, 200))
    features = reference_features(counting, images, first, cache)
    assert reference_features(counting, images, second, cache) is features
    assert sum(seen) == len(images)
    torch.testing.assert_close(features, extract_features(extractor, images))
    with pytest.raises(ValueError, match="10 reference images: the protocol names"):
        reference_features(counting, images[:10], first, cache)


def test_what_is_wrong_is_said_before_anything_is_extracted(digits: Dataset) -> None:
    good, images, seen = build_extractor("digits"), digits.split("validation").images, []
    counting = Extractor("digits", lambda batch: (seen.append(1), good(batch))[1], 64, good.sha256, good.input)
    protocol = resolve(ProtocolConfig(), good, digits)
    reference = reference_statistics(good, images, protocol, MemoryCache())
    with pytest.raises(ValueError, match="recall: needs the features of the reference's images"):
        judge(images, images, counting, reference, protocol, names=["fid", "recall"])
    with pytest.raises(ValueError, match="distances 'fdi': allowed are fid, fid_infinity"):
        judge(images, images, counting, reference, protocol, names=["fdi"])
    other = Extractor("digits", lambda batch: (seen.append(1), good(batch))[1], 64, "ff" * 32, good.input)
    with pytest.raises(ValueError, match=r"extractor = 'digits' \(ffffffffffff\): the protocol names 'digits'"):
        judge(images, images, other, reference, protocol)
    assert not seen


def test_wrong_input(digits: Dataset) -> None:
    extractor, images = build_extractor("digits"), digits.split("validation").images
    protocol = resolve(ProtocolConfig(), extractor, digits)
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    with pytest.raises(ValueError, match=rf"10 images: the protocol judges num_images = {len(images)}"):
        judge(images[:10], images[:10], extractor, reference, protocol)
    with pytest.raises(ValueError, match="batch_size = 0: allowed are"):
        judge(images, images, extractor, reference, protocol, batch_size=0)
    with pytest.raises(ValueError, match="kid: needs the features of the reference's images"):
        judge(images, images, extractor, reference, protocol, names=["fid", "kid"])
    with pytest.raises(ValueError, match="an original per image"):
        judge(images, images[:10], extractor, reference, protocol)
    test = resolve(ProtocolConfig(split="test"), extractor, digits)
    theirs = digits.split("test").images
    with pytest.raises(ValueError, match="the reference was made under another protocol"):
        judge(theirs, theirs, extractor, reference, test)


def test_a_judgement_is_read_back_as_it_was_written(digits: Dataset, tmp_path: Path) -> None:
    judgement = judged(digits, 20)
    judgement.save(tmp_path)
    read = Judgement.load(tmp_path)
    assert read.protocol == judgement.protocol
    assert read.values == judgement.values
    for mine, other in ((judgement.influences, read.influences), (judgement.per_image, read.per_image)):
        assert set(mine) == set(other)
        for name, tensor in mine.items():
            assert torch.equal(tensor, other[name])


def test_generated_images_may_outnumber_the_split(digits: Dataset) -> None:
    extractor = build_extractor("digits")
    config = ProtocolConfig(num_images=500)
    with pytest.raises(ValueError, match=r"num_images = 500: the validation split .* has 363"):
        resolve(config, extractor, digits)
    protocol = resolve(config, extractor, digits, "generated")
    assert torch.equal(protocol.image_indices(), torch.arange(500))
    assert protocol.key != resolve(ProtocolConfig(), extractor, digits).key
    assert protocol.reference_key == resolve(ProtocolConfig(), extractor, digits).reference_key
