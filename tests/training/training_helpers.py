"""Helpers of several training tests. They are not in conftest.py, because tests cannot import that by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from coldtune.diffusion import build_restorer
from coldtune.training import FolderCheckpoints, TrainingTask

BLUR = {
    "kind": "blur",
    "steps": 8,
    "kernel_size": 5,
    "padding": "circular",
    "sigma": {"schedule": "exponential", "start": 0.5, "rate": 0.05},
}
FILES = ("weights", "ema", "optimizer")
# The message of torch if an allocation in main memory fails.
CPU_MESSAGE = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
)

MakeTask = Callable[..., TrainingTask]


class InterruptedTrainingError(Exception):
    """The error that `Reports` raises to interrupt a training."""


class Reports:
    """The reports of a training, by step. It raises after the report of step `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.stop_at = stop_at

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows[step] = dict(metrics)
        if step == self.stop_at:
            raise InterruptedTrainingError(step)


class LimitedRestorer(nn.Module):
    """A restorer on a device with room for the activations of `fits` images. The limit begins after `begin` calls."""

    fits, begin, calls, raised = 8, 0, 0, 0
    error: Callable[[str], Exception] = RuntimeError

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.inner = build_restorer(*args, **kwargs)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        LimitedRestorer.calls += 1
        if len(x) > LimitedRestorer.fits and LimitedRestorer.calls > LimitedRestorer.begin:
            LimitedRestorer.raised += 1
            raise LimitedRestorer.error(CPU_MESSAGE)
        restored: torch.Tensor = self.inner(x, t)
        return restored


def limit_memory(monkeypatch: pytest.MonkeyPatch, fits: int, begin: int = 0, error: Any = RuntimeError) -> None:
    """Make trainings use a `LimitedRestorer` with these settings, and reset its counters."""
    for name, value in {"fits": fits, "begin": begin, "error": error, "calls": 0, "raised": 0}.items():
        monkeypatch.setattr(LimitedRestorer, name, value)
    monkeypatch.setattr("coldtune.training.state.build_restorer", LimitedRestorer)


def tensors(checkpoints: FolderCheckpoints, step: int) -> dict[str, torch.Tensor]:
    """Return all tensors of the checkpoint of `step`, with the same names if a `LimitedRestorer` was trained."""
    found = checkpoints.latest(step)
    assert found
    assert found[0] == step
    loaded = {f"{file}.{k}": v for file in FILES for k, v in load_file(found[1] / f"{file}.safetensors").items()}
    return {name.replace("inner.", ""): tensor for name, tensor in loaded.items()}


def unequal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors that are not equal bit for bit."""
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def assert_same_rows(rows: Mapping[int, Mapping[str, float]], expected: Mapping[int, Mapping[str, float]]) -> None:
    """Assert that two trainings reported the same at the same steps, up to the order of float sums."""
    assert rows.keys() == expected.keys()
    for step, row in expected.items():
        assert rows[step].keys() == row.keys()
        for key in row.keys() - {"images_per_s"}:
            assert rows[step][key] == pytest.approx(row[key], rel=1e-4), f"{key} at step {step}"
