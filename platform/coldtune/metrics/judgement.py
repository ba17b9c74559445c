"""One set of images judged: values with intervals, and per image what a paired comparison needs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coldtune.config import parse, plain
from coldtune.metrics.distances import distances
from coldtune.metrics.extractors import Extractor, batches, extract_features
from coldtune.metrics.frechet import Reference
from coldtune.metrics.image import ImageScores
from coldtune.metrics.intervals import Interval, bootstrap_mean, frechet_influences, jackknife_interval
from coldtune.metrics.kid import kid_influences
from coldtune.metrics.mind import mind_influences
from coldtune.metrics.moments import to_float64
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import Value

IMAGE_SCORES = {
    "ssim": "ssim",
    "rmse": "mse",
    "psnr": "mse",
}  # of the set, and the per-image score that it is a mean of

VALUES_FILE, IMAGES_FILE = "metrics.json", "images.safetensors"


@dataclass(frozen=True, eq=False)
class Judgement:
    """What one set of images is worth under one protocol.

    values: by metric, each with N, its protocol and, where one is known, its 95 % interval.
    influences: of `fid`, `kid` and `mind`, each image's influence (N,), sum 0.
    per_image: `ssim` and `mse` of each pair (N,), empty for generation.
    Influences and scores are in the order of `protocol.image_indices()`, so that two judgements under one protocol pair
    image by image.
    """

    protocol: Protocol
    values: Mapping[str, Value]
    influences: Mapping[str, Tensor] = field(default_factory=dict)
    per_image: Mapping[str, Tensor] = field(default_factory=dict)

    def save(self, directory: Path) -> None:
        """Write metrics.json (values, N, intervals, protocol) and images.safetensors (what is known of each image)."""
        values = {name: {"value": v.value, "low": v.low, "high": v.high, "n": v.n} for name, v in self.values.items()}
        record = {"values": values, "protocol": plain(self.protocol), "protocol_key": self.protocol.key}
        (directory / VALUES_FILE).write_text(json.dumps(record, indent=1))
        tensors = {f"influence/{name}": values for name, values in self.influences.items()}
        tensors |= {f"score/{name}": values for name, values in self.per_image.items()}
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, directory / IMAGES_FILE)

    @classmethod
    def load(cls, directory: Path) -> Judgement:
        """What `save` wrote; ValueError where it cannot be read."""
        record = json.loads((directory / VALUES_FILE).read_text())
        protocol = parse(Protocol, record["protocol"], "protocol")
        values = {name: Value(metric=name, protocol=protocol, **value) for name, value in record["values"].items()}
        parts: dict[str, dict[str, Tensor]] = {"influence": {}, "score": {}}
        for name, tensor in load_file(directory / IMAGES_FILE).items():
            part, _, metric = name.partition("/")
            parts[part][metric] = tensor
        return cls(protocol, values, parts["influence"], parts["score"])


def judge(
    images: Tensor,
    clean: Tensor | None,
    extractor: Extractor,
    reference: Reference,
    protocol: Protocol,
    reference_features: Tensor | None = None,
    names: Sequence[str] = ("fid",),
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> Judgement:
    """The distances called `names`, and SSIM, RMSE and PSNR against `clean`, of uint8 images (N, C, H, W).

    Features are extracted once for all distances. clean: the originals in the same order, or None for generation.
    reference_features: (M, d), needed by all distances but FID and FID-infinity (`reference_features` finds them).
    Intervals: FID, KID and MIND by the infinitesimal jackknife, the scores by a bootstrap under the protocol's seed;
    none is known for FID-infinity, precision and recall. batch_size changes nothing but memory.
    ValueError where the images or the reference are not the protocol's, reference features are missing, and as each
    metric.
    """
    if len(images) != protocol.num_images:
        raise ValueError(f"{len(images)} images: the protocol judges num_images = {protocol.num_images}")
    if reference.key not in ("", protocol.reference_key):
        raise ValueError("the reference was made under another protocol: take `reference_statistics` of this one")
    features = extract_features(extractor, images, batch_size, device)
    found = distances(features, reference_features, reference, names, protocol.seed)
    influences = _influences(features, reference_features, reference, names, protocol.seed)
    per_image = {} if clean is None else _per_image(images, clean, batch_size, device)
    intervals: dict[str, Interval | float] = {
        name: jackknife_interval(value, influences[name]) if name in influences else value
        for name, value in found.items()
    }
    intervals |= score_intervals(per_image, protocol.seed)
    values = {name: _value(name, interval, protocol) for name, interval in intervals.items()}
    return Judgement(protocol, values, influences, per_image)


def score_of(name: str, mean: float) -> float:
    """The set's `ssim`, `rmse` or `psnr` (dB; infinite for equal sets) from the mean of its per-image score."""
    if name == "psnr":
        return -10 * math.log10(mean) if mean > 0 else math.inf
    return math.sqrt(mean) if name == "rmse" else mean


def score_intervals(per_image: Mapping[str, Tensor], seed: int) -> dict[str, Interval]:
    """`ssim`, `rmse` and `psnr` with intervals, from the per-image scores; {} from none."""
    means = {name: bootstrap_mean(values, seed) for name, values in per_image.items()}
    return {
        name: means[score].map(lambda mean, name=name: score_of(name, mean))  # type: ignore[misc]
        for name, score in IMAGE_SCORES.items()
        if score in means
    }


def _value(name: str, found: Interval | float, protocol: Protocol) -> Value:
    if isinstance(found, float):
        return Value(name, found, protocol.num_images, protocol)
    low = max(found.low, 0.0) if name in ("fid", "mind") else found.low
    return Value(name, found.value, protocol.num_images, protocol, low, found.high)


def _influences(
    features: Tensor, reference_features: Tensor | None, reference: Reference, names: Sequence[str], seed: int
) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    if "fid" in names:
        made["fid"] = frechet_influences(reference, features)
    if "kid" in names and reference_features is not None:
        made["kid"] = kid_influences(features, reference_features)
    if "mind" in names and reference_features is not None:
        made["mind"] = mind_influences(features, reference_features, seed)
    return made


def _per_image(images: Tensor, clean: Tensor, batch_size: int, device: torch.device | str | None) -> dict[str, Tensor]:
    if clean.dtype != torch.uint8 or clean.shape != images.shape:
        raise ValueError(
            f"clean = {clean.dtype} {tuple(clean.shape)}: allowed is uint8 {tuple(images.shape)}, an original per image"
        )
    scores = ImageScores()
    for made, originals in zip(batches(images, batch_size, device), batches(clean, batch_size, device), strict=True):
        scores.update(to_float64(made) / 255, to_float64(originals) / 255)
    return scores.per_image
