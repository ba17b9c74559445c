from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from coldtune.config import identity, parse
from coldtune.data import Dataset
from coldtune.metrics import (
    Extractor,
    MemoryCache,
    Protocol,
    ProtocolConfig,
    Value,
    build_extractor,
    check_objective,
    check_same,
    difference,
    reference_features,
    reference_statistics,
    resolve,
    same,
)


def _protocol(**changes: Any) -> Protocol:
    parts: dict[str, Any] = {
        "extractor": "digits",
        "extractor_sha256": "ab" * 32,
        "extractor_input": "as given",
        "dim": 64,
        "dataset": "digits",
        "dataset_fingerprint": "cd" * 32,
        "image_shape": (1, 16, 16),
        "resize": "bilinear",
        "split": "validation",
        "num_images": 300,
        "reference_images": 360,
        "seed": 0,
    }
    return Protocol(**(parts | changes))


OTHERS: dict[str, Any] = {
    "extractor": "mnist",
    "extractor_sha256": "00" * 32,
    "extractor_input": "bilinear to 8x8",
    "dim": 65,
    "dataset": "mnist",
    "dataset_fingerprint": "11" * 32,
    "image_shape": (1, 32, 32),
    "resize": "nearest",
    "split": "test",
    "task": "generated",
    "num_images": 301,
    "reference_images": 361,
    "seed": 1,
    "rounding": "none",
    "moments": "float32",
    "tf32": True,
    "version": 99,
    "reference": "train",
    "eligible_images": 200,
}


def test_protocol_others_list_every_part() -> None:
    assert set(OTHERS) == set(Protocol.model_fields)


@pytest.mark.parametrize("part", sorted(OTHERS))
def test_protocol_any_part_changes_key_and_is_named(part: str) -> None:
    a, b = _protocol(), _protocol(**{part: OTHERS[part]})
    assert a.key != b.key
    assert not same(a, b)
    assert difference(a, b) == {part: (getattr(a, part), OTHERS[part])}
    with pytest.raises(ValueError, match=f"they differ in {part} "):
        check_same([a, _protocol(), b])


def test_protocol_json_round_trip_same_key() -> None:
    a = _protocol()
    again = Protocol.model_validate_json(a.model_dump_json())
    assert same(a, again)
    assert difference(a, again) == {}
    assert len(a.key) == 64
    check_same([a, again])
    check_same([])


def test_resolve_records_extractor_and_data(digits: Dataset) -> None:
    extractor = build_extractor("digits")
    protocol = resolve(ProtocolConfig(num_images=100, seed=5), extractor, digits)
    assert (protocol.extractor_sha256, protocol.dim) == (extractor.sha256, 64)
    assert protocol.dataset_fingerprint == digits.fingerprint
    assert (protocol.num_images, protocol.reference_images) == (100, digits.sizes["validation"])
    whole = resolve(ProtocolConfig(split="test"), extractor, digits)
    assert whole.num_images == whole.reference_images == digits.sizes["test"]
    for part in ("digits", "N = 100", "validation", "evaluation seed 5", "1x16x16", protocol.key[:12]):
        assert part in protocol.describe()
    with pytest.raises(
        ValueError,
        match=r"protocol\.num_images = 100000: the validation split of 'digits' has (\d+) images; allowed: 5\.\.\1",
    ):
        resolve(ProtocolConfig(num_images=100_000), extractor, digits)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"extractr": "digits"},
            "protocol.extractr = 'digits': unknown key; allowed: draws, extractor, num_images, reference, seed, split",
        ),
        ({"split": "valid"}, "protocol.split = 'valid'"),
        ({"num_images": 1}, "protocol.num_images = 1"),
        ({"seed": -1}, "protocol.seed = -1"),
        ({"draws": 0}, "protocol.draws = 0"),
        ({"draws": 2, "seed": 2**63 - 1}, "draws = 2: with seed = 9223372036854775807, allowed: at most 1"),
        ({"extractor": "a b"}, "protocol.extractor = 'a b'"),
    ],
)
def test_protocol_config_wrong_value_names_key(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        parse(ProtocolConfig, given, "protocol")


def test_protocol_draws_are_no_part_of_the_protocol(digits: Dataset) -> None:
    """All values are those of the first seed, so they compare with values of a study without further draws."""
    one, three = (resolve(ProtocolConfig(draws=draws), build_extractor("digits"), digits) for draws in (1, 3))
    assert one == three
    assert "draws" not in identity(ProtocolConfig()), "the names of earlier studies stay"
    assert list(ProtocolConfig(seed=5, draws=3).further_seeds) == [6, 7]
    assert list(ProtocolConfig(seed=5).further_seeds) == []


def test_image_indices_fewer_images_are_subset_of_more() -> None:
    few = _protocol(num_images=50).image_indices()
    many = _protocol(num_images=200).image_indices()
    everything = _protocol(num_images=360).image_indices()
    assert set(few.tolist()) < set(many.tolist())
    assert few.tolist() == sorted(set(few.tolist()))
    assert len(few) == 50
    torch.testing.assert_close(everything, torch.arange(360))
    assert few.tolist() != _protocol(num_images=50, seed=1).image_indices().tolist()
    # Spread over the whole split: the mean position of 50 of 360 has a standard deviation of about 14.
    assert abs(float(few.double().mean()) - 179.5) < 60


def test_check_objective_fid_needs_four_images_per_dimension() -> None:
    check_objective(_protocol(num_images=256))
    check_objective(_protocol(num_images=10), metric="ssim")
    with pytest.raises(ValueError, match=r"num_images = 255: FID as an objective needs N >= 4 d = 256"):
        check_objective(_protocol(num_images=255))
    with pytest.raises(ValueError, match=r"d <= 63"):
        check_objective(_protocol(num_images=255), metric="sampled/fid")
    with pytest.raises(ValueError, match="num_images = 255: FID"):
        check_objective(_protocol(num_images=255), metric="fid_infinity")
    with pytest.raises(
        ValueError, match=r"^the validation split of 'digits' has 200 images to compare with: FID as an"
    ):
        check_objective(_protocol(num_images=512, reference_images=200, task="generated"))


def test_reference_statistics_protocols_differing_in_n_or_seed_share_reference(digits: Dataset) -> None:
    extractor, cache, seen = build_extractor("digits"), MemoryCache(), []
    counting = Extractor(
        "digits", lambda images: (seen.append(len(images)), extractor(images))[1], 64, extractor.sha256, extractor.input
    )
    images = digits.split("validation").images
    protocols = [resolve(ProtocolConfig(num_images=n, seed=s), counting, digits) for n, s in ((256, 0), (300, 1))]
    first, second = (reference_statistics(counting, images, protocol, cache) for protocol in protocols)
    assert sum(seen) == len(images)
    assert first.key == second.key == protocols[0].reference_key
    torch.testing.assert_close(first.root @ first.root.T, first.covariance, rtol=1e-9, atol=1e-12)
    assert first.n == len(images)
    with pytest.raises(ValueError, match="10 reference images: the protocol names"):
        reference_statistics(counting, images[:10], protocols[0], cache)
    other = Extractor("digits", extractor, 64, "ff" * 32, "as given")
    with pytest.raises(ValueError, match=r"extractor = 'digits' \(ffffffffffff\): the protocol names 'digits'"):
        reference_statistics(other, images, protocols[0], cache)


@pytest.mark.parametrize("part", sorted(set(OTHERS) - {"num_images", "seed", "rounding", "task", "eligible_images"}))
def test_protocol_reference_key_covers_every_part_of_reference(part: str) -> None:
    assert _protocol().reference_key != _protocol(**{part: OTHERS[part]}).reference_key


def test_value_other_protocol_or_metric_is_refused() -> None:
    a, b = Value("fid", 1.0, 300, _protocol()), Value("fid", 2.5, 300, _protocol())
    assert a < b
    assert b > a
    assert b - a == 1.5
    assert min([b, a], key=lambda value: value.value) is a
    other = Value("fid", 0.5, 300, _protocol(seed=3))
    for compare in (lambda: a < other, lambda: a > other, lambda: a - other, lambda: sorted([a, b, other])):
        with pytest.raises(ValueError, match=r"they differ in seed \("):
            compare()
    with pytest.raises(ValueError, match="fid cannot be compared with ssim"):
        _ = a < Value("ssim", 0.9, 300, _protocol())


def test_import_metrics_loads_no_slow_or_forbidden_package(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, coldtune.metrics; coldtune.metrics.build_extractor('digits'); "
        "slow = ('ray', 'mlflow', 'optuna', 'diffusers', 'torchvision', 'sklearn', 'scipy'); "
        "print([module for module in slow if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_reference_statistics_given_features_same_reference(digits: Dataset) -> None:
    extractor, images = build_extractor("digits"), digits.split("validation").images
    protocol = resolve(ProtocolConfig(), extractor, digits)
    seen = []

    def counting(batch: torch.Tensor) -> torch.Tensor:
        seen.append(len(batch))
        return extractor(batch)

    watched = Extractor(extractor.name, counting, extractor.dim, extractor.sha256, extractor.input)
    features = reference_features(watched, images, protocol, MemoryCache())
    given = reference_statistics(watched, images, protocol, MemoryCache(), features=features)
    assert sum(seen) == len(images), "each image is seen once"
    alone = reference_statistics(extractor, images, protocol, MemoryCache())
    torch.testing.assert_close(given.mean, alone.mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(given.covariance, alone.covariance, rtol=1e-9, atol=1e-12)
