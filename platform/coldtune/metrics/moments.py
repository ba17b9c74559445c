"""Mean and covariance of features, batch by batch, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


class FeatureMoments:
    """A streaming mean and covariance of feature vectors.

    It keeps the count n, the mean and the scatter M = sum (f - mean)(f - mean)^T. A batch is added by the pairwise
    update of Chan, Golub and LeVeque (1979), M = M_a + M_b + (mean_b - mean_a)(mean_b - mean_a)^T n_a n_b / n. It never
    subtracts two large sums, so any batch size and any order produce the same moments to about 1e-12 relative, even if
    the mean is far larger than the spread.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        """Create moments of no vectors.

        Args:
            dim: The length of a feature vector.
            device: The device that stores the sums. It must have float64.
        """
        self.n = 0
        self._mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @classmethod
    def of(cls, features: Tensor) -> FeatureMoments:
        """Return the moments of features (N, dim)."""
        moments = cls(features.shape[-1], features.device)
        moments.update(features)
        return moments

    @property
    def dim(self) -> int:
        """The length of a feature vector."""
        return self._mean.numel()

    @property
    def mean(self) -> Tensor:
        """The mean (dim,), float64. Raises ValueError if no vector was added."""
        if self.n < 1:
            raise ValueError("the mean of 0 feature vectors is not defined")
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (dim, dim), divided by n - 1, float64. Raises ValueError below 2 vectors."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, got {self.n}")
        return self._scatter / (self.n - 1)

    def update(self, features: Tensor) -> None:
        """Add features (B, dim) of any floating dtype.

        Raises:
            ValueError: If the shape differs, or a feature is NaN or infinite. The moments then stay as they were.
        """
        check_features(features, self.dim)
        if len(features) == 0:
            return
        batch = to_float64(features.detach()).to(self._mean.device)
        mean = batch.mean(0)
        centred = batch - mean
        total, shift = self.n + len(batch), mean - self._mean
        self._scatter = self._scatter + centred.T @ centred + torch.outer(shift, shift) * (self.n * len(batch) / total)
        self._mean = self._mean + shift * (len(batch) / total)
        self.n = total


def to_float64(tensor: Tensor) -> Tensor:
    """Return `tensor` in float64 on its own device, or on the CPU if that device has no float64 (Apple's MPS)."""
    return tensor.to(float64_device(tensor.device)).double()


def float64_device(device: torch.device) -> torch.device:
    """Return `device`, or the CPU in place of a device without float64."""
    return torch.device("cpu") if device.type == "mps" else device


def check_features(features: Tensor, dim: int) -> None:
    """Raise ValueError unless `features` is a floating (B, dim) tensor of finite numbers.

    The message counts the vectors that are not finite.
    """
    if features.ndim != 2 or features.shape[1] != dim or not features.is_floating_point():
        raise ValueError(
            f"features = {features.dtype} {tuple(features.shape)}: allowed are floating tensors (B, {dim})"
        )
    if bad := int((~torch.isfinite(features)).any(1).sum()):
        raise ValueError(f"{bad} of {len(features)} feature vectors hold NaN or infinity: were the images finite?")


def feature_sets(features: Tensor, reference: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Return both sets (N, d) and (M, d) in float64 on the features' device.

    Raises:
        ValueError: If the dimensions differ, a set has fewer than `least` vectors, or a vector is not finite.
    """
    if reference.ndim != 2:
        raise ValueError(f"reference features {tuple(reference.shape)}: allowed are (M, d)")
    for name, tensor in (("features", features), ("reference features", reference)):
        check_features(tensor, reference.shape[1])
        if len(tensor) < least:
            raise ValueError(f"{len(tensor)} {name}: this distance needs at least {least} of them")
    features = to_float64(features)
    return features, to_float64(reference).to(features.device)
