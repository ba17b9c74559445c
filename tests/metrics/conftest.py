"""The digits, prepared once for all tests of this folder."""

from __future__ import annotations

import pytest

from coldtune.data import DataConfig, Dataset, prepare


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(DataConfig(name="digits"), tmp_path_factory.mktemp("home"), progress=False)
