from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from coldtune.data import Dataset
from coldtune.metrics import Extractor, Reference, build_extractor, extract_features, image_set_metrics, rmse, ssim


class _Corners:
    """Exact features: four pixels, so the Frechet distance needs no network."""

    dim = 4

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, ::15, ::15].flatten(1).double() / 255


def _extractor() -> Extractor:
    return Extractor("corners", _Corners(), 4, "0" * 64, "as given")


def _sets(n: int = 61, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 200, (n, channels, 16, 16), generator=generator, dtype=torch.uint8)
    return clean + torch.randint(0, 50, clean.shape, generator=generator, dtype=torch.uint8), clean


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 61, 500])
def test_any_batch_size_and_order_gives_the_same_numbers(channels: int, batch_size: int) -> None:
    images, clean = _sets(channels=channels)
    reference = Reference.of(_Corners()(clean))
    whole = image_set_metrics(images, clean, _extractor(), reference)
    order = torch.randperm(61, generator=torch.Generator().manual_seed(2))
    shuffled = image_set_metrics(images[order], clean[order], _extractor(), reference, batch_size)
    assert whole == pytest.approx(shuffled, rel=1e-9)
    assert set(whole) == {"fid", "ssim", "rmse", "psnr"}
    assert whole["rmse"] == pytest.approx(rmse(images.double() / 255, clean.double() / 255), rel=1e-12)
    assert whole["ssim"] == pytest.approx(float(ssim(images.double() / 255, clean.double() / 255).mean()), rel=1e-12)
    assert whole["psnr"] == pytest.approx(-20 * np.log10(whole["rmse"]), rel=1e-9)


def test_the_originals_themselves_are_perfect(digits: Dataset) -> None:
    images, extractor = digits.split("validation").images, build_extractor("digits")
    features = extract_features(extractor, images)
    perfect = image_set_metrics(images, images, extractor, Reference.of(features), batch_size=50)
    assert perfect["fid"] < 1e-6
    assert (perfect["ssim"], perfect["rmse"], perfect["psnr"]) == (pytest.approx(1, rel=1e-12), 0, float("inf"))


def test_constant_images_have_a_finite_distance(digits: Dataset) -> None:
    images, extractor = digits.split("validation").images, build_extractor("digits")
    reference = Reference.of(extract_features(extractor, images))
    grey = torch.full_like(images, 60)
    metrics = image_set_metrics(grey, images, extractor, reference)
    # No spread: what is left is the shift of the means and the reference's own variance.
    shift = extractor(grey[:1])[0] - reference.mean
    assert metrics["fid"] == pytest.approx(float(shift @ shift + reference.covariance.trace()), rel=1e-6)


def test_generation_has_no_pairs() -> None:
    images, clean = _sets()
    assert set(image_set_metrics(images, None, _extractor(), Reference.of(_Corners()(clean)))) == {"fid"}


def test_other_forms_are_refused(digits: Dataset) -> None:
    images, clean = _sets()
    reference = Reference.of(_Corners()(clean))
    with pytest.raises(ValueError, match="an original per image"):
        image_set_metrics(images, clean[:10], _extractor(), reference)
    with pytest.raises(ValueError, match=r"allowed is uint8 \(B, C, H, W\)"):
        image_set_metrics(images.float(), clean, _extractor(), reference)
    with pytest.raises(ValueError, match="features of 4 dimensions against a reference of 3"):
        image_set_metrics(images, clean, _extractor(), Reference.of(_Corners()(clean)[:, :3]))
    with pytest.raises(ValueError, match="1 images: a distance between sets needs at least 2"):
        image_set_metrics(images[:1], clean[:1], _extractor(), reference)


def test_weights_are_found_beside_the_code() -> None:
    import coldtune.metrics

    assert (Path(coldtune.metrics.__file__).parent / "weights" / "digits.safetensors").is_file()
