"""The death of what is watched ends the process; anything less does not. Ray itself: tests/e2e/test_ray_dies.py."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from coldtune.studies.execution.ray_watchdog import Endpoint, watch

SERVER = "import socket, time\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True)\n"
SERVER += "time.sleep(600)  # accepts nothing by itself, as a process that is busy or stopped\n"
# A driver that hangs as one does whose raylet died: in C, where neither a signal nor an exception reaches it.
DRIVER = """
import signal, sys, threading
from coldtune.studies.execution.ray_watchdog import Endpoint, watch

def farewell(why):
    print("farewell:", why, flush=True)
    {farewell}

signal.signal(signal.SIGINT, signal.SIG_IGN)
with watch([Endpoint("Ray's raylet", "127.0.0.1", int(sys.argv[1]), 0.5)], farewell):
    print("watching", flush=True)
    {body}
"""
UNTIL_IT_DIES = """place = Endpoint("", "127.0.0.1", int(sys.argv[1]), 0)
    while place.answers():
        threading.Event().wait(0.02)
"""


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout
        yield process, int(process.stdout.readline())
        process.kill()


def end(server: tuple[subprocess.Popen[str], int], body: str, farewell: str = "pass") -> tuple[int, str]:
    """The exit code of a driver whose server is killed in the middle of `body`, and what it printed."""
    script = DRIVER.format(body=body, farewell=farewell)
    with subprocess.Popen([sys.executable, "-c", script, str(server[1])], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        assert driver.stdout.readline() == "watching\n"
        server[0].kill()
        return driver.wait(120), driver.stdout.read()


@pytest.mark.parametrize(
    ("body", "farewell"),
    [
        ("threading.Lock().acquire() and threading.Event().wait()", "pass"),
        (f"{UNTIL_IT_DIES}    raise RuntimeError('what Ray raises while it dies')", "pass"),
        ("threading.Event().wait()", "raise OSError('disk full')"),
    ],
    ids=["a driver that hangs", "one that raises first", "a farewell that fails"],
)
def test_the_process_ends_as_interrupted(server, body: str, farewell: str) -> None:
    code, printed = end(server, body, farewell)
    assert (code, printed) == (130, f"farewell: Ray's raylet (127.0.0.1:{server[1]}) died\n")


def test_a_process_that_is_too_busy_to_accept_is_alive(server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server never calls accept; a few looks fill no queue."""
    monkeypatch.setattr("coldtune.studies.execution.ray_watchdog._PAUSE_S", 0.02)
    seen: list[str] = []
    place = Endpoint("it", "127.0.0.1", server[1], 0.0)
    assert all(place.answers() for _ in range(3))
    with watch([place], seen.append):
        threading.Event().wait(0.5)
    assert not seen


def test_what_did_not_answer_at_first_is_not_watched(server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldtune.studies.execution.ray_watchdog._PAUSE_S", 0.02)
    server[0].kill()
    server[0].wait()
    seen: list[str] = []
    with watch([Endpoint("it", "127.0.0.1", server[1], 0.0)], seen.append):
        threading.Event().wait(0.5)
    assert not seen


def test_an_exception_of_the_blocks_own_passes(server) -> None:
    with pytest.raises(ZeroDivisionError), watch([Endpoint("it", "127.0.0.1", server[1], 0.0)], lambda _: None):
        _ = 1 / 0
