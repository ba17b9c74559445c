"""Tests of file locks and atomic writes, with other processes that are killed in the middle."""

from __future__ import annotations

import ast
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from coldtune import files

# Each script prints a line when it has reached the state that a test needs, and then waits until it is killed.
HOLD_LOCK_FILE = """
import sys, time
from pathlib import Path
from coldtune.files import lock_file
with lock_file(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""
HOLD_OPEN_FILE = """
import os, sys, time
from coldtune.files import lock_open_file
descriptor = os.open(sys.argv[1], os.O_RDWR)
assert lock_open_file(descriptor)
print("ready", flush=True)
time.sleep(600)
"""
WRITE_HALF = """
import sys, time
from pathlib import Path
from coldtune.files import open_replacement
with open_replacement(Path(sys.argv[1])) as file:
    file.write(b"half of the new con")
    file.flush()
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def process(script: str, path: Path):
    """Run `script` on `path` in another process until it has printed its line, and kill it at the end of the block."""
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_files_imports_only_the_standard_library_and_filelock():
    tree = ast.parse(Path(files.__file__).read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in modules} <= {*sys.stdlib_module_names, "filelock"}


def test_lock_file_held_by_another_process_is_refused(tmp_path):
    path = tmp_path / "work.lock"
    with process(HOLD_LOCK_FILE, path):
        for timeout in (0, 0.05):
            with (
                pytest.raises(TimeoutError, match=rf"work\.lock: another process.*after {timeout} s"),
                files.lock_file(path, timeout),
            ):
                pytest.fail("the block ran without the lock")


def test_lock_file_of_a_killed_holder_is_free_at_once(tmp_path):
    path = tmp_path / "work.lock"
    with process(HOLD_LOCK_FILE, path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with files.lock_file(path, timeout=0):
            pass
    assert path.exists()


def test_lock_file_after_an_error_in_the_block_is_free(tmp_path):
    path = tmp_path / "work.lock"
    with pytest.raises(RuntimeError, match="in the block"), files.lock_file(path):
        raise RuntimeError("in the block")
    with files.lock_file(path, timeout=0):
        pass


def test_lock_file_excludes_threads_of_one_process(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(50):
            with files.lock_file(tmp_path / "work.lock"):
                counter.write_text(str(int(counter.read_text()) + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "200"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_lock_file_without_locks_in_the_file_system_raises_unless_allowed(tmp_path, monkeypatch, code):
    def refuse(descriptor, *, blocking):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "lock_descriptor", refuse)
    with pytest.raises(OSError, match=os.strerror(code)), files.lock_file(tmp_path / "work.lock"):
        pytest.fail("the block ran without the lock")
    ran = False
    with files.lock_file(tmp_path / "work.lock", unsupported_ok=True):
        ran = True
    assert ran


def test_lock_file_allowed_without_locks_still_raises_what_the_block_raises(tmp_path):
    with pytest.raises(OSError, match="disk full"), files.lock_file(tmp_path / "work.lock", unsupported_ok=True):
        raise OSError("disk full")


def test_lock_open_file_held_by_another_process_is_refused_and_keeps_the_content(tmp_path):
    path = tmp_path / "journal"
    path.write_text("first line\n")
    descriptor = os.open(path, os.O_RDWR)
    try:
        with process(HOLD_OPEN_FILE, path) as holder:
            assert not files.lock_open_file(descriptor, timeout=0)
            assert not files.lock_open_file(descriptor, timeout=0.05)
            holder.send_signal(signal.SIGKILL)
            assert files.lock_open_file(descriptor)
    finally:
        os.close(descriptor)
    assert path.read_text() == "first line\n"


def test_lock_open_file_and_lock_file_exclude_each_other(tmp_path):
    path = tmp_path / "journal"
    with files.lock_file(path), path.open("r+b") as file:
        assert not files.lock_open_file(file.fileno(), timeout=0)


@pytest.mark.parametrize("content", ["Grüße\n", b"\x00\xff"])
def test_write_file_replaces_the_whole_content(tmp_path, content):
    path = tmp_path / "state"
    path.write_text("a much longer content than the new one")
    files.write_file(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode("utf-8"))
    assert list(tmp_path.iterdir()) == [path]


def test_write_file_killed_in_the_middle_leaves_the_old_content(tmp_path):
    path = tmp_path / "state"
    path.write_text("old")
    with process(WRITE_HALF, path) as writer:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert path.read_text() == "old"
    files.write_file(path, "new")
    assert path.read_text() == "new"


def test_open_replacement_error_in_the_block_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "state"
    path.write_text("old")
    with pytest.raises(TypeError, match="bytes-like"), files.open_replacement(path) as file:
        file.writelines([b"new", "text in a binary file"])  # fails after the first half
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_file_that_cannot_replace_its_target_removes_its_scratch_file(tmp_path):
    target = tmp_path / "state"
    target.mkdir()
    with pytest.raises(OSError, match="state"):
        files.write_file(target, "new")
    assert list(tmp_path.iterdir()) == [target]


def test_write_file_durable_flushes_to_the_disk_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        events.append(("fsync", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def recorded_replace(source, target):
        events.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    files.write_file(tmp_path / "state", "12345", durable=True)
    assert events == [("fsync", 5), ("replace", "state")]
    events.clear()
    files.write_file(tmp_path / "state", "12345")
    assert events == [("replace", "state")]


def test_write_file_private_is_readable_by_the_owner_only(tmp_path):
    umask = os.umask(0o022)
    try:
        for private, mode in ((True, 0o600), (False, 0o644)):
            files.write_file(tmp_path / "state", "password", private=private)
            assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == mode
    finally:
        os.umask(umask)
