"""What determines each stage's result, and so its key. Hardware, workers and versions are not part of it."""

from __future__ import annotations

from coldtune.config import digest, plain
from coldtune.data import Dataset
from coldtune.diffusion import build_degradation
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.metrics.protocol import Protocol
from coldtune.stages.trial import TrialConfig

# Raise one whenever the same configuration would give another result: old entries are then left alone.
TRAIN_VERSION = 1
SAMPLE_VERSION = 1
MEASURE_VERSION = 2  # 2: values with intervals, and influences
PRIOR_VERSION = 1

DEGRADED = "degraded"
PLAIN = {"kind": "data", "noise_scale": 0.0}  # the prior that a trial without one has


def train_key(config: TrialConfig, dataset: Dataset, source: Dataset | None = None) -> str:
    """Key of a training's trajectory: all that shapes it except its length; a checkpoint adds its step.

    source: the dataset from which the degradation draws, here and below.
    """
    parts = {
        "stage": "train",
        "version": TRAIN_VERSION,
        "pixels": dataset.fingerprint,
        "augmentation": {"crop_pad": config.data.crop_pad, "flip": config.data.flip},
        "degradation": _degradation(config, dataset),
        "restorer": plain(config.restorer),
        "training": config.training.trajectory(),
    }
    return digest(parts | _drawn_from(source))


def sample_key(
    config: TrialConfig, dataset: Dataset, sampler: SamplerConfig | None, source: Dataset | None = None
) -> str:
    """Key of the images of one sampler, from the protocol's degraded images or the trial's prior; None: those x_T."""
    parts = {
        "stage": "sample",
        "version": SAMPLE_VERSION,
        "pixels": dataset.fingerprint,
        "split": config.protocol.split,
        "num_images": config.protocol.num_images,
        "seed": config.protocol.seed,
        "degradation": _degradation(config, dataset),
        "sampler": plain(sampler) if sampler else DEGRADED,
        # The degraded images need no restorer: every trial that ends alike shares them.
        "checkpoint": [train_key(config, dataset, source), config.training.steps] if sampler else None,
    }
    if config.prior not in (None, PLAIN):
        parts["prior"] = [PRIOR_VERSION, config.prior]
    return digest(parts | _drawn_from(source))


def prior_key(config: TrialConfig, dataset: Dataset) -> str:
    """Key of what a prior learned from the training images."""
    return digest(
        {
            "stage": "prior",
            "version": PRIOR_VERSION,
            "pixels": dataset.fingerprint,
            "degradation": _degradation(config, dataset),
            "prior": {name: value for name, value in (config.prior or {}).items() if name != "noise_scale"},
            "seed": config.protocol.seed,
        }
    )


def measure_key(sample: str, protocol: Protocol) -> str:
    """Key of the values of one set of images under one protocol."""
    return digest({"stage": "measure", "version": MEASURE_VERSION, "images": sample, "protocol": protocol.key})


def _drawn_from(source: Dataset | None) -> dict[str, str]:
    return {"source": source.fingerprint} if source else {}


def _degradation(config: TrialConfig, dataset: Dataset) -> object:
    # As built, so that a default that is written out and one that is left out have one key.
    return plain(build_degradation(config.degradation, dataset.image_shape).config)
