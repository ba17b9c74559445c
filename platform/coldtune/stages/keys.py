"""The keys of stages: the SHA-256 of everything that determines a stage's result, as canonical JSON.

A key contains the kind of device and, on a CPU, the number of threads (`coldtune.stages.compute`). The model of the
hardware, the number of workers and software versions are not part of it. Every entry's manifest names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coldtune.config import digest, identity
from coldtune.data import Dataset
from coldtune.diffusion import build_degradation
from coldtune.diffusion.priors import prior_config
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.metrics.protocol import Protocol
from coldtune.stages.compute import Compute, part_of_key
from coldtune.stages.trial import TrialConfig
from coldtune.stages.weights import Weights

# Increase a version when the same configuration starts to have another result. Entries of the old version are then no
# longer found.
TRAIN_VERSION = 1
SAMPLE_VERSION = 1
MEASURE_VERSION = 2  # 2: values with intervals, and influences
PRIOR_VERSION = 1

DEGRADED = "degraded"
PLAIN = {"kind": "data", "noise_scale": 0.0}
"""The prior of a trial without one."""


def train_key(
    config: TrialConfig, dataset: Dataset, source: Dataset | None = None, compute: Compute | None = None
) -> str:
    """Return the key of a training's trajectory: everything that shapes it except its length.

    A checkpoint's key adds its step.

    Args:
        source: The dataset from which the degradation draws images, if it does.
        compute: How the training computes. None for work of an unknown number of threads.
    """
    parts = {
        "stage": "train",
        "version": TRAIN_VERSION,
        "pixels": dataset.fingerprint,
        "augmentation": {"crop_pad": config.data.crop_pad, "flip": config.data.flip},
        "degradation": _degradation(config, dataset),
        "restorer": identity(config.restorer),
        "training": config.training.trajectory(),
    }
    return digest(parts | _source_part(source) | part_of_key(compute))


def sample_key(
    config: TrialConfig,
    dataset: Dataset,
    sampler: SamplerConfig | None,
    source: Dataset | None = None,
    compute: Compute | None = None,
    trained: str | None = None,
) -> str:
    """Return the key of the images that a sampler makes from the protocol's degraded images or from the prior.

    Args:
        sampler: None for the images x_T from which sampling starts.
        source: The dataset from which the degradation draws images, if it does.
        compute: How the sampling computes. None for work of an unknown number of threads.
        trained: The key of the restorer's training. None for the training that computes as the sampling does.
    """
    weights = Weights.of(config.training, sampler) if sampler else None
    parts = {
        "stage": "sample",
        "version": SAMPLE_VERSION,
        "pixels": dataset.fingerprint,
        "split": config.protocol.split,
        "num_images": config.protocol.num_images,
        "seed": config.protocol.seed,
        "degradation": _degradation(config, dataset),
        # The same weights have the same key, whether they are those of a step or of the end of a shorter training.
        "sampler": identity(sampler.without_weights()) if sampler else DEGRADED,
        # The degraded images need no restorer, so all trials with the same end severity share them.
        "checkpoint": [trained or train_key(config, dataset, source, compute), weights.step] if weights else None,
        **(weights.part_of_key() if weights else {}),
    }
    if config.protocol.reference == "other":
        parts["judged"] = "first half"
    if (prior := _prior(config)) not in (None, PLAIN):
        parts["prior"] = [PRIOR_VERSION, prior]
    return digest(parts | _source_part(source) | part_of_key(compute))


def prior_key(config: TrialConfig, dataset: Dataset, compute: Compute | None = None) -> str:
    """Return the key of the parameters that a prior learned from the training images."""
    return digest(
        part_of_key(compute)
        | {
            "stage": "prior",
            "version": PRIOR_VERSION,
            "pixels": dataset.fingerprint,
            "degradation": _degradation(config, dataset),
            "prior": {name: value for name, value in (_prior(config) or {}).items() if name != "noise_scale"},
            "seed": config.protocol.seed,
        }
    )


def measure_key(sample: str, protocol: Protocol, compute: Compute | None = None) -> str:
    """Return the key of the values of a set of images, given by its sample key, under a protocol."""
    parts = {"stage": "measure", "version": MEASURE_VERSION, "images": sample, "protocol": protocol.key}
    return digest(parts | part_of_key(compute))


def completion_key(measured: str, missing: Sequence[str], compute: Compute | None = None) -> str:
    """Return the key of values that complete an entry.

    Args:
        measured: The entry's measure key.
        missing: The metrics that the entry lacks (`Judgement.missing`).
        compute: How the missing metrics are computed.
    """
    return digest({"stage": "measure", "completes": measured, "metrics": sorted(missing)} | part_of_key(compute))


def _source_part(source: Dataset | None) -> dict[str, str]:
    return {"source": source.fingerprint} if source else {}


def _prior(config: TrialConfig) -> Any:
    return None if config.prior is None else identity(prior_config(config.prior))


def _degradation(config: TrialConfig, dataset: Dataset) -> object:
    # The built degradation's configuration, so that a default has the same key whether or not it is written out.
    return identity(build_degradation(config.degradation, dataset.image_shape).config)
