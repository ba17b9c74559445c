"""A cluster of two nodes: first a node that does not see the home, and then a node that does."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from e2e_lab import JOB, Lab, flags, free_ports, study_of
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(3600)]


def may_mount() -> bool:
    """Return True if this process may start another process with its own mounts."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    mounted = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    )
    return mounted.returncode == 0


def start_head(lab: Lab) -> str:
    port, agent, client, metrics = free_ports(4)
    ports = {"port": port, "dashboard-agent-listen-port": agent, "ray-client-server-port": client}
    ports |= {"metrics-export-port": metrics, "min-worker-port": 0, "max-worker-port": 0}
    options = ["--num-cpus=0", "--include-dashboard=false"]
    given = [*options, *(f"--{name}={value}" for name, value in ports.items())]
    run = lab.start(["ray", "start", "--head", *given])
    assert run.wait() == 0, run.text
    return f"127.0.0.1:{port}"


def start_node(lab: Lab, head: str, hidden: Path | None = None) -> None:
    """Start a second node. On this node `hidden` is an empty folder of its own."""
    agent, metrics = free_ports(2)
    ports = {"dashboard-agent-listen-port": agent, "metrics-export-port": metrics}
    ports |= {"min-worker-port": 0, "max-worker-port": 0}
    options = [f"--address={head}", "--num-cpus=1"]
    command = ["ray", "start", *options, *(f"--{name}={value}" for name, value in ports.items())]
    if hidden:
        mount = f"mount -t tmpfs tmpfs {shlex.quote(str(hidden))} && exec {shlex.join(command)}"
        command = ["unshare", "-m", "sh", "-c", mount]
    run = lab.start(command)
    assert run.wait() == 0, run.text


def sweep(lab: Lab, head: str, home: Path) -> tuple[int, str]:
    run = lab.start(
        ["python", JOB, "--home", str(home), "--trials", "1", *flags()],
        RAY_ADDRESS=head,
    )
    return run.wait(), run.text


def test_node_without_shared_home_is_refused_before_training(lab: Lab) -> None:
    if not may_mount():
        pytest.skip("hiding a folder from a node needs root and the right to mount")
    home = lab.path / "home"
    home.mkdir()
    try:
        head = start_head(lab)
        start_node(lab, head, hidden=home)
        code, said = sweep(lab, head, home)
        assert code == 2, said
        assert f"error: home {home} is not the same folder on node " in said
        assert "Traceback" not in said
        assert {trial.state for trial in study_of(home).trials} == {TrialState.WAITING}
        assert not list(home.glob("store/*/*"))
        assert not list(home.glob(".seen*"))

        lab.kill_all()
        head = start_head(lab)
        start_node(lab, head)
        code, said = sweep(lab, head, home)
        assert code == 0, said
        assert [t.state for t in study_of(home).trials if t.state != TrialState.WAITING] == [TrialState.COMPLETE]
    finally:
        lab.kill_all()
