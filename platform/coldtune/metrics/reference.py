"""The reference, to which judged images are compared: the moments and the features of a split's clean images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coldtune.metrics.cache import Cache, MemoryCache
from coldtune.metrics.extractors import Extractor, extract_features, extract_moments
from coldtune.metrics.moments import FeatureMoments
from coldtune.metrics.protocol import Protocol


@dataclass(frozen=True, eq=False)
class Reference:
    """The moments of the features of the reference's images, all float64.

    Attributes:
        mean: The mean (d,).
        covariance: The covariance (d, d), divided by n - 1.
        root: A factor (d, d) of the covariance, so that root root^T = covariance (see `covariance_factor`).
        n: The number of reference images.
        key: The hash of everything that determined the moments (`Protocol.reference_key`), or "" for moments that were
            made by hand.
        cache: Keeps what distances compute from the reference alone.
    """

    mean: Tensor
    covariance: Tensor
    root: Tensor
    n: int
    key: str = ""
    cache: Cache = field(default_factory=MemoryCache, repr=False)

    @classmethod
    def of(cls, features: Tensor | FeatureMoments, key: str = "") -> Reference:
        """Return the Reference of features (N, d) or of their moments."""
        moments = features if isinstance(features, FeatureMoments) else FeatureMoments.of(features)
        covariance = moments.covariance
        return cls(moments.mean, covariance, covariance_factor(covariance, moments.n - 1), moments.n, key)

    @property
    def dim(self) -> int:
        """The length of a feature vector."""
        return self.mean.numel()

    def keep(self, kind: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return tensors that the reference alone determines, computed once and then found in the cache.

        Comparing all pairs of 50,000 reference images takes a CPU a minute, much longer than judging 1,000 images.

        Args:
            kind: Names the tensors and every constant that they depend on.
            build: Computes them. They are kept on the CPU.
        """

        def on_cpu() -> dict[str, Tensor]:
            return {name: tensor.cpu() for name, tensor in build().items()}

        return self.cache.get(f"reference_{kind}", self.key, on_cpu)


def reference_statistics(
    extractor: Extractor,
    images: Tensor,
    protocol: Protocol,
    cache: Cache,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    features: Tensor | None = None,
) -> Reference:
    """Return the Reference of a split's clean images, computed once and then found in `cache`.

    Args:
        extractor: The extractor that the protocol names.
        images: All images of the split, uint8 (N, C, H, W).
        protocol: The protocol that names the reference.
        cache: Stores the moments under the protocol's `reference_key`, and later what distances compute from the
            reference alone.
        batch_size: The number of images in a batch. It affects only the memory used.
        device: Runs the network. None uses the images' device.
        features: The features of the images (`reference_features`) if they are known. Nothing is extracted then.

    Raises:
        ValueError: If the extractor or the number of images differs from those that the protocol names.
    """
    _check_reference(extractor, images, protocol)

    def build() -> dict[str, Tensor]:
        known = features if features is not None else extract_moments(extractor, images, batch_size, device)
        reference = Reference.of(known)
        tensors = {"mean": reference.mean, "covariance": reference.covariance, "root": reference.root}
        return {name: tensor.cpu() for name, tensor in tensors.items()}

    key = protocol.reference_key
    tensors = cache.get("reference", key, build)
    return Reference(tensors["mean"], tensors["covariance"], tensors["root"], len(images), key, cache)


def reference_features(
    extractor: Extractor,
    images: Tensor,
    protocol: Protocol,
    cache: Cache,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the features (M, d), float64, of a split's clean images, computed once and then found in `cache`.

    KID, MIND, precision and recall need them. They are stored apart from the moments, because they grow with M: 16 kB
    for each image at d = 2048. Arguments and errors are those of `reference_statistics`.
    """
    _check_reference(extractor, images, protocol)

    def build() -> dict[str, Tensor]:
        return {"features": extract_features(extractor, images, batch_size, device)}

    return cache.get("reference_features", protocol.reference_key, build)["features"]


def check_extractor(extractor: Extractor, protocol: Protocol) -> None:
    """Raise ValueError if the protocol names another extractor, or other weights."""
    if extractor.sha256 != protocol.extractor_sha256 or extractor.name != protocol.extractor:
        raise ValueError(
            f"extractor = {extractor.name!r} ({extractor.sha256[:12]}): the protocol names "
            f"{protocol.extractor!r} ({protocol.extractor_sha256[:12]})"
        )


def _check_reference(extractor: Extractor, images: Tensor, protocol: Protocol) -> None:
    check_extractor(extractor, protocol)
    if len(images) != protocol.reference_images:
        raise ValueError(f"{len(images)} reference images: the protocol names {protocol.reference_images}")


def covariance_factor(matrix: Tensor, rank: int | None = None) -> Tensor:
    """Return F with F F^T = matrix, for a covariance (d, d) of rank at most `rank`.

    F is eigenvectors times roots of eigenvalues, descending. So F^T S F falls from its first row to its last, and an
    eigensolver that reduces it in that order computes small eigenvalues to full relative precision. With the symmetric
    root every eigenvalue is off by 1e-16 of the largest eigenvalue, and its root by up to 1e-8. At d = 2048, with a
    spread that falls as 1 / k, FID was off by 1.3e-8 with the symmetric root and by 7e-13 with F.
    """
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    columns: Tensor = (vectors * eigenvalue_roots(values, rank)).flip(1)
    return columns


def eigenvalue_roots(eigenvalues: Tensor, rank: int | None) -> Tensor:
    """Return the square roots of ascending eigenvalues, with 0 for negative values and for all but the `rank` largest.

    Eigenvalues that are zero in exact arithmetic come out as +-1e-16 of the largest, so each root would be off by 1e-8
    of the largest root. A threshold would also cut small eigenvalues that are real. The rank of a covariance, n - 1, is
    known instead.
    """
    roots = eigenvalues.clamp(min=0).sqrt()
    if rank is not None and rank < len(roots):
        roots[: len(roots) - rank] = 0
    return roots
