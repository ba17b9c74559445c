"""What a device is told before and while a restorer is trained on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# A training split that takes more of the GPU's free memory than this stays in main memory.
_RESIDENT_SHARE = 0.25


def seed_dropout(device: torch.device, seed: int) -> None:
    """Seed the generator that dropout on `device` draws from."""
    if device.type == "cpu":
        # torch.manual_seed formats a stack trace for every GPU library that is not initialised: 0.1 ms.
        torch.default_generator.manual_seed(seed % 2**63)
    else:
        torch.manual_seed(seed % 2**63)


def resident(images: Tensor, device: torch.device) -> Tensor:
    """`images` on the GPU where they take little of it, otherwise where they are."""
    if device.type == "cuda" and images.nbytes <= _RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return images.to(device)
    return images


@contextmanager
def arithmetic(dtype: str, device: torch.device) -> Iterator[None]:
    """TF32 as `dtype` says, in every CUDA operation; whatever it was is restored."""
    if dtype == "tf32" and device.type != "cuda":
        warnings.warn(f"training.dtype = 'tf32' is ignored on a {device.type} device", stacklevel=3)
    if device.type != "cuda":
        yield
        return
    # The older switches: torch refuses to read them once the newer ones set only some of an operator family.
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = dtype == "tf32"
        yield
    finally:
        for place, old in zip(places, before, strict=True):
            place.allow_tf32 = old
