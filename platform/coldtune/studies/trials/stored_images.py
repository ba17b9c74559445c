"""The images of a study's trials in the store, and their originals."""

from __future__ import annotations

from pathlib import Path

import torch
from optuna.trial import FrozenTrial
from safetensors import SafetensorError, safe_open
from torch import Tensor

from coldtune.data import Dataset
from coldtune.metrics.protocol import Protocol
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.trials.reading import StudyReader


def sampled_images(reader: StudyReader, trial: FrozenTrial, count: int) -> Tensor | None:
    """Return the first images that a trial's own sampler made, uint8 (count, C, H, W). None if they cannot be read."""
    file = _file(reader, trial, "images.safetensors")
    return _read(file, count).get("images") if file else None


def sampling_path(reader: StudyReader, trial: FrozenTrial, count: int) -> list[tuple[int, Tensor]]:
    """Return the severities s that a trial's sampler visited, falling to 0, each with the images x_s.

    The list is empty if the images cannot be read.
    """
    file = _file(reader, trial, "strip.safetensors")
    path = _read(file, count) if file else {}
    return sorted(((int(s), images) for s, images in path.items()), key=lambda item: -item[0])


def originals(dataset: Dataset, protocol: Protocol, count: int) -> Tensor | None:
    """Return the originals of the first images, uint8 (count, C, H, W). None if the study generates images."""
    if protocol.task == "generated":
        return None
    return dataset.split(protocol.split).images[protocol.image_indices()[:count]]


def _file(reader: StudyReader, trial: FrozenTrial, name: str) -> Path | None:
    address = TrialRecord.of(trial).images.get("sampled")
    if address is None:
        return None
    try:
        path = reader.local_folder(address) / name
    except (OSError, ValueError):  # removed from the store
        return None
    return path if path.is_file() else None


def _read(file: Path, count: int) -> dict[str, Tensor]:
    """Return the first images of each set in a file. It is empty if the file is damaged."""
    try:
        with safe_open(file, "pt") as tensors:
            sets = {name: tensors.get_slice(name)[:count] for name in tensors.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError):
        return {}
    return sets if all(map(_are_pictures, sets.values())) else {}


def _are_pictures(images: Tensor) -> bool:
    """Return False for tensors of a damaged file, which are no images."""
    return images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] in (1, 3) and images.numel() > 0
