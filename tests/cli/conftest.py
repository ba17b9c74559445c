"""One finished study for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_study import Finished, make


@pytest.fixture(scope="session")
def finished(digits_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished study. Tests add to its store, each under keys of its own."""
    return make(tmp_path_factory.mktemp("finished"), digits_home)
