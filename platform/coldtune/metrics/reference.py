"""What generated images are compared with: the moments and the features of the reference's images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from coldtune.metrics.cache import Cache
from coldtune.metrics.extractors import Extractor, extract_features, extract_moments
from coldtune.metrics.moments import FeatureMoments
from coldtune.metrics.protocol import Protocol


@dataclass(frozen=True, eq=False)
class Reference:
    """What a set of images is compared with: the moments of the reference's features.

    mean (d,), covariance (d, d) with n - 1, and root, a factor of it (root root^T = covariance, see `factor`): all
    float64. n is the number of reference images; key the hash of all that determined them (`Protocol.reference_key`),
    empty where made by hand.
    """

    mean: Tensor
    covariance: Tensor
    root: Tensor
    n: int
    key: str = ""

    @classmethod
    def of(cls, features: Tensor | FeatureMoments, key: str = "") -> Reference:
        """Reference of features (N, d), or of moments already taken."""
        moments = features if isinstance(features, FeatureMoments) else FeatureMoments.of(features)
        covariance = moments.covariance
        return cls(moments.mean, covariance, factor(covariance, moments.n - 1), moments.n, key)

    @property
    def dim(self) -> int:
        """Length of one feature vector."""
        return self.mean.numel()


def reference_statistics(
    extractor: Extractor,
    images: Tensor,
    protocol: Protocol,
    cache: Cache,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    features: Tensor | None = None,
) -> Reference:
    """The Reference of uint8 images (N, C, H, W) under `protocol`; extracted once (on `device`), then found in `cache`.

    features: those of the images (`reference_features`), where they are at hand, so that nothing is extracted twice.
    ValueError where the extractor or the number of images is not the one that the protocol names.
    """
    _check_reference(extractor, images, protocol)

    def build() -> dict[str, Tensor]:
        made = Reference.of(
            features if features is not None else extract_moments(extractor, images, batch_size, device)
        )
        tensors = {"mean": made.mean, "covariance": made.covariance, "root": made.root}
        return {name: tensor.cpu() for name, tensor in tensors.items()}

    key = protocol.reference_key
    found = cache.get("reference", key, build)
    return Reference(found["mean"], found["covariance"], found["root"], len(images), key)


def reference_features(
    extractor: Extractor,
    images: Tensor,
    protocol: Protocol,
    cache: Cache,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> Tensor:
    """Features (M, d), float64, of the reference's images, for KID, MIND, precision and recall; found in `cache`.

    Apart from the moments, because they grow with M: 16 kB an image at d = 2048. Errors as `reference_statistics`.
    """
    _check_reference(extractor, images, protocol)

    def build() -> dict[str, Tensor]:
        return {"features": extract_features(extractor, images, batch_size, device)}

    return cache.get("reference_features", protocol.reference_key, build)["features"]


def check_extractor(extractor: Extractor, protocol: Protocol) -> None:
    """ValueError where the extractor, weights included, is not the one that the protocol names."""
    if extractor.sha256 != protocol.extractor_sha256 or extractor.name != protocol.extractor:
        raise ValueError(
            f"extractor = {extractor.name!r} ({extractor.sha256[:12]}): the protocol names "
            f"{protocol.extractor!r} ({protocol.extractor_sha256[:12]})"
        )


def _check_reference(extractor: Extractor, images: Tensor, protocol: Protocol) -> None:
    check_extractor(extractor, protocol)
    if len(images) != protocol.reference_images:
        raise ValueError(f"{len(images)} reference images: the protocol names {protocol.reference_images}")


def factor(matrix: Tensor, rank: int | None = None) -> Tensor:
    """The F with F F^T = matrix, for a covariance (d, d) of rank at most `rank`: eigenvectors times roots, descending.

    With it F^T S F falls from its first row to its last, and an eigensolver that reduces it in that order keeps small
    eigenvalues to digits of their own. With the symmetric root all are off by 1e-16 of the largest, their roots by up
    to 1e-8: at d = 2048, with a spread that falls as 1 / k, FID was off by 1.3e-8 with that root and by 7e-13 with F.
    """
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    columns: Tensor = (vectors * eigenvalue_roots(values, rank)).flip(1)
    return columns


def eigenvalue_roots(eigenvalues: Tensor, rank: int | None) -> Tensor:
    """Square roots of ascending eigenvalues: 0 for negative ones and for all but the `rank` largest.

    Eigenvalues that are zero in exact arithmetic come out as +-1e-16 of the largest, so each root would be off by 1e-8
    of its root. A threshold would cut true small ones too; the rank of a covariance, n - 1, is known.
    """
    roots = eigenvalues.clamp(min=0).sqrt()
    if rank is not None and rank < len(roots):
        roots[: len(roots) - rank] = 0
    return roots
