"""A killable MLflow server. The chaos tests also import the helpers of the end-to-end tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from chaos_servers import Mlflow


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Mlflow]:
    server = Mlflow(tmp_path / "mlflow")
    server.start()
    yield server
    server.close()
