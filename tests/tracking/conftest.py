"""One prepared SQLite database for all tests here (making one takes seconds); each test uses a study of its own."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from coldtune.tracking import Target, default_uri, prepare

_NAMES = itertools.count()


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    home = tmp_path_factory.mktemp("home")
    return prepare(default_uri(home), "coldtune", home / "artifacts")


@pytest.fixture
def study() -> str:
    return f"study-{next(_NAMES)}"


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    return tmp_path / "spool"
