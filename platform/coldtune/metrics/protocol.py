"""The protocol: everything that a metric's value depends on besides the judged images."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from coldtune.config import Config, Neutral, digest
from coldtune.metrics.extractors import Extractor

if TYPE_CHECKING:
    from coldtune.data import Dataset

VERSION = 1  # increase it if a change of the code changes any value under the same protocol

Task = Literal["restored", "generated"]
ReferenceName = Literal["same", "other", "train"]
MOST_DRAWS = 100
_SEEDS = 2**63  # seeds are below this number
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
        split: The split whose images are restored and judged. Objectives use `validation`. Keep `test` for the final
            figure of the chosen trial.
        reference: The clean images with which distances compare. SSIM, RMSE and PSNR compare each image with its
            original, whatever the reference.

            - `same`: all images of the split, the originals of the judged images among them, as in the paper. The two
              sets are dependent. So unbiased distances are negative for good restorers, and intervals resample pairs.
            - `other`: the second half of the split. Images of the first half are judged, so N halves.
            - `train`: the training split. The restorer has seen these images, and generated images may copy them.
        num_images: N, the number of judged images. None judges the whole split. Generated images, which begin at a
            prior, may outnumber the split. A smaller N is faster and noisier, and FID rises as N falls (an objective
            needs N >= 4 d, see `check_objective`).
        seed: Chooses the images, and seeds every draw made while judging. It is the same for all trials, so that they
            are paired.
        draws: The number of protocol seeds under which a study judges each trained network: `seed`, `seed` + 1, and so
            on. All values are those of `seed`. The others only tell the variance over draws from that over images, and
            each costs another sampling. They need the whole split, because a seed also chooses the images.
    """

    extractor: str = Field("digits", pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?$")
    split: Literal["train", "validation", "test"] = "validation"
    num_images: int | None = Field(None, ge=LEAST_IMAGES, le=100_000_000)
    seed: int = Field(0, ge=0, lt=_SEEDS)
    reference: Annotated[ReferenceName, Neutral("same")] = "same"
    draws: Annotated[int, Neutral(1)] = Field(1, ge=1, le=MOST_DRAWS)

    @property
    def further_seeds(self) -> range:
        """The seeds of the further draws, beside `seed`."""
        return range(self.seed + 1, self.seed + self.draws)

    @model_validator(mode="after")
    def _check_seeds(self) -> ProtocolConfig:
        if self.seed + self.draws > _SEEDS:
            raise ValueError(f"draws = {self.draws}: with seed = {self.seed}, allowed: at most {_SEEDS - self.seed}")
        return self

    def without_further_draws(self) -> ProtocolConfig:
        """Return the section for a judgement under `seed` alone."""
        return self.model_copy(update={"draws": 1})


class Protocol(Config):
    """The resolved protocol, which is stored with every value. Values compare only if all parts are equal (`key`).

    Attributes:
        task: `restored` images began as degraded images of the split, and are also judged pair by pair. `generated`
            images began at a prior, or come from elsewhere.
        reference: As in `ProtocolConfig`.
        eligible_images: How many images of the split may be judged: the first of its canonical order. None stands for
            as many as the reference has, which is all of them with the reference `same`.
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
    reference: Annotated[ReferenceName, Neutral("same")] = "same"
    eligible_images: Annotated[int | None, Neutral(None)] = None

    @property
    def key(self) -> str:
        """The SHA-256 of all parts, 64 hex digits."""
        return digest(self)

    @property
    def reference_key(self) -> str:
        """The SHA-256 of the parts that determine the reference. Protocols that differ only in N or seed share it."""
        parts = {name: getattr(self, name) for name in _REFERENCE_PARTS} | {"split": self.reference_split}
        return digest(parts | ({"reference": "other"} if self.reference == "other" else {}))

    @property
    def reference_split(self) -> str:
        """The split that contains the reference."""
        return "train" if self.reference == "train" else self.split

    def describe(self) -> str:
        """Return the line that stands under a table."""
        restored = self.task == "restored"
        images = f"{self.num_images:,}" if restored else f"{self.num_images:,} generated, against those"
        split = self.split if restored else self.reference_split
        return (
            f"{self.extractor} features (d = {self.dim}, sha256 {self.extractor_sha256[:12]}), "
            f"N = {images} of {self.dataset}/{split} at {'x'.join(map(str, self.image_shape))} "
            f"({self.resize}, data {self.dataset_fingerprint[:12]}), reference {self.reference_images:,} images "
            f"({self.reference}), evaluation seed {self.seed}, 8 bit, {self.moments}, protocol {self.key[:12]}"
        )

    @property
    def most_images(self) -> int:
        """The number of images that can be judged: those of the split or its first half, or all generated images."""
        if self.task == "generated":
            return self.num_images
        return self.reference_images if self.eligible_images is None else self.eligible_images

    def image_indices(self) -> Tensor:
        """Return the number of each judged image, int64 (num_images,), ascending. It seeds the image's draws.

        Generated images are numbered from 0. The number of a restored image is its position in the split. The protocol
        judges the num_images positions of smallest SHA-256 of (seed, position), so a smaller N judges a subset of a
        larger N.
        """
        if self.num_images == self.most_images:
            return torch.arange(self.num_images)
        ranks = sorted(range(self.most_images), key=lambda i: hashlib.sha256(f"{self.seed}:{i}".encode()).digest())
        return torch.tensor(sorted(ranks[: self.num_images]))

    def pairs(self) -> Tensor | None:
        """Return the place in the reference of each judged image's original, int64 (num_images,).

        None if the judged images and the reference are independent of each other.
        """
        return self.image_indices() if self.reference == "same" and self.task == "restored" else None


def resolve(config: ProtocolConfig, extractor: Extractor, dataset: Dataset, task: Task = "restored") -> Protocol:
    """Return the protocol of `config` with this extractor on this dataset.

    Raises:
        ValueError: If images are restored and fewer than num_images may be judged, or the reference would not be
            independent although its name says so.
    """
    _check_reference(config, task)
    eligible = count_eligible(config, dataset)
    count = config.num_images or eligible
    if count > eligible and task == "restored":
        half = "first half of the " if config.reference == "other" else ""
        raise ValueError(
            f"protocol.num_images = {count}: the {half}{config.split} split of {dataset.name!r} has {eligible} images; "
            f"allowed: {LEAST_IMAGES}..{eligible}"
        )
    split = dataset.sizes[config.split]
    size = {"same": split, "other": split - eligible, "train": dataset.sizes["train"]}[config.reference]
    if size < LEAST_IMAGES:
        raise ValueError(
            f"protocol.reference = {config.reference!r}: leaves a reference of {size} images, and metrics need "
            f"{LEAST_IMAGES}; allowed: same"
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
        reference=config.reference,
        eligible_images=None if config.reference == "same" else eligible,
    )


def check_draws(config: ProtocolConfig, protocol: Protocol) -> None:
    """Raise ValueError if the draws of further seeds could not be told from the images."""
    if config.draws == 1:
        return
    if protocol.task == "generated":
        raise ValueError(
            f"protocol.draws = {config.draws}: each generated image begins at a draw of the prior, so images and draws "
            "are the same source of variance. Leave it out."
        )
    if protocol.num_images < (most := protocol.most_images):
        raise ValueError(
            f"protocol.draws = {config.draws}: another seed would also choose other images, because "
            f"{protocol.num_images} of {most} are judged. Judge all of them with protocol.num_images = null."
        )


def count_eligible(config: ProtocolConfig, dataset: Dataset) -> int:
    """Return how many images of the split may be judged: all of them, or the first half with the reference `other`."""
    images = dataset.split(config.split).images
    return first_half(images) if config.reference == "other" else len(images)


def first_half(images: Tensor) -> int:
    """Return how many images (N, ...) of a split are its first half, whose images `other` judges.

    The order of a split is that of hashes of its images, so each half is a random sample. Equal images are neighbours
    in that order, and they stay in the same half.
    """
    half = (len(images) + 1) // 2
    while half < len(images) and torch.equal(images[half - 1], images[half]):
        half += 1
    return half


def select_reference(dataset: Dataset, protocol: Protocol) -> Tensor:
    """Return the clean images of the protocol's reference, uint8 (reference_images, C, H, W)."""
    images = dataset.split(protocol.reference_split).images
    return images[protocol.eligible_images :] if protocol.reference == "other" else images


def _check_reference(config: ProtocolConfig, task: Task) -> None:
    where = f"protocol.reference = {config.reference!r}"
    if config.reference == "train" and config.split == "train":
        raise ValueError(
            f"{where}, protocol.split = 'train': the judged images would be their own reference; allowed: same, other"
        )
    if config.reference == "other" and task == "generated":
        raise ValueError(
            f"{where}: generated images have no originals, so they are independent of the whole split; allowed: same, "
            "train"
        )
