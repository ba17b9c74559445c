"""The servers that a study uses and loses: MLflow, PostgreSQL, and a Ray head that outlives its drivers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from e2e_lab import LOOPBACK, Head, wait_for

from servers import MissingError, Postgres, free_port

__all__ = ["LOOPBACK", "Head", "MissingError", "Mlflow", "Postgres"]


class Mlflow:
    """An MLflow server with a single worker. After a kill it starts again on the same port and database."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        stores = ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        stores += ["--artifacts-destination", str(self.folder / "artifacts")]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *where, *stores],
                env=os.environ | environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_for("the MLflow server", self._answers, self._lives)

    def kill(self) -> None:
        """Kill all processes of the server with SIGKILL."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process is not None:
            self.kill()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
            return True
        return False

    def _lives(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.txt").read_text()
