"""The ways in which a training step and a restorer may be computed, and the choice between them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

# Triton, which compiles for a GPU, supports cards from Volta on.
_LEAST_CAPABILITY = (7, 0)
_FAILED: list[str] = []  # why a compilation failed in this process


class CompileError(RuntimeError):
    """An error raised if a training step cannot be compiled or captured. Nothing of the training is lost."""


@dataclass(frozen=True)
class Way:
    """How a training step is computed. Ways differ in the last bits of every sum, so a training keeps its way.

    Attributes:
        static: Every step works on the same memory, in the same shapes. All other ways need that.
        compiled: The network and its loss are compiled by `torch.compile`, for static shapes.
        captured: The whole step is a CUDA graph: making the batch, both passes and the optimizer. Nothing is left to
            launch for Python.
        channels_last: Images and convolution weights lie in memory with the channels last, as tensor cores read them.
    """

    static: bool = False
    compiled: bool = False
    captured: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        assert self.static or not (self.compiled or self.captured or self.channels_last)

    def __str__(self) -> str:
        names = {"compiled": self.compiled, "CUDA graph": self.captured, "channels last": self.channels_last}
        return ", ".join(name for name, is_on in names.items() if is_on) or ("static" if self.static else "eager")

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of images and convolution weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


EAGER = Way()
FAST = Way(static=True, compiled=True, captured=True, channels_last=True)


def choose_way(setting: Literal["off", "auto"], device: torch.device | str, workers: int = 1) -> Way:
    """Return the way that `training.compile` asks for, or the eager way if it is not possible here.

    A warning names the reason if the setting asks for another way than the eager one, and it is not possible.

    Args:
        setting: `training.compile`.
        device: The device that trains.
        workers: The processes that train together.
    """
    if setting == "off":
        return EAGER
    why_not = _why_not(torch.device(device), workers)
    if why_not is None:
        return FAST
    warnings.warn(f"training.compile = 'auto': {why_not}, so the training runs eagerly", stacklevel=2)
    return EAGER


def record_failure(error: CompileError) -> None:
    """Make `choose_way` choose the eager way in this process from now on."""
    _FAILED.append(str(error))


def use_compile_cache(folder: Path) -> None:
    """Let torch and Triton keep what they compile in `folder`, unless the environment names other folders.

    A later process then loads the compiled step instead of compiling it again. By default torch keeps it in the
    system's temporary folder, which other users of a machine may prepare.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))


def _why_not(device: torch.device, workers: int) -> str | None:
    if device.type != "cuda":
        return f"it gains too little on a {device.type} device"
    if workers > 1:
        return f"{workers} workers train together"
    if _FAILED:
        return f"compiling failed in this process before ({_FAILED[0]})"
    if (capability := torch.cuda.get_device_capability(device)) < _LEAST_CAPABILITY:
        return f"a card of compute capability {capability[0]}.{capability[1]} is too old (7.0 is needed)"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is missing"
    if not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
        return "there is no C compiler (gcc)"
    return None
