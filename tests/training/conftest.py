"""Fixtures for trainings that take milliseconds a step: digits of 8 x 8, a blur of 8 steps, the smallest restorer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from group_scenarios import group_tasks, run_group
from training_helpers import BLUR, MakeTask

from coldtune.data import DataConfig, Dataset, prepare
from coldtune.diffusion import RestorerConfig
from coldtune.training import TrainingConfig, TrainingTask


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread, because several threads cost more than they save on batches of eight images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(DataConfig(name="digits", image_size=8), tmp_path_factory.mktemp("home"), progress=False)


@pytest.fixture(scope="session")
def make_task(digits: Dataset) -> MakeTask:
    """A function that makes a task of 12 steps of 8 images. Arguments change the training, `data` the augmentation."""

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


@pytest.fixture(scope="session")
def group(make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The observations of each rank of a torch.distributed group, in the trainings of `group_scenarios`."""
    return run_group(group_tasks(make_task), tmp_path_factory.mktemp("group"))
