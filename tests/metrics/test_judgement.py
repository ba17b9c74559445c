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
    Protocol,
    ProtocolConfig,
    Reference,
    build_extractor,
    compare,
    distances,
    estimates,
    extract_features,
    frechet_distance,
    frechet_influences,
    image_scores,
    judge,
    judge_observed,
    reference_features,
    reference_statistics,
    resolve,
    rmse,
    ssim,
)


def _noisy(images: torch.Tensor, sd: float, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)) * sd
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def _judged(digits: Dataset, sd: float, seed: int = 0, **config: object) -> Judgement:
    """Judge the split with noise of `sd` grey levels by every distance."""
    extractor, cache = build_extractor("digits"), MemoryCache()
    protocol = resolve(ProtocolConfig.model_validate(config), extractor, digits)
    images = digits.split(protocol.split).images
    clean = images[protocol.image_indices()]
    reference = reference_statistics(extractor, images, protocol, cache)
    features = reference_features(extractor, images, protocol, cache)
    return judge(_noisy(clean, sd, seed), clean, extractor, reference, protocol, features, tuple(DISTANCES))


def _corners() -> Extractor:
    """Return an extractor of four pixels: its features are exact, because no network rounds them."""
    return Extractor(
        "corners", lambda images: images[:, 0, ::15, ::15].flatten(1).double() / 255, 4, "0" * 64, "as given"
    )


def _noise_protocol(count: int, channels: int = 1, dim: int = 4) -> Protocol:
    return Protocol(
        extractor="corners", extractor_sha256="0" * 64, extractor_input="as given", dim=dim, dataset="noise",
        dataset_fingerprint="1" * 64, image_shape=(channels, 16, 16), resize="none", split="test", num_images=count,
        reference_images=count, seed=0,
    )  # fmt: skip


def _noise_images(count: int = 61, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 200, (count, channels, 16, 16), generator=generator, dtype=torch.uint8)
    return clean + torch.randint(0, 50, clean.shape, generator=generator, dtype=torch.uint8), clean


def test_judge_values_equal_single_functions(digits: Dataset) -> None:
    judgement = _judged(digits, 20)
    extractor, images = build_extractor("digits"), digits.split("validation").images
    made, protocol = _noisy(images, 20), judgement.protocol
    features, reference_vectors = extract_features(extractor, made), extract_features(extractor, images)
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    error = rmse(made.double() / 255, images.double() / 255)
    expected = distances(features, reference_vectors) | {
        "fid": frechet_distance(reference, features),
        "ssim": float(ssim(made.double() / 255, images.double() / 255).mean()),
        "rmse": error,
        "psnr": -20 * math.log10(error),
    }
    assert {name: value.value for name, value in judgement.values.items()} == pytest.approx(expected, rel=1e-9)
    originals = torch.arange(len(images))  # an image and its original are drawn together
    drawn = estimates(features, reference_vectors, reference, ["fid"], resample_reference=True, pairs=originals)
    interval = drawn["fid"].interval
    fid = judgement.values["fid"]
    assert (fid.low, fid.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    torch.testing.assert_close(judgement.influences["fid"], frechet_influences(reference, features))
    for value in judgement.values.values():
        assert (value.n, value.protocol) == (len(images), protocol)


def test_judge_intervals_contain_value(digits: Dataset) -> None:
    values = _judged(digits, 20).values
    assert set(values) == {*DISTANCES, "ssim", "rmse", "psnr"}
    for value in values.values():
        assert value.low is not None
        assert value.high is not None
        assert value.low < value.value < value.high
    # psnr = -20 log10(rmse), so the bounds of one metric are those of the other, in reverse.
    assert values["rmse"].low is not None
    assert values["psnr"].high == pytest.approx(-20 * math.log10(values["rmse"].low), rel=1e-12)


def test_judge_originals_are_perfect(digits: Dataset, tmp_path: Path) -> None:
    judgement = _judged(digits, 0)
    values = judgement.values
    assert values["fid"].value < 1e-6
    assert values["mind"].value == 0
    assert (values["precision"].value, values["recall"].value) == (1, 1)
    assert values["ssim"].value == pytest.approx(1, rel=1e-12)
    assert values["rmse"].value == 0
    assert values["psnr"].value == math.inf
    # KID compares no image with itself, so the reference is closer to itself than a second sample could be.
    assert values["kid"].value < 0
    for value in values.values():
        assert value.low is not None
        assert value.high is not None
        assert value.low <= value.value <= value.high
    assert (values["psnr"].low, values["psnr"].high) == (math.inf, math.inf)
    judgement.save(tmp_path)
    assert Judgement.load(tmp_path).values == values
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_judge_constant_images_fid_has_closed_form(digits: Dataset) -> None:
    extractor, images = build_extractor("digits"), digits.split("validation").images
    protocol = resolve(ProtocolConfig(), extractor, digits)
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    judgement = judge(torch.full_like(images, 60), images, extractor, reference, protocol)
    # Without spread, only the shift of the means and the reference's own variance remain.
    shift = extractor(torch.full_like(images[:1], 60))[0] - reference.mean
    expected = float(shift @ shift + reference.covariance.trace())
    assert judgement.values["fid"].value == pytest.approx(expected, rel=1e-6)


def test_judge_one_wrong_image_has_finite_psnr_with_infinite_bound(digits: Dataset) -> None:
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
    with pytest.raises(
        ValueError, match="infinite in resamples without the few images that have an error; compare by rmse"
    ):
        compare(judgement, judgement, "psnr")
    assert compare(judgement, judgement, "rmse").better is None


def test_judge_generated_images_have_no_image_scores() -> None:
    images, clean = _noise_images()
    protocol = _noise_protocol(61).model_copy(update={"task": "generated"})
    judgement = judge(images, None, _corners(), Reference.of(_corners()(clean)), protocol)
    assert set(judgement.values) == {"fid"}
    assert judgement.per_image == {}


def test_judge_progress_is_share_of_images(digits: Dataset) -> None:
    extractor, images = build_extractor("digits"), digits.split("validation").images
    protocol, seen = resolve(ProtocolConfig(), extractor, digits), []
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    judge(images, images, extractor, reference, protocol, batch_size=100, progress=seen.append)
    assert seen == [min(end, len(images)) / len(images) for end in range(100, len(images) + 100, 100)]


def test_compare_distances_are_paired_by_image(digits: Dataset) -> None:
    a, b = _judged(digits, 15), _judged(digits, 45)
    for name in DISTANCES:
        comparison = compare(a, b, name)
        assert comparison.better == "A", name
        assert comparison.difference.value == pytest.approx(a.values[name].value - b.values[name].value)
        separate = sum((judgement.influences[name] ** 2).sum() for judgement in (a, b))
        paired = ((a.influences[name] - b.influences[name]) ** 2).sum()
        assert float(paired) < float(separate), name


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_judge_observed_any_shares_and_order_same_values(digits: Dataset, share: float) -> None:
    extractor, images = build_extractor("digits"), digits.split("validation").images
    protocol = resolve(ProtocolConfig(), extractor, digits)
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    features = reference_features(extractor, images, protocol, MemoryCache())
    made, numbers = _noisy(images, 30), protocol.image_indices()
    whole = judge(made, images, extractor, reference, protocol, features, tuple(DISTANCES))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    observations = Observations(extractor.dim, pairs=True)
    for rows in order.split(max(int(share * len(images)), 1)):
        # The same features, so that the test compares the gathering and not how float32 rounds in batches.
        known = extract_features(extractor, made)[rows]
        observations.update(numbers[rows], known, image_scores(made[rows], images[rows]))
    again = judge_observed(observations, reference, protocol, features, tuple(DISTANCES))
    for name, value in whole.values.items():
        assert again.values[name].value == pytest.approx(value.value, rel=1e-9), name
        assert (again.values[name].low, again.values[name].high) == pytest.approx((value.low, value.high), rel=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 61, 500])
def test_judge_any_batch_size_same_values(channels: int, batch_size: int) -> None:
    images, clean = _noise_images(channels=channels)
    reference, protocol = Reference.of(_corners()(clean)), _noise_protocol(61, channels)
    judgement = judge(images, clean, _corners(), reference, protocol, batch_size=batch_size)
    error = rmse(images.double() / 255, clean.double() / 255)
    expected = {
        "fid": frechet_distance(reference, _corners()(images)),
        "ssim": float(ssim(images.double() / 255, clean.double() / 255).mean()),
        "rmse": error,
        "psnr": -20 * math.log10(error),
    }
    assert {name: value.value for name, value in judgement.values.items()} == pytest.approx(expected, rel=1e-9)


def test_judge_batch_size_of_network_same_values(digits: Dataset) -> None:
    extractor, images = build_extractor("digits"), digits.split("validation").images
    protocol = resolve(ProtocolConfig(), extractor, digits)
    reference = reference_statistics(extractor, images, protocol, MemoryCache())
    made = _noisy(images, 30)
    small, large = (judge(made, images, extractor, reference, protocol, batch_size=size) for size in (50, 1000))
    assert {name: value.value for name, value in small.values.items()} == pytest.approx(
        {name: value.value for name, value in large.values.items()}, rel=1e-6
    )


def test_reference_features_are_extracted_once(digits: Dataset) -> None:
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


def test_judge_wrong_arguments_are_refused_before_extraction(digits: Dataset) -> None:
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


def test_judge_wrong_input_is_refused(digits: Dataset) -> None:
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
    with pytest.raises(ValueError, match=r"allowed is uint8 .* an original per image"):
        judge(images, images.float(), extractor, reference, protocol)
    with pytest.raises(ValueError, match=r"allowed is uint8 \(B, C, H, W\)"):
        judge(images.float(), images, extractor, reference, protocol)
    test = resolve(ProtocolConfig(split="test"), extractor, digits)
    theirs = digits.split("test").images
    with pytest.raises(ValueError, match="the reference was made under another protocol"):
        judge(theirs, theirs, extractor, reference, test)
    noise, clean = _noise_images()
    with pytest.raises(ValueError, match="features of 4 dimensions against a reference of 3"):
        judge(noise, clean, _corners(), Reference.of(_corners()(clean)[:, :3]), _noise_protocol(61))


def test_judgement_load_equals_saved(digits: Dataset, tmp_path: Path) -> None:
    judgement = _judged(digits, 20)
    judgement.save(tmp_path)
    read = Judgement.load(tmp_path)
    assert read.protocol == judgement.protocol
    assert read.values == judgement.values
    for saved, loaded in ((judgement.influences, read.influences), (judgement.per_image, read.per_image)):
        assert set(saved) == set(loaded)
        for name, tensor in saved.items():
            assert torch.equal(tensor, loaded[name])


def test_resolve_generated_images_may_outnumber_split(digits: Dataset) -> None:
    extractor = build_extractor("digits")
    config = ProtocolConfig(num_images=500)
    with pytest.raises(ValueError, match=r"num_images = 500: the validation split .* has 363"):
        resolve(config, extractor, digits)
    protocol = resolve(config, extractor, digits, "generated")
    assert torch.equal(protocol.image_indices(), torch.arange(500))
    assert protocol.key != resolve(ProtocolConfig(), extractor, digits).key
    assert protocol.reference_key == resolve(ProtocolConfig(), extractor, digits).reference_key
