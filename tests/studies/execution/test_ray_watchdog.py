"""The watchdog ends the process if an endpoint dies, and only then. With Ray itself: tests/e2e/test_ray_dies.py."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldtune.studies.execution.ray_watchdog import Endpoint, watch

# A server that never accepts a connection itself, like a process that is busy or stopped. The kernel accepts for it.
SERVER = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(600)
"""
# A driver that hangs like a driver whose raylet died: in C, where it handles neither a signal nor an exception.
DRIVER = """
import signal, sys, threading
from coldtune.studies.execution.ray_watchdog import Endpoint, watch

def before_exit(reason):
    print("before exit:", reason, flush=True)
    {before_exit}

signal.signal(signal.SIGINT, signal.SIG_IGN)
with watch([Endpoint("Ray's raylet", "127.0.0.1", int(sys.argv[1]), 0.5)], before_exit):
    print("watching", flush=True)
    {body}
"""
WAIT_FOR_DEATH = """endpoint = Endpoint("", "127.0.0.1", int(sys.argv[1]), 0)
    while endpoint.answers():
        threading.Event().wait(0.02)
"""
Server = tuple[subprocess.Popen[str], int]


@pytest.fixture
def server() -> Iterator[Server]:
    """The server's process and its port."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout
        yield process, int(process.stdout.readline())
        process.kill()


def run_driver(server: Server, body: str, before_exit: str = "pass") -> tuple[int, str]:
    """Kill the server while a driver runs `body`. Return the driver's exit code and its output."""
    process, port = server
    script = DRIVER.format(body=body, before_exit=before_exit)
    with subprocess.Popen([sys.executable, "-c", script, str(port)], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        assert driver.stdout.readline() == "watching\n"
        process.kill()
        return driver.wait(120), driver.stdout.read()


@pytest.mark.parametrize(
    ("body", "before_exit"),
    [
        ("threading.Lock().acquire() and threading.Event().wait()", "pass"),
        (f"{WAIT_FOR_DEATH}    raise RuntimeError('as Ray raises while it dies')", "pass"),
        ("threading.Event().wait()", "raise OSError('disk full')"),
    ],
    ids=["driver hangs", "driver raises first", "before_exit fails"],
)
def test_watch_dead_endpoint_ends_the_process_as_interrupted(server: Server, body: str, before_exit: str) -> None:
    code, output = run_driver(server, body, before_exit)
    assert (code, output) == (130, f"before exit: Ray's raylet (127.0.0.1:{server[1]}) died\n")


def test_watch_busy_endpoint_counts_as_alive(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldtune.studies.execution.ray_watchdog._PAUSE_S", 0.02)
    reasons: list[str] = []
    endpoint = Endpoint("server", "127.0.0.1", server[1], 0.0)
    assert all(endpoint.answers() for _ in range(3))
    with watch([endpoint], reasons.append):
        threading.Event().wait(0.5)  # so few checks do not fill the queue of the server's port
    assert not reasons


def test_watch_endpoint_that_never_answered_is_ignored(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldtune.studies.execution.ray_watchdog._PAUSE_S", 0.02)
    process, port = server
    process.kill()
    process.wait()
    reasons: list[str] = []
    with watch([Endpoint("server", "127.0.0.1", port, 0.0)], reasons.append):
        threading.Event().wait(0.5)
    assert not reasons


def test_watch_exception_of_the_block_is_raised(server: Server) -> None:
    with pytest.raises(ZeroDivisionError), watch([Endpoint("server", "127.0.0.1", server[1], 0.0)], lambda _: None):
        _ = 1 / 0


SESSION_DRIVER = """
import sys, threading
from pathlib import Path
from coldtune.studies.execution.ray_watchdog import SessionFolder, watch

with watch([SessionFolder(Path(sys.argv[1]), ("logs", "sockets/raylet"), 0.1)], lambda why: print(why, flush=True)):
    print("watching", flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("lost", [".", "logs", "sockets/raylet"])
def test_watch_removed_session_folder_ends_the_process_as_interrupted(tmp_path: Path, lost: str) -> None:
    session = tmp_path / "session_1"
    (session / "logs").mkdir(parents=True)
    (session / "sockets" / "raylet").mkdir(parents=True)
    command = [sys.executable, "-c", SESSION_DRIVER, str(session)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        assert driver.stdout.readline() == "watching\n"
        (session / lost).rename(tmp_path / "elsewhere")
        assert driver.wait(120) == 130
        assert driver.stdout.read() == f"Ray's session folder {session} was removed or damaged\n"
