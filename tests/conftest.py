"""Shared fixtures; nothing here needs the network or anything outside the repository."""

from __future__ import annotations

import os

# Before torch is imported: small tensors gain nothing from threads, and a busy machine makes them wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow (minutes each)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def digits_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the digits are prepared; for reading, or for entries that no other test looks at."""
    from coldtune.data import DataConfig, prepare

    home = tmp_path_factory.mktemp("home")
    prepare(DataConfig(), home, progress=False)
    return home
