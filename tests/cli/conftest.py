"""A finished study that the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_study import Finished, make


@pytest.fixture(scope="session")
def finished(digits_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a finished study. Tests may add entries to its store, each test under keys of its own."""
    return make(tmp_path_factory.mktemp("finished"), digits_home)
