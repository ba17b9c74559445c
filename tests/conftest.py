"""Shared fixtures. They need neither the network nor files outside the repository."""

from __future__ import annotations

import os

# Set before torch is imported. Threads do not speed up small tensors, and on a busy machine they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

import servers

if TYPE_CHECKING:
    from coldtune.tracking import Target

_NAMES = itertools.count()
ROOT = Path(__file__).resolve().parents[1]

# The time that an example takes depends on the machine, so it must not decide whether a test passes.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow (more than 20 seconds each)")
    parser.addoption("--heavy", action="store_true", help="also run the tests marked heavy (minutes each)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for mark in ("slow", "heavy"):
        if not config.getoption(f"--{mark}"):
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=f"{mark}: run with --{mark}"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The root folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def digits_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the digits are prepared. Tests may read it and add entries of their own."""
    from coldtune.data import DataConfig, prepare

    home = tmp_path_factory.mktemp("home")
    prepare(DataConfig(), home, progress=False)
    return home


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    """An MLflow database in SQLite, made once because that takes seconds. Each test uses its own study."""
    from coldtune.tracking import default_uri, prepare

    home = tmp_path_factory.mktemp("mlflow")
    return prepare(default_uri(home), "coldtune", home / "artifacts")


@pytest.fixture
def study() -> str:
    """Return the name of a study that no other test uses."""
    return f"study-{next(_NAMES)}"


def _server(make: Callable[[], Any]) -> Iterator[Any]:
    try:
        server = make()
    except servers.MissingError as error:
        pytest.skip(str(error))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """A PostgreSQL server. `postgres.database()` creates a database and returns its URL."""
    yield from _server(servers.Postgres)


@pytest.fixture(scope="session")
def s3() -> Iterator[servers.S3]:
    """An S3 server. `s3.url(s3.bucket())` is the URL of an empty store."""
    yield from _server(servers.S3)
