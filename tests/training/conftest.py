"""The digits at 8 x 8, a blur of 8 steps and the smallest restorer: a training step takes milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from training_helpers import BLUR, MakeTask

from coldtune.data import DataConfig, Dataset, prepare
from coldtune.diffusion import RestorerConfig
from coldtune.training import TrainingConfig, TrainingTask


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Many threads on batches of eight images cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(DataConfig(name="digits", image_size=8), tmp_path_factory.mktemp("home"), progress=False)


@pytest.fixture
def make_task(digits: Dataset) -> MakeTask:
    """A task of 12 steps of 8 images; keyword arguments change the training, `data` the augmentation."""

    def make(data: dict[str, Any] | None = None, **training: Any) -> TrainingTask:
        settings: dict[str, Any] = {"steps": 12, "batch_size": 8, "report_every": 4, "validate_every": 0}
        return TrainingTask(
            data=DataConfig(name="digits", image_size=8, **(data or {})),
            dataset_path=str(digits.path),
            degradation=BLUR,
            restorer=RestorerConfig(size="tiny"),
            training=TrainingConfig(**(settings | training)),
        )

    return make
