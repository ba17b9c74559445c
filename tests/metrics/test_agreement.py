"""Agreement with torchmetrics and torch-fidelity, which receive the same features and images.

Tolerances: every side computes in float64, but the algorithms differ.

- FID: 1e-8 relative. Both packages take eigenvalues of the product of two covariances, which is not symmetric. That
  rounds by about the condition of its eigenvectors.
- KID and MMD: 1e-10. They are sums of the same products in another order.
- Precision and recall: 1e-6. They are counts, which torch-fidelity averages in float32.
- SSIM, RMSE and PSNR: 1e-5. torchmetrics keeps float32 inputs in float32.
"""

from __future__ import annotations

import pytest
import torch

from coldtune.metrics import (
    Extractor,
    Judgement,
    Protocol,
    Reference,
    distances,
    estimates,
    judge,
    psnr,
    rmse,
    ssim,
)

torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
torch_fidelity = pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class _AsGiven(torch.nn.Module):
    """A "network" for torchmetrics that returns its input, because the tests hand in features."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


SETS = [(300, 400, 16, 0.3, 1.2), (2000, 1500, 64, 0.0, 1.0), (500, 300, 32, 2.0, 0.5)]


def _sets(n: int, m: int, dim: int, shift: float, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    mix = _random(dim, dim, seed=2) / dim**0.5
    return scale * _random(n, dim) @ mix + shift, _random(m, dim, seed=1) @ mix


def _ours(x: torch.Tensor, y: torch.Tensor, name: str) -> tuple[float, float]:
    """Return our distance twice: alone, and with an interval as `judge` computes it."""
    return distances(x, y, names=[name])[name], estimates(x, y, names=[name])[name].interval.value


@pytest.mark.parametrize("sizes", SETS)
def test_fid_equals_torchmetrics_and_torch_fidelity(sizes: tuple[int, int, int, float, float]) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = _sets(*sizes)
    theirs = FrechetInceptionDistance(feature=_AsGiven(x.shape[1]))
    theirs.update(y, real=True)
    for batch in x.split(100):
        theirs.update(batch, real=False)
    statistics = [fid_features_to_statistics(features) for features in (x, y)]
    fidelity = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    for ours in _ours(x, y, "fid"):
        assert ours == pytest.approx(float(theirs.compute()), rel=1e-8)
        assert ours == pytest.approx(fidelity, rel=1e-8)


@pytest.mark.parametrize("sizes", SETS)
def test_kid_equals_torchmetrics_and_torch_fidelity(sizes: tuple[int, int, int, float, float]) -> None:
    from torch_fidelity.metric_kid import kernel_mmd
    from torchmetrics.image.kid import poly_mmd

    x, y = _sets(*sizes)
    x, y = x[:300], y[:300]  # both packages accept sets of equal size only
    # An unbiased KID is a difference of numbers near 1, so it rounds on the scale of the kernel and not of KID.
    scale = float(((x @ x.T / x.shape[1] + 1) ** 3).mean())
    fidelity = float(kernel_mmd(x.numpy(), y.numpy(), kid_kernel="poly"))
    for ours in _ours(x, y, "kid"):
        assert ours == pytest.approx(float(poly_mmd(x, y)), rel=1e-10, abs=1e-12 * scale)
        assert ours == pytest.approx(fidelity, rel=1e-10, abs=1e-12 * scale)


@pytest.mark.parametrize("sizes", SETS)
def test_precision_and_recall_equal_torch_fidelity(sizes: tuple[int, int, int, float, float]) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = _sets(*sizes)
    theirs = prc_features_to_metric(x, y, prc_neighborhood=3, verbose=False)
    for name in ("precision", "recall"):
        assert _ours(x, y, name) == pytest.approx((theirs[name],) * 2, rel=1e-6)


def _image_pairs(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (8, channels, 28, 32), generator=generator, dtype=torch.uint8)
    noise = torch.randint(0, 50, clean.shape, generator=generator)
    return (clean + noise).clamp(max=255).to(torch.uint8), clean


def _judged(images: torch.Tensor, clean: torch.Tensor) -> Judgement:
    extractor = Extractor("pixel", lambda batch: batch[:, 0, 0, :1].double(), 1, "0" * 64, "as given")
    protocol = Protocol(
        extractor="pixel", extractor_sha256="0" * 64, extractor_input="as given", dim=1, dataset="noise",
        dataset_fingerprint="1" * 64, image_shape=tuple(clean.shape[1:]), resize="none", split="test",
        num_images=len(clean), reference_images=len(clean), seed=0,
    )  # fmt: skip
    return judge(images, clean, extractor, Reference.of(extractor(clean)), protocol)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_scores_equal_torchmetrics(channels: int) -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    images, clean = _image_pairs(channels)
    judgement, a, b = _judged(images, clean), images / 255, clean / 255
    _, full = structural_similarity_index_measure(
        a, b, sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    # Their mean includes windows over the border, in which the image is mirrored. Ours includes the inner windows only.
    theirs = full[..., 5:-5, 5:-5].double().mean((1, 2, 3))
    torch.testing.assert_close(ssim(a, b), theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(judgement.per_image["ssim"], theirs, rtol=1e-5, atol=1e-5)
    assert judgement.values["ssim"].value == pytest.approx(float(theirs.mean()), rel=1e-5)
    whole = float(peak_signal_noise_ratio(a, b, data_range=1.0))
    assert judgement.values["psnr"].value == pytest.approx(whole, rel=1e-5)
    assert judgement.values["rmse"].value == pytest.approx(10 ** (-whole / 20), rel=1e-5)
    assert rmse(a, b) == pytest.approx(10 ** (-whole / 20), rel=1e-5)
    each = peak_signal_noise_ratio(a, b, data_range=1.0, dim=(1, 2, 3), reduction="none")
    torch.testing.assert_close(psnr(a, b), each.double(), rtol=1e-5, atol=1e-5)
