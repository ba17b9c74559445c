from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from coldtune.data import Dataset, prepare
from coldtune.metrics import Extractor, Reference, build_extractor, extract_features, extract_moments, frechet_distance
from coldtune.metrics.classifiers import WEIGHTS, accuracy, load_classifier, load_network
from coldtune.metrics.extractors import EXTRACTORS

SHIPPED = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def _images(n: int = 20, channels: int = 1, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


def test_extractors_shipped_weights_are_registered() -> None:
    assert set(SHIPPED) == {name for name, place in EXTRACTORS.items() if place.startswith("coldtune.metrics.classif")}


@pytest.mark.parametrize("name", SHIPPED)
def test_extractors_shipped_weights_are_small_hashed_and_accurate(name: str) -> None:
    data = (WEIGHTS / f"{name}.safetensors").read_bytes()
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    extractor = build_extractor(name)
    assert len(data) < 1_000_000
    assert extractor.sha256 == hashlib.sha256(data).hexdigest()
    assert (extractor.name, extractor.dim) == (name, {"digits": 64, "mnist": 64, "cifar10": 96}[name])
    assert card["accuracy"]["test"] >= {"digits": 0.97, "mnist": 0.99, "cifar10": 0.85}[name]


def test_digits_stated_accuracy_equals_measured(digits: Dataset) -> None:
    card = json.loads((WEIGHTS / "digits.json").read_text())
    assert card["dataset"]["fingerprint"] == digits.fingerprint, "the split changed: train the classifier anew"
    head = load_network("digits")[0].head
    for split in ("validation", "test"):
        data = digits.split(split)
        features = extract_features(build_extractor("digits"), data.images).float()
        hits = (head(features).argmax(1) == data.labels).float().mean()
        assert float(hits) == pytest.approx(card["accuracy"][split], abs=1e-4)
    assert card["images"] == digits.sizes


def test_digits_ranks_blur_above_noise_floor(digits: Dataset) -> None:
    images, extractor = digits.split("validation").images, build_extractor("digits")
    reference = Reference.of(extract_features(extractor, images))
    blurred = [gaussian_blur(images.float(), 9, sd).round().to(torch.uint8) for sd in (0.5, 1.0, 1.5, 2.0, 4.0)]
    distances = [frechet_distance(reference, extract_moments(extractor, images)) for images in blurred]
    assert distances == sorted(distances)
    # A useful extractor has a noise floor (two clean sets) far below the differences that it must measure.
    floor = frechet_distance(reference, extract_moments(extractor, digits.split("test").images))
    assert floor < distances[1] < 0.2 * distances[-1]


CHANNELS = {"digits": 1, "mnist": 1, "cifar10": 3}


@pytest.mark.parametrize("size", [16, 8, 28, 33])
@pytest.mark.parametrize("name", SHIPPED)
def test_extractor_any_image_size_is_accepted(name: str, size: int) -> None:
    extractor = build_extractor(name)
    features = extractor(_images(3, CHANNELS[name], size))
    assert features.shape == (3, extractor.dim)
    assert features.dtype == torch.float64


@pytest.mark.parametrize("name", SHIPPED)
def test_extractor_constant_image_same_features_at_every_size(name: str) -> None:
    extractor, channels = build_extractor(name), CHANNELS[name]
    small, large = (extractor(torch.full((1, channels, size, size), 77, dtype=torch.uint8)) for size in (16, 61))
    torch.testing.assert_close(small, large, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20])
def test_extract_features_any_batches_and_order_same_features(batch_size: int) -> None:
    extractor, images = build_extractor("digits"), _images()
    whole = extract_features(extractor, images)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    parts = extract_features(extractor, images[order], batch_size)
    torch.testing.assert_close(parts, whole[order], rtol=1e-5, atol=1e-5)
    moments = extract_moments(extractor, images, batch_size)
    torch.testing.assert_close(moments.mean, whole.mean(0), rtol=1e-6, atol=1e-6)


def test_extractor_settings_are_restored_and_features_have_no_gradient() -> None:
    torch.backends.cudnn.benchmark = True
    try:
        precision = torch.backends.cuda.matmul.fp32_precision
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = build_extractor("digits")(_images())
            assert torch.is_autocast_enabled("cpu")
        assert torch.backends.cudnn.benchmark
        assert torch.backends.cuda.matmul.fp32_precision == precision
    finally:
        torch.backends.cudnn.benchmark = False
    assert not inside.requires_grad
    torch.testing.assert_close(inside, build_extractor("digits")(_images()), rtol=0, atol=0)


def test_extractor_tf32_and_autocast_outside_are_ignored() -> None:
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before, seen = (matmul.fp32_precision, convolutions.fp32_precision), []

    def network(images: torch.Tensor) -> torch.Tensor:
        seen.append((matmul.fp32_precision, convolutions.fp32_precision, torch.is_autocast_enabled("cpu")))
        return images.float().flatten(1)[:, :2]

    try:
        matmul.fp32_precision = convolutions.fp32_precision = "tf32"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            Extractor("own", network, 2, "0" * 64, "as given")(_images())
        assert (matmul.fp32_precision, convolutions.fp32_precision) == ("tf32", "tf32"), "restored"
    finally:
        matmul.fp32_precision, convolutions.fp32_precision = before
    assert seen == [("ieee", "ieee", False)]


REAL = os.environ.get("COLDTUNE_TEST_DATA")


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="needs the published files: COLDTUNE_TEST_DATA=DIR with MNIST/raw and cifar10")
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_classifier_stated_accuracy_equals_published_test_images(name: str, tmp_path: Path) -> None:
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    data = prepare({"name": name, "image_size": 32}, tmp_path, REAL)
    assert card["dataset"]["fingerprint"] == data.fingerprint, "the split changed: train the classifier anew"
    test = data.split("test")
    found = accuracy(load_network(name)[0], test.images, test.labels)
    assert found == pytest.approx(card["accuracy"]["test"], abs=5e-4)


def test_cifar10_swapped_channels_change_features() -> None:
    extractor, images = build_extractor("cifar10"), _images(6, channels=3)
    swapped = extractor(images.flip(1))
    assert float((swapped - extractor(images)).abs().max()) > 0.01
    with pytest.raises(ValueError, match="images of 1 channels: this classifier takes 3"):
        extractor(_images(6))


def test_extractor_wrong_images_are_refused() -> None:
    extractor = build_extractor("digits")
    with pytest.raises(
        ValueError, match=r"images of 3 channels: this classifier takes 1; choose another protocol\.ext"
    ):
        extractor(_images(channels=3))
    with pytest.raises(ValueError, match=r"allowed is uint8 \(B, C, H, W\)"):
        extractor(_images().float())
    with pytest.raises(ValueError, match=r"allowed is uint8 \(B, C, H, W\)"):
        extractor(_images()[0])
    with pytest.raises(ValueError, match="batch_size = 0"):
        extract_features(extractor, _images(), 0)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for suffix in ("safetensors", "json"):
        shutil.copy(WEIGHTS / f"digits.{suffix}", tmp_path)
    return tmp_path


def test_load_classifier_damaged_weights_are_refused(copied: Path) -> None:
    assert load_classifier("digits", copied).sha256 == build_extractor("digits").sha256
    file = copied / "digits.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"digits\.safetensors has SHA-256 \w{64}, its JSON states \w{64}: the file is dam"
    ):
        load_classifier("digits", copied)
    file.write_bytes(data[:1000])
    with pytest.raises(ValueError, match="its JSON states"):
        load_classifier("digits", copied)
    file.unlink()
    with pytest.raises(ValueError, match=r"digits\.safetensors is missing"):
        load_classifier("digits", copied)


USERS = """
import torch

class Means(torch.nn.Module):
    dim = 2
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor({scale}))
    def forward(self, images):
        x = images.float().flatten(1) * self.scale
        return torch.stack([x.mean(1), x.std(1)], 1)

class Signed(Means):
    sha256 = "my weights, version 3"
    input = "nearest to 8x8"

def fails(images):
    return images.double().flatten(1)[:, :2] / images.amin((1, 2, 3))[:, None]
fails.dim = 2

instance = Means()
nothing = 3
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "users_own_extractor.py"
    sys.modules.pop("users_own_extractor", None)


def _write(path: Path, scale: float = 1.0) -> None:
    sys.modules.pop(path.stem, None)
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
    path.write_text(USERS.format(scale=scale))


def _users(attribute: str) -> Extractor:
    return build_extractor(f"users_own_extractor:{attribute}")


def test_build_extractor_users_module_is_loaded(users_module: Path) -> None:
    _write(users_module)
    for extractor in (_users("Means"), _users("instance")):
        features = extractor(_images(channels=3))
        assert features.dtype == torch.float64
        torch.testing.assert_close(features[:, 0], _images(channels=3).double().mean((1, 2, 3)), rtol=1e-5, atol=1e-5)
        assert extractor.dim == 2
    signed = _users("Signed")
    assert (signed.sha256, signed.input) == ("my weights, version 3", "nearest to 8x8")


def test_build_extractor_hash_covers_users_weights_and_code(users_module: Path) -> None:
    _write(users_module)
    first = _users("Means").sha256
    assert _users("instance").sha256 == first
    made = sys.modules["users_own_extractor"].instance
    made.scale.data += 1
    assert _users("instance").sha256 != first
    _write(users_module)
    assert _users("Means").sha256 == first
    users_module.write_text(users_module.read_text() + "# another line\n")
    assert _users("Means").sha256 != first


def test_extractor_not_finite_features_are_refused(users_module: Path) -> None:
    _write(users_module)
    images = _images().clamp(min=1)
    images[[3, 11]] = 0
    with pytest.raises(ValueError, match="2 of 20 feature vectors hold NaN or infinity"):
        _users("fails")(images)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inceptoin", "'inceptoin': allowed are digits, mnist"),
        ("no_such_module_of_mine:Net", "cannot be imported: No module named 'no_such_module_of_mine'. .* PYTHONPATH"),
        ("users_own_extractor:Absent", "cannot be imported: module 'users_own_extractor' has no attribute 'Absent'"),
        ("users_own_extractor:nothing", "a callable with an int attribute dim"),
    ],
)
def test_build_extractor_wrong_name_is_refused(users_module: Path, name: str, message: str) -> None:
    _write(users_module)
    with pytest.raises(ValueError, match=message):
        build_extractor(name)
