"""What a study stands on, and loses: an MLflow server, a PostgreSQL, a Ray head that outlives its drivers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from e2e_lab import Lab, free_ports, wait_for

from servers import MissingError, Postgres, free_port

__all__ = ["Head", "MissingError", "Mlflow", "Postgres"]

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without it Ray replaces a loopback address by the machine's own, for the head and for whoever connects to it."""


class Mlflow:
    """An MLflow server of one worker on a port of its own, killed and started again on the same database."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Returns when it answers."""
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
        """SIGKILL to all of its processes."""
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


class Head:
    """Ray's head, started in a lab by `ray start` on free ports with `cpus` CPUs."""

    def __init__(self, lab: Lab, cpus: int) -> None:
        self.lab, self.cpus = lab, cpus
        self.address = ""

    def start(self) -> None:
        """Returns when `ray start` does."""
        port, agent, client, metrics = free_ports(4)
        ports = {"port": port, "dashboard-agent-listen-port": agent, "ray-client-server-port": client}
        ports |= {"metrics-export-port": metrics, "min-worker-port": 0, "max-worker-port": 0}
        options = [f"--num-cpus={self.cpus}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
        run = self.lab.start(
            ["ray", "start", "--head", *options, *(f"--{name}={value}" for name, value in ports.items())],
            **LOOPBACK,
        )
        assert run.ended() == 0, run.text
        self.address = f"127.0.0.1:{port}"

    def close(self) -> None:
        """End what is left of it."""
        self.lab.end()
        time.sleep(0.1)
