"""The state of a device during a training: its generator, the images on it, and its arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

# A training split that takes more of the GPU's free memory than this stays in main memory.
_RESIDENT_SHARE = 0.25


def use_threads(count: int) -> None:
    """Compute every later operation of this process on `count` CPU threads, in torch and in NumPy's libraries.

    Without this call, the number of threads follows from the machine and from the trials that run at once, and so would
    the last bits of every result.
    """
    torch.set_num_threads(count)
    threadpool_limits(count)


def seed_dropout(device: torch.device, seed: int) -> None:
    """Seed the generator that dropout on `device` draws from."""
    if device.type == "cpu":
        # Not torch.manual_seed: it formats a stack trace for each GPU library that is not initialised (0.1 ms).
        torch.default_generator.manual_seed(seed % 2**63)
    else:
        torch.manual_seed(seed % 2**63)


def resident(images: Tensor, device: torch.device) -> Tensor:
    """Return `images` on the GPU if they take little of its free memory, otherwise unchanged."""
    if device.type == "cuda" and images.nbytes <= _RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return images.to(device)
    return images


@contextmanager
def arithmetic(dtype: str, device: torch.device) -> Iterator[None]:
    """Allow TF32 in CUDA operations if `dtype` is "tf32", else forbid it. Restore the earlier setting at the end."""
    if dtype == "tf32" and device.type != "cuda":
        warnings.warn(f"training.dtype = 'tf32' is ignored on a {device.type} device", stacklevel=3)
    if device.type != "cuda":
        yield
        return
    # The older switches. Beware: torch refuses to read them after newer switches set only part of an operator family.
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = dtype == "tf32"
        yield
    finally:
        for backend, old in zip(backends, before, strict=True):
            backend.allow_tf32 = old
