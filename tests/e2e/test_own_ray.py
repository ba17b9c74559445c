"""A study that starts its own Ray under odd conditions: which secrets it writes, and which ports it opens to whom."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from pathlib import Path

import psutil
import pytest
from e2e_lab import JOB, Lab, checkpoints_of, dashboard_of, flags

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.slow]

SECRET = "canary-5ee3f1"
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD")
AGENT_PORT = 52365  # of Ray's dashboard agent, by default
API = (
    "/api/v0/actors?detail=1",
    "/api/v0/workers?detail=1",
    "/api/v0/tasks?detail=1",
    "/api/v0/runtime_envs?detail=1",
    "/api/jobs/",
    "/api/train/v2/runs/v1",
)


def listening(lab: Lab) -> set[str]:
    """Return the addresses at which the study's processes listen."""
    addresses = set()
    for process in lab.processes():
        with contextlib.suppress(psutil.Error):  # it may have ended in the meantime
            addresses |= {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return addresses


def files_with(text: str, folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if text.encode() in path.read_bytes()]


def test_own_ray_under_odd_conditions_keeps_secrets_and_ports_to_itself(lab: Lab) -> None:
    home, odd, deep = lab.path / "home", lab.path / "a & b;(c $d", lab.path / ("x" * 110)
    for folder in (odd, deep):
        folder.mkdir()
    (odd / "venv").symlink_to(sys.prefix)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # another Ray of this machine may have the port
            stack.enter_context(socket.create_server(("127.0.0.1", AGENT_PORT)))
        settings = {"training.steps": 200, "training.checkpoint_every": 10, "training.validate_every": 0}
        run = lab.start(
            [
                str(odd / "venv" / "bin" / "python"),
                *(JOB, "--home", str(home), "--study", "größe", "--trials", "1", "--workers", "2"),
                *flags(**settings),
            ],
            TMPDIR=str(deep),
            **{name: f"{SECRET}-{name}" for name in SECRETS},
        )
        run.until("a training", lambda: checkpoints_of(home))
        addresses = listening(lab)
        dashboard = dashboard_of(run.text)
        answers = [str(lab.get(dashboard, path)) for path in API]
        (actor,) = [each for each in lab.actors(dashboard) if each["class_name"] == "coldtune_trial"]
        logs = lab.get(dashboard, f"/api/v0/logs?node_id={actor['node_id']}&glob=worker-*{actor['pid']}*")
        assert run.wait() == 0, run.text
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, addresses
    assert not [answer for answer in answers if SECRET in answer]
    assert str(actor["pid"]) in str(logs), "the dashboard's agent has a port of its own"
    assert not files_with(SECRET, lab.ray)
    assert not files_with(SECRET, home)
    assert stat.S_IMODE(lab.session().resolve().parents[1].stat().st_mode) == 0o700
    assert "größe" in os.listdir(home / "studies")
    lab.wait_until_empty()
