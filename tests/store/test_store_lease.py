"""Leases: processes that want the same work do it once, and take over the work of dead processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from store_places import LOCAL, OBJECT_SLOW, Place

from coldtune.store.lease import lease

PATIENCE = 600.0  # seconds before a test gives up, because machines may be busy

# Several processes that want the same keys. They fork from one process, so that the slow imports happen only once. Each
# build adds a line to a log file. It takes a while, so that the other processes come while it runs, or it lasts until
# there is a file `go`. The processes share a pipe, so each line is one write. Under PYTHONUNBUFFERED, which many
# container images set, `print` writes the end of the line on its own, and lines of two processes mix.
GET = """
import os, sys, time
from pathlib import Path
from coldtune.store.store import Store

where, logs, lease_s, keys, seconds, count = sys.argv[1:]
logs, lease_s, keys = Path(logs), float(lease_s), keys.split(",")
children = []
for _ in range(int(count) - 1):
    if (pid := os.fork()) == 0:
        children = []
        break
    children.append(pid)

def build(key):
    def fill(directory):
        with (logs / f"built-{key}").open("a") as log:
            print(os.getpid(), file=log)
        os.write(1, b"building\\n")
        while seconds == "until told" and not (logs / "go").exists():
            time.sleep(0.01)
        time.sleep(0.0 if seconds == "until told" else float(seconds))
        (directory / "a.txt").write_text(str(os.getpid()))
    return fill

store = Store(where, lease_s=lease_s, on_wait=lambda text: None)
for key in keys:
    entry, found = store.get("kind", key, build(key))
    os.write(1, f"{key} {(entry.path / 'a.txt').read_text()}\\n".encode())
sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))
"""


# A training of six steps under a lease, as `Store.lease` recommends. Each step is logged when it is saved. If there is
# only one process, it stops after step 3, to be killed there.
TRAIN = """
import os, sys, time
from pathlib import Path
from coldtune.store.checkpoints import StoreCheckpoints
from coldtune.store.store import Store

where, logs, lease_s, final, seconds, count = sys.argv[1:]
logs, lease_s, final = Path(logs), float(lease_s), int(final)
children = []
for _ in range(int(count) - 1):
    if (pid := os.fork()) == 0:
        children = []
        break
    children.append(pid)

def train(step):
    time.sleep(600 if count == "1" and step == 4 else float(seconds))
    checkpoints.save(step, lambda directory: (directory / "weights").write_text(str(step)))
    with (logs / "built-step").open("a") as log:
        print(f"{step}:{os.getpid()}", file=log)
    os.write(1, f"saved {step}\\n".encode())

store, checkpoints = Store(where, lease_s=lease_s, on_wait=lambda text: None), StoreCheckpoints(where, "key", final)
with store.lease("train", "key", done=lambda: checkpoints.has(final)):
    last = checkpoints.latest(final)
    if last is None or last[0] != final:
        for step in range(last[0] + 1 if last else 1, final + 1):
            train(step)
assert checkpoints.latest(final)[0] == final
sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))
"""


@contextmanager
def process(
    place: Place, lease_s: float, keys: str | int, seconds: float | str, count: int = 1, script: str = GET
) -> Iterator[subprocess.Popen[str]]:
    arguments = map(str, (place.at.where, place.logs, lease_s, keys, seconds, count))
    command = [sys.executable, "-c", script, *arguments]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)  # with its forks
        started.wait()
        assert started.stdout is not None
        started.stdout.close()


def next_line(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline()


def builders(place: Place, key: str = "k") -> list[str]:
    return (place.logs / f"built-{key}").read_text().split()


def leases(place: Place) -> list[str]:
    return place.store().files.list(".leases")


def fill(directory: Path) -> None:
    (directory / "a.txt").write_text("x")


def silent(text: str) -> None:
    pass


@OBJECT_SLOW
def test_get_in_many_processes_builds_each_key_once(place: Place) -> None:
    keys = ["k0", "k1", "k2"]
    with process(place, 30, ",".join(keys), 0.3, count=8) as started:
        said = started.communicate(timeout=PATIENCE)[0].splitlines()
    assert started.returncode == 0
    for key in keys:
        (builder,) = builders(place, key)
        assert said.count(f"{key} {builder}") == 8, f"all processes got the same build: {said}"
    assert not leases(place)
    assert place.being_written() == 0


def test_lease_of_killed_local_process_is_taken_over_at_once(place: Place) -> None:
    with process(place, 600, "k", 600) as killed:
        assert next_line(killed) == "building\n"
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        with process(place, 600, "k", 0.3, count=4) as started:
            started.communicate(timeout=PATIENCE)
            assert started.returncode == 0
    assert len(builders(place)) == 2, "the killed process, and one of the four"
    assert not leases(place)


@OBJECT_SLOW
def test_lease_of_killed_training_continues_from_its_checkpoint(place: Place) -> None:
    with process(place, 600, 6, 0.05, script=TRAIN) as killed:
        assert [next_line(killed) for _ in range(3)] == ["saved 1\n", "saved 2\n", "saved 3\n"]
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        with process(place, 600, 6, 0.05, count=4, script=TRAIN) as started:
            started.communicate(timeout=PATIENCE)
            assert started.returncode == 0
    steps, trainers = zip(*(line.split(":") for line in builders(place, "step")), strict=True)
    assert steps == ("1", "2", "3", "4", "5", "6")
    assert set(trainers[:3]) == {str(killed.pid)}
    assert len(set(trainers)) == 2
    assert not leases(place)


@OBJECT_SLOW
def test_lease_of_silent_process_is_taken_over_after_its_time(place: Place) -> None:
    """A process under SIGSTOP exists but is silent, as on a machine that was cut off. It ends normally when woken."""
    lease_s = 4.0 if place.kind == "object" else 2.0
    with process(place, lease_s, "k", "until told") as stopped:
        assert next_line(stopped) == "building\n"
        os.kill(stopped.pid, signal.SIGSTOP)
        began, said = time.monotonic(), []
        entry, found = place.store(lease_s=lease_s, on_wait=said.append).get("kind", "k", fill)
        assert not found
        assert time.monotonic() - began >= lease_s
        assert f"process {stopped.pid}" in said[0]
        (place.logs / "go").touch()
        os.kill(stopped.pid, signal.SIGCONT)
        assert next_line(stopped) == "k x\n", "the first to publish wins"
        assert stopped.wait(PATIENCE) == 0
    assert (entry.path / "a.txt").read_text() == "x"
    assert not leases(place)


@OBJECT_SLOW
def test_lease_of_live_process_is_kept_beyond_its_time(place: Place) -> None:
    lease_s = 6.0  # a busy machine may delay the signs of life, five in this time, by seconds
    with process(place, lease_s, "k", "until told") as slow:
        assert next_line(slow) == "building\n"
        began = time.monotonic()
        threading.Timer(1.5 * lease_s, (place.logs / "go").touch).start()
        with pytest.warns(UserWarning, match=f"kind\\+k is being made by process {slow.pid} on .*; waiting"):
            entry, found = place.store(lease_s=lease_s).get("kind", "k", fill)
        assert found
        assert time.monotonic() - began > lease_s
        assert (entry.path / "a.txt").read_text() == str(slow.pid)


def test_lease_after_failed_build_is_free(place: Place) -> None:
    store = place.store(lease_s=600)

    def fails(directory: Path) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.get("kind", "k", fails)
    assert store.get("kind", "k", fill)[1] is False


def elsewhere(place: Place, seconds: float, started: float) -> None:
    """Write a lease as a process on another host leaves it."""
    holder = {"token": "t", "host": "node7", "pid": os.getpid(), "process": "1", "space": "other"}
    place.write(".leases/kind+k.first", json.dumps({**holder, "started": started, "seconds": seconds}).encode())


@pytest.mark.parametrize("offset", [-1e6, 0.0, 1e6])
def test_lease_of_dead_host_is_taken_over_whatever_its_clock(place: Place, offset: float) -> None:
    elsewhere(place, seconds=0.6, started=time.time() + offset)
    if place.kind == "local":
        os.utime(place.path(".leases/kind+k.first"), (time.time() + offset,) * 2)
    began, said = time.monotonic(), []
    with lease(place.store().files, ".leases/kind+k", 600, lambda: False, said.append) as held:
        assert held
        assert time.monotonic() - began >= 0.6, "not before its time"
        assert "on node7" in said[0]
    assert not leases(place)


@LOCAL
def test_lease_of_live_host_is_waited_for_whatever_its_clock(place: Place) -> None:
    """At least ten signs of life come, over four times as long as the lease lasts without them."""
    elsewhere(place, seconds=0.5, started=0.0)
    began, last, count = time.monotonic(), 0.0, 0

    def beats() -> bool:
        nonlocal last, count
        if (now := time.monotonic()) - began < 2.0 or count < 10:
            beat_file = place.path(".leases/kind+k.beat-t")
            beat_file.write_text(str(count))
            os.utime(beat_file, (0, 0))
            last, count = now, count + 1
        return False

    with lease(place.store().files, ".leases/kind+k", 600, beats, silent) as held:
        assert held
        assert count >= 10
        assert time.monotonic() - began >= 2.0
        assert time.monotonic() - last > 0.5


def test_lease_that_ends_while_a_beat_is_written_leaves_nothing_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, began = place.store().files, threading.Event()
    write = files.write

    def slow(name: str, data: bytes) -> None:
        if ".beat-" in name:
            began.set()
            time.sleep(0.2)
        write(name, data)

    monkeypatch.setattr(files, "write", slow)
    with lease(files, ".leases/kind+k", 0.05, lambda: False, silent) as held:
        assert held
        assert began.wait(PATIENCE)
    assert not leases(place)
    time.sleep(0.1)  # more than the time between two beats
    assert not leases(place)


def test_lease_with_empty_link_is_taken_over(place: Place) -> None:
    place.write(".leases/kind+k.first", b"")
    with lease(place.store().files, ".leases/kind+k", 0.5, lambda: False, silent) as held:
        assert held
    assert not leases(place)


@OBJECT_SLOW
def test_lease_taken_over_by_many_threads_has_one_holder_at_a_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldtune.store.lease._PAUSES_S", (0.02, 0.1))  # 12 holders in a row, each waited for
    elsewhere(place, seconds=0.3, started=0)
    inside, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with lease(place.store().files, ".leases/kind+k", 30, lambda: False, silent) as held:
            assert held
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 1


@OBJECT_SLOW
def test_lease_wait_ends_when_done_becomes_true(place: Place) -> None:
    store = place.store(on_wait=silent)
    there: list[int] = []
    said: list[bool] = []
    done: Callable[[], bool] = lambda: bool(there)  # noqa: E731

    def wait() -> None:
        with store.lease("train", "key", done=done) as held:
            said.append(held)

    with store.lease("train", "key") as held:
        assert held
        other = threading.Thread(target=wait)
        other.start()
        time.sleep(0.2)
        assert not said, "the lease is still held here"
        there.append(1)
        other.join(PATIENCE)
        assert said == [False], "the wait ends without the lease, which is still held here"


def test_lease_lost_during_the_body_is_reported(place: Place) -> None:
    said: list[str] = []
    with lease(place.store().files, ".leases/kind+k", 600, lambda: False, said.append):
        (mine,) = leases(place)
        token = json.loads(place.read(f".leases/{mine}"))["token"]
        place.write(f".leases/kind+k.after-{token}", json.dumps({"token": "u", "seconds": 30}).encode())
    assert "ran out" in said[0]
    assert len(leases(place)) == 2, "the links of the new holder stay"
