"""The judgement of a set of images: values with intervals, and the numbers per image that a paired comparison needs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from coldtune.config import parse, plain
from coldtune.metrics.distances import check_distances, estimates
from coldtune.metrics.extractors import Extractor, batches
from coldtune.metrics.intervals import Interval, bootstrap_mean
from coldtune.metrics.observations import Observations
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.reference import Reference, check_extractor
from coldtune.metrics.registry import DISTANCES, IMAGE_SCORES
from coldtune.metrics.values import Value, check_same
from coldtune.tensor_files import save_tensors

VALUES_FILE, IMAGES_FILE = "metrics.json", "images.safetensors"


@dataclass(frozen=True, eq=False)
class Judgement:
    """The metrics of a set of images under one protocol.

    Influences and scores are in the order of `protocol.image_indices()`, so that two judgements under one protocol are
    paired image by image.

    Attributes:
        protocol: The protocol of all values.
        values: The value of each metric, with N, its protocol and its 95 % interval.
        influences: Each image's influence (N,), sum 0, on each distance.
        per_image: The per-image scores (`ssim`, `mse`), (N,) each. Empty for generated images.
        reference_influences: Each reference image's influence (M,), sum 0, on each distance whose interval covers other
            references too.
    """

    protocol: Protocol
    values: Mapping[str, Value]
    influences: Mapping[str, Tensor] = field(default_factory=dict)
    per_image: Mapping[str, Tensor] = field(default_factory=dict)
    reference_influences: Mapping[str, Tensor] = field(default_factory=dict)

    def save(self, directory: Path) -> None:
        """Write metrics.json (values, N, intervals, protocol) and images.safetensors (influences and scores)."""
        values = {
            name: {"value": _to_json(v.value), "low": _to_json(v.low), "high": _to_json(v.high), "n": v.n}
            for name, v in self.values.items()
        }
        record = {"values": values, "protocol": plain(self.protocol), "protocol_key": self.protocol.key}
        (directory / VALUES_FILE).write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")
        tensors = {f"influence/{name}": values for name, values in self.influences.items()}
        # float32 is enough for intervals, and there may be more reference images than judged images.
        tensors |= {f"reference/{name}": values.float() for name, values in self.reference_influences.items()}
        tensors |= {f"score/{name}": values for name, values in self.per_image.items()}
        save_tensors(tensors, directory / IMAGES_FILE)

    @classmethod
    def load(cls, directory: Path) -> Judgement:
        """Read the files that `save` wrote.

        Raises:
            ValueError: If metrics.json is no JSON, or its protocol is not one of this version.
        """
        judged = cls.of_values(json.loads((directory / VALUES_FILE).read_text(encoding="utf-8")))
        parts: dict[str, dict[str, Tensor]] = {"influence": {}, "reference": {}, "score": {}}
        for name, tensor in load_file(directory / IMAGES_FILE).items():
            part, _, metric = name.partition("/")
            parts[part][metric] = tensor.double()
        return cls(judged.protocol, judged.values, parts["influence"], parts["score"], parts["reference"])

    @classmethod
    def of_values(cls, record: Mapping[str, Any]) -> Judgement:
        """Return the judgement of a metrics.json alone. It has no tensors, so it cannot be compared image by image.

        Raises:
            ValueError: If its protocol is not one of this version.
        """
        protocol = parse(Protocol, record["protocol"], "protocol")
        values = {
            name: Value(name, float(v["value"]), v["n"], protocol, _from_json(v["low"]), _from_json(v["high"]))
            for name, v in record["values"].items()
        }
        return cls(protocol, values)

    def missing(self) -> list[str]:
        """Return the registered metrics that are missing here, in the order of the registry.

        A distance is also missing if its interval does not cover other references, although it could. Judgements of
        earlier versions take the reference as fixed.
        """
        distances = [
            name
            for name, distance in DISTANCES.items()
            if name not in self.values or (distance.reference_influences and name not in self.reference_influences)
        ]
        paired = self.protocol.task == "restored"
        return distances + [name for name in IMAGE_SCORES if paired and name not in self.values]

    def completed(self, more: Judgement) -> Judgement:
        """Return this judgement with the metrics that only `more` has, a judgement of the same images.

        Values of this judgement stay as they are. Only intervals that `missing` lists are replaced.

        Raises:
            ValueError: If the protocols differ.
        """
        check_same([self.protocol, more.protocol])
        new = {
            name: replace(value, value=self.values[name].value) if name in self.values else value
            for name, value in more.values.items()
            if name in self.missing()
        }
        known = {**self.values, **new}
        return Judgement(
            self.protocol,
            {name: known[name] for name in dict.fromkeys([*DISTANCES, *IMAGE_SCORES, *known]) if name in known},
            {**self.influences, **more.influences},
            {**more.per_image, **self.per_image},
            {**self.reference_influences, **more.reference_influences},
        )


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
    """Judge images by the distances called `names`, and by every image score if their originals are given.

    Features are extracted once for all distances. The intervals of distances are those of `estimates`. Image scores
    have a bootstrap interval under the protocol's seed, which draws images together with their originals. Intervals of
    distances cover another set of N images and, if the reference's features are given, another reference of the same
    size. Restored images are drawn together with their originals if these are in the reference (`Protocol.pairs`).

    If several processes share the images, use `Observations` and `judge_observed` instead.

    Args:
        images: The judged images, uint8 (N, C, H, W), in the order of `protocol.image_indices()`.
        clean: The originals in the same order, or None for generated images.
        extractor: The extractor that the protocol names.
        reference: The reference's moments (`reference_statistics`).
        protocol: The protocol of the judgement.
        reference_features: The reference's features (M, d) (`reference_features`). FID and FID-infinity need none.
        names: The distances to compute.
        batch_size: The number of images in a batch. It affects only the memory used.
        device: Runs the network. None uses the images' device.
        progress: Called after each batch with the share of extracted images, up to 1.0. Only arithmetic on features
            follows.

    Raises:
        ValueError: Before anything is extracted, if the images, the extractor or the reference are not those of the
            protocol, or reference features are missing. Later, if a metric refuses its input.
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
    """Judge images that a process or several processes have observed (see `Observations.reduce`).

    The result does not depend on which process observed an image, or in which batch. Arguments and errors are those of
    `judge`.

    Raises:
        ValueError: Also if images of `protocol.image_indices()` are missing or were observed twice.
    """
    _check_reference(reference, protocol)
    features, per_image = observations.ordered(protocol.image_indices())
    by_distance = estimates(
        features,
        reference_features,
        reference,
        names,
        protocol.seed,
        resample_reference=True,
        pairs=protocol.pairs(),
    )
    intervals = {name: estimate.interval for name, estimate in by_distance.items()}
    intervals |= score_intervals(per_image, protocol.seed)
    values = {
        name: Value(name, interval.value, protocol.num_images, protocol, interval.low, interval.high)
        for name, interval in intervals.items()
    }
    influences = {name: estimate.influences for name, estimate in by_distance.items()}
    of_reference = {
        name: estimate.reference_influences
        for name, estimate in by_distance.items()
        if estimate.reference_influences is not None
    }
    return Judgement(protocol, values, influences, per_image, of_reference)


def score_intervals(per_image: Mapping[str, Tensor], seed: int) -> dict[str, Interval]:
    """Return the image scores (`ssim`, `rmse`, `psnr`) with intervals that these per-image scores determine."""
    means = {name: bootstrap_mean(values, seed) for name, values in per_image.items()}
    return {
        name: means[score.per_image.name].map(score.of_mean)
        for name, score in IMAGE_SCORES.items()
        if score.per_image.name in means
    }


def _check_reference(reference: Reference, protocol: Protocol) -> None:
    if reference.key not in ("", protocol.reference_key):
        raise ValueError(
            "the reference was made under another protocol: compute `reference_statistics` under this protocol"
        )


def _to_json(number: float | None) -> float | str | None:
    """Return a number as JSON has it. JSON knows no infinity, so an infinite PSNR becomes "inf"."""
    return number if number is None or math.isfinite(number) else str(number)


def _from_json(number: float | str | None) -> float | None:
    return None if number is None else float(number)
