"""The protocol: everything that a metric's value depends on besides the judged images."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from coldtune.config import Config, digest
from coldtune.metrics.extractors import Extractor

if TYPE_CHECKING:
    from coldtune.data import Dataset

VERSION = 1  # increase it if a change of the code changes any value under the same protocol

Task = Literal["restored", "generated"]
LEAST_IMAGES = 5  # enough for every metric: recall leaves an image out and needs 3 neighbours of another image

_REFERENCE_PARTS = (
    "version", "extractor", "extractor_sha256", "extractor_input", "dim", "dataset", "dataset_fingerprint",
    "image_shape", "resize", "split", "reference_images", "moments", "tf32",
)  # fmt: skip


class ProtocolConfig(Config):
    """The section `protocol:` of a user's configuration, which says how trials are judged.

    Attributes:
        extractor: A shipped extractor (a key of `coldtune.metrics.extractors.EXTRACTORS`), or `module:attribute` of
            your own. Distances of different extractors have different scales and rank models differently.
        split: The split whose images are restored and judged, and whose clean images are the reference. Objectives use
            `validation`. Keep `test` for the final figure of the chosen trial.
        num_images: N, the number of judged images. None judges the whole split. Generated images, which begin at a
            prior, may outnumber the split. A smaller N is faster and noisier, and FID rises as N falls (an objective
            needs N >= 4 d, see `check_objective`).
        seed: Chooses the images, and seeds every draw made while judging. It is the same for all trials, so that they
            are paired.
    """

    extractor: str = Field("digits", pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?$")
    split: Literal["train", "validation", "test"] = "validation"
    num_images: int | None = Field(None, ge=LEAST_IMAGES, le=100_000_000)
    seed: int = Field(0, ge=0, lt=2**63)


class Protocol(Config):
    """The resolved protocol, which is stored with every value. Values compare only if all parts are equal (`key`).

    Attributes:
        task: `restored` images began as degraded images of the split, and are also judged pair by pair. `generated`
            images began at a prior, or come from elsewhere.
    """

    extractor: str
    extractor_sha256: str
    extractor_input: str
    dim: int
    dataset: str
    dataset_fingerprint: str
    image_shape: tuple[int, int, int]
    resize: str
    split: str
    task: Task = "restored"
    num_images: int
    reference_images: int
    seed: int
    rounding: str = "uint8, to nearest"
    moments: str = "float64, n - 1"
    tf32: bool = False
    version: int = VERSION

    @property
    def key(self) -> str:
        """The SHA-256 of all parts, 64 hex digits."""
        return digest(self)

    @property
    def reference_key(self) -> str:
        """The SHA-256 of the parts that determine the reference. Protocols that differ only in N or seed share it."""
        return digest({name: getattr(self, name) for name in _REFERENCE_PARTS})

    def describe(self) -> str:
        """Return the line that stands under a table."""
        images = f"{self.num_images:,}" if self.task == "restored" else f"{self.num_images:,} generated, against those"
        return (
            f"{self.extractor} features (d = {self.dim}, sha256 {self.extractor_sha256[:12]}), "
            f"N = {images} of {self.dataset}/{self.split} at {'x'.join(map(str, self.image_shape))} "
            f"({self.resize}, data {self.dataset_fingerprint[:12]}), reference {self.reference_images:,} images, "
            f"evaluation seed {self.seed}, 8 bit, {self.moments}, protocol {self.key[:12]}"
        )

    def image_indices(self) -> Tensor:
        """Return the number of each judged image, int64 (num_images,), ascending. It seeds the image's draws.

        Generated images are numbered from 0. The number of a restored image is its position in the split. The protocol
        judges the num_images positions of smallest SHA-256 of (seed, position), so a smaller N judges a subset of a
        larger N.
        """
        size = self.reference_images
        if self.num_images == size or self.task == "generated":
            return torch.arange(self.num_images)
        ranks = sorted(range(size), key=lambda i: hashlib.sha256(f"{self.seed}:{i}".encode()).digest())
        return torch.tensor(sorted(ranks[: self.num_images]))


def resolve(config: ProtocolConfig, extractor: Extractor, dataset: Dataset, task: Task = "restored") -> Protocol:
    """Return the protocol of `config` with this extractor on this dataset.

    The reference is all clean images of the split.

    Raises:
        ValueError: If images are restored, and the split has fewer than num_images.
    """
    size = len(dataset.split(config.split).images)
    count = config.num_images or size
    if count > size and task == "restored":
        raise ValueError(
            f"protocol.num_images = {count}: the {config.split} split of {dataset.name!r} has {size} images; allowed: "
            f"{LEAST_IMAGES}..{size}"
        )
    return Protocol(
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        extractor_input=extractor.input,
        dim=extractor.dim,
        dataset=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        image_shape=dataset.image_shape,
        resize=dataset.manifest.resize,
        split=config.split,
        task=task,
        num_images=count,
        reference_images=size,
        seed=config.seed,
    )
