"""The same features and images given to torchmetrics and torch-fidelity.

Tolerances: all computes in float64, and they differ in the algorithm. FID 1e-8 relative: both take eigenvalues of the
product of two covariances without its symmetry, which rounds by about the condition of its eigenvectors. KID and MMD
1e-10: sums of the same products in another order. Precision and recall 1e-6: counts, averaged in float32 there. SSIM
and PSNR 1e-5: float32 inputs are kept in float32 there.
"""

from __future__ import annotations

import pytest
import torch

from coldtune.metrics import Reference, frechet_distance, kid, precision_recall, psnr, rmse, ssim

torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
torch_fidelity = pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class _AsGiven(torch.nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


SETS = [(300, 400, 16, 0.3, 1.2), (2000, 1500, 64, 0.0, 1.0), (500, 300, 32, 2.0, 0.5)]


def _sets(n: int, m: int, dim: int, shift: float, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    mix = _random(dim, dim, seed=2) / dim**0.5
    return scale * _random(n, dim) @ mix + shift, _random(m, dim, seed=1) @ mix


@pytest.mark.parametrize("sizes", SETS)
def test_fid(sizes: tuple[int, int, int, float, float]) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = _sets(*sizes)
    ours = frechet_distance(Reference.of(y), x)
    theirs = FrechetInceptionDistance(feature=_AsGiven(x.shape[1]))
    theirs.update(y, real=True)
    for batch in x.split(100):
        theirs.update(batch, real=False)
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-8)
    statistics = [fid_features_to_statistics(features) for features in (x, y)]
    found = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(found, rel=1e-8)


@pytest.mark.parametrize("sizes", SETS)
def test_kid(sizes: tuple[int, int, int, float, float]) -> None:
    from torch_fidelity.metric_kid import kernel_mmd
    from torchmetrics.image.kid import poly_mmd

    x, y = _sets(*sizes)
    x, y = x[:300], y[:300]  # both know equal sizes only
    # Without bias they are differences of numbers near 1, so the scale of rounding is that of the kernel, not of KID.
    ours, scale = kid(x, y), float(((x @ x.T / x.shape[1] + 1) ** 3).mean())
    assert ours == pytest.approx(float(poly_mmd(x, y)), rel=1e-10, abs=1e-12 * scale)
    theirs = kernel_mmd(x.numpy(), y.numpy(), kid_kernel="poly")
    assert ours == pytest.approx(float(theirs), rel=1e-10, abs=1e-12 * scale)


@pytest.mark.parametrize("sizes", SETS)
def test_precision_and_recall(sizes: tuple[int, int, int, float, float]) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = _sets(*sizes)
    theirs = prc_features_to_metric(x, y, prc_neighborhood=3, verbose=False)
    assert precision_recall(x, y) == pytest.approx((theirs["precision"], theirs["recall"]), rel=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_and_psnr(channels: int) -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    generator = torch.Generator().manual_seed(0)
    a = torch.rand(8, channels, 28, 32, generator=generator)
    b = (a + 0.2 * torch.rand(a.shape, generator=generator)).clamp(0, 1)
    _, full = structural_similarity_index_measure(
        a, b, sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    # Their mean also counts windows over the border, in which the image is mirrored; ours only those inside.
    theirs = full[..., 5:-5, 5:-5].double().mean((1, 2, 3))
    torch.testing.assert_close(ssim(a, b), theirs, rtol=1e-5, atol=1e-5)
    whole = peak_signal_noise_ratio(a, b, data_range=1.0)
    assert -20 * torch.log10(torch.tensor(rmse(a, b))) == pytest.approx(float(whole), rel=1e-5)
    each = peak_signal_noise_ratio(a, b, data_range=1.0, dim=(1, 2, 3), reduction="none")
    torch.testing.assert_close(psnr(a, b), each.double(), rtol=1e-5, atol=1e-5)
