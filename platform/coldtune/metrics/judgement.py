"""One set of images judged: values with intervals, and per image what a paired comparison needs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coldtune.config import parse, plain
from coldtune.metrics.distances import check_distances, estimates
from coldtune.metrics.extractors import Extractor, batches
from coldtune.metrics.intervals import Interval, bootstrap_mean
from coldtune.metrics.observations import Observations
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.reference import Reference, check_extractor
from coldtune.metrics.registry import IMAGE_SCORES
from coldtune.metrics.values import Value

VALUES_FILE, IMAGES_FILE = "metrics.json", "images.safetensors"


@dataclass(frozen=True, eq=False)
class Judgement:
    """What one set of images is worth under one protocol.

    values: by metric, each with N, its protocol and its 95 % interval.
    influences: of the distances, each image's influence (N,), sum 0.
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
        values = {
            name: {"value": _written(v.value), "low": _written(v.low), "high": _written(v.high), "n": v.n}
            for name, v in self.values.items()
        }
        record = {"values": values, "protocol": plain(self.protocol), "protocol_key": self.protocol.key}
        (directory / VALUES_FILE).write_text(json.dumps(record, indent=1, allow_nan=False))
        tensors = {f"influence/{name}": values for name, values in self.influences.items()}
        tensors |= {f"score/{name}": values for name, values in self.per_image.items()}
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, directory / IMAGES_FILE)

    @classmethod
    def load(cls, directory: Path) -> Judgement:
        """What `save` wrote; ValueError where it cannot be read."""
        record = json.loads((directory / VALUES_FILE).read_text())
        protocol = parse(Protocol, record["protocol"], "protocol")
        values = {
            name: Value(name, float(v["value"]), v["n"], protocol, _read(v["low"]), _read(v["high"]))
            for name, v in record["values"].items()
        }
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
    progress: Callable[[float], None] | None = None,
) -> Judgement:
    """The distances called `names`, and SSIM, RMSE and PSNR against `clean`, of uint8 images (N, C, H, W).

    Features are extracted once for all distances. clean: the originals in the same order, or None for generation.
    reference_features: (M, d), needed by all distances but FID and FID-infinity (`reference_features` finds them).
    Intervals: of the distances as `estimates`, of the scores by a bootstrap under the protocol's seed; all for N images
    and a fixed reference. batch_size changes nothing but memory. progress is called after each batch with the share of
    images seen, up to 1.0; what follows is arithmetic on features.
    Where processes share the images, see `Observations` and `judge_observed`.
    ValueError, before anything is extracted, where the images, the extractor or the reference are not the protocol's
    or reference features are missing; and as each metric.
    """
    check_extractor(extractor, protocol)
    if len(images) != protocol.num_images:
        raise ValueError(f"{len(images)} images: the protocol judges num_images = {protocol.num_images}")
    if clean is not None and len(clean) != len(images):
        raise ValueError(f"clean: {len(clean)} images for {len(images)}: allowed is an original per image")
    _check_reference(reference, protocol)
    check_distances(reference_features, reference, names)
    observations = Observations(extractor.dim, pairs=clean is not None)
    originals: Iterable[Tensor | None] = repeat(None) if clean is None else batches(clean, batch_size, device)
    numbers = batches(protocol.image_indices(), batch_size)
    for part, batch, original in zip(numbers, batches(images, batch_size, device), originals, strict=False):
        observations.observe(part, batch, original, extractor)
        if progress is not None:
            progress(observations.n / len(images))
    return judge_observed(observations, reference, protocol, reference_features, names)


def judge_observed(
    observations: Observations,
    reference: Reference,
    protocol: Protocol,
    reference_features: Tensor | None = None,
    names: Sequence[str] = ("fid",),
) -> Judgement:
    """`judge` of what was seen of the images of `protocol.image_indices()`, by one process or by several (`reduce`).

    It does not depend on who saw which image in which batch. Arguments and errors as `judge`; ValueError too where
    images are missing or were seen twice.
    """
    _check_reference(reference, protocol)
    features, per_image = observations.ordered(protocol.image_indices())
    found = estimates(features, reference_features, reference, names, protocol.seed)
    intervals = {name: estimate.interval for name, estimate in found.items()}
    intervals |= score_intervals(per_image, protocol.seed)
    values = {
        name: Value(name, interval.value, protocol.num_images, protocol, interval.low, interval.high)
        for name, interval in intervals.items()
    }
    return Judgement(protocol, values, {name: estimate.influences for name, estimate in found.items()}, per_image)


def score_intervals(per_image: Mapping[str, Tensor], seed: int) -> dict[str, Interval]:
    """`ssim`, `rmse` and `psnr` with intervals, from the per-image scores; {} from none."""
    means = {name: bootstrap_mean(values, seed) for name, values in per_image.items()}
    return {
        name: means[score.per_image.name].map(score.of_mean)
        for name, score in IMAGE_SCORES.items()
        if score.per_image.name in means
    }


def _check_reference(reference: Reference, protocol: Protocol) -> None:
    if reference.key not in ("", protocol.reference_key):
        raise ValueError("the reference was made under another protocol: take `reference_statistics` of this one")


def _written(number: float | None) -> float | str | None:
    """A number as JSON has it, which knows no infinity: PSNR's is written "inf"."""
    return number if number is None or math.isfinite(number) else str(number)


def _read(number: float | str | None) -> float | None:
    return None if number is None else float(number)
