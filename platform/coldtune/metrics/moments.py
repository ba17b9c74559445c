"""Mean and covariance of features, one batch at a time, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


class FeatureMoments:
    """Streaming mean and covariance of feature vectors.

    Holds the count n, the mean and the scatter M = sum (f - mean)(f - mean)^T. Two holders are combined by the pairwise
    update of Chan, Golub and LeVeque (1979), M = M_a + M_b + (mean_b - mean_a)(mean_b - mean_a)^T n_a n_b / n, which
    never subtracts two large sums: any batch size, any order and any number of processes give the same moments to about
    1e-12 relative, also where the mean is far larger than the spread.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        """Start empty; `dim` is the length of one feature vector, `device` where the sums are kept."""
        self.n = 0
        self._mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @classmethod
    def of(cls, features: Tensor) -> FeatureMoments:
        """Moments of one tensor of features (N, dim)."""
        moments = cls(features.shape[-1], features.device)
        moments.update(features)
        return moments

    @property
    def dim(self) -> int:
        """Length of one feature vector."""
        return self._mean.numel()

    @property
    def mean(self) -> Tensor:
        """The mean (dim,), float64. ValueError when nothing was counted."""
        if self.n < 1:
            raise ValueError("the mean of 0 feature vectors is not defined")
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (dim, dim), divided by n - 1, float64. ValueError below 2 vectors."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, got {self.n}")
        return self._scatter / (self.n - 1)

    def update(self, features: Tensor) -> None:
        """Add features (B, dim), of any floating dtype. ValueError for another shape, and for NaN or infinity."""
        check_features(features, self.dim)
        if len(features) == 0:
            return
        batch = to_float64(features.detach()).to(self._mean.device)
        mean = batch.mean(0)
        centred = batch - mean
        self._combine(len(batch), mean, centred.T @ centred)

    def merge(self, other: FeatureMoments) -> None:
        """Add what `other` has counted (another process, another shard); `other` stays as it is."""
        if other.dim != self.dim:
            raise ValueError(f"moments of {other.dim} dimensions cannot be merged into moments of {self.dim}")
        if other.n:
            device = self._mean.device
            self._combine(other.n, other._mean.to(device), other._scatter.to(device))

    def all_reduce(self) -> None:
        """Merge the moments of all ranks of the default process group, in rank order: afterwards equal on every rank.

        Does nothing where no process group is initialised.
        """
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return
        # One float64 message; a count below 2^53 is exact in it.
        count = self._mean.new_tensor([float(self.n)])
        message = torch.cat([count, self._mean, self._scatter.flatten()])
        parts = [torch.empty_like(message) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, message)
        self.n = 0
        self._mean, self._scatter = torch.zeros_like(self._mean), torch.zeros_like(self._scatter)
        for part in parts:
            if n := int(part[0]):
                self._combine(n, part[1 : 1 + self.dim], part[1 + self.dim :].view(self.dim, self.dim))

    def _combine(self, n: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.n + n
        shift = mean - self._mean
        self._scatter = self._scatter + scatter + torch.outer(shift, shift) * (self.n * n / total)
        self._mean = self._mean + shift * (n / total)
        self.n = total


def to_float64(tensor: Tensor) -> Tensor:
    """`tensor` in float64, where it lies; on the CPU when its device has no float64 (Apple's MPS)."""
    return tensor.to(float64_device(tensor.device)).double()


def float64_device(device: torch.device) -> torch.device:
    """`device`, or the CPU in place of a device without float64."""
    return torch.device("cpu") if device.type == "mps" else device


def check_features(features: Tensor, dim: int) -> None:
    """ValueError unless `features` is a floating (B, dim) tensor of finite numbers; it says how many are not finite."""
    if features.ndim != 2 or features.shape[1] != dim or not features.is_floating_point():
        raise ValueError(
            f"features = {features.dtype} {tuple(features.shape)}: allowed are floating tensors (B, {dim})"
        )
    if bad := int((~torch.isfinite(features)).any(1).sum()):
        raise ValueError(f"{bad} of {len(features)} feature vectors hold NaN or infinity: were the images finite?")


def feature_sets(features: Tensor, reference: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Both sets (N, d) and (M, d) in float64 on the features' device.

    ValueError where their dimensions differ, a set has fewer than `least` vectors, or one is not finite.
    """
    if reference.ndim != 2:
        raise ValueError(f"reference features {tuple(reference.shape)}: allowed are (M, d)")
    for name, tensor in (("features", features), ("reference features", reference)):
        check_features(tensor, reference.shape[1])
        if len(tensor) < least:
            raise ValueError(f"{len(tensor)} {name}: this distance needs at least {least} of them")
    features = to_float64(features)
    return features, to_float64(reference).to(features.device)
