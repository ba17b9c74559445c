"""Servers that accept connections and never answer, or never stop answering."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from coldtune.store import location
from coldtune.store.location import StoreLocation
from coldtune.studies.storage import backends
from coldtune.studies.storage.backends import open_storage
from coldtune.tracking import prepare, server, uris
from coldtune.waiting import within


def _silent(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while connection.recv(2**16):
            pass


def _endless(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        connection.recv(2**16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            connection.sendall(b"x" * 2**16)


def _slow(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        connection.recv(2**16)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"x: y\r\n")
            time.sleep(0.05)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Start a server that treats every connection as it is told, and return its address. All limits are short."""
    for module, name in ((uris, "TIMEOUT"), (server, "_PREPARE_S"), (backends, "_OPEN_S"), (location, "_CHECK_S")):
        monkeypatch.setattr(module, name, 0.5)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "key")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    listeners = []

    def start(treat: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=treat, args=[listener.accept()[0]], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)  # ends `accept`
        listener.close()


@pytest.mark.parametrize(
    ("treat", "reason"),
    [(_silent, "no answer within"), (_slow, "no answer within"), (_endless, "answers more than 1,048,576 bytes")],
)
def test_prepare_server_that_does_not_end_an_answer_is_refused(serve, tmp_path: Path, treat, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        prepare(f"http://me:S3CRET@{serve(treat)}", "coldtune", tmp_path)
    assert "S3CRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prepare_database_that_never_answers_is_refused(serve, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError, match=r"does not answer within 0.5 s"):
        prepare(f"postgresql+psycopg://me:S3CRET@{serve(_silent)}/runs", "coldtune", tmp_path)


@pytest.mark.parametrize("treat", [_silent, _endless])
def test_open_storage_server_that_is_no_database_is_refused(serve, tmp_path: Path, treat) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError, match=r"--storage postgresql://127.*(does not answer within|cannot be opened)") as e:
        open_storage(tmp_path, f"postgresql://me:S3CRET@{serve(treat)}/runs")
    assert "S3CRET" not in str(e.value)


def test_store_check_bucket_that_never_answers_is_refused(serve) -> None:
    place = StoreLocation.of(f"s3://bucket/x?scheme=http&endpoint_override={serve(_silent)}")
    with pytest.raises(ValueError, match=r"--store s3://bucket/x: .*(answer|reached|timed out|timeout)"):
        place.check()


@pytest.mark.parametrize(
    "url", ["abfs://c:S3CRET@account.dfs.core.windows.net/x", "ftp://me:S3CRET@host/x", "s3://[x/y"]
)
def test_store_check_unsupported_url_is_a_line(url: str) -> None:
    with pytest.raises(ValueError, match=r"^--store .*") as caught:
        StoreLocation.of(url).check()
    assert "S3CRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_store_location_keys_in_the_url_move_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "old")
    import os

    place = StoreLocation.of("s3://KEY:S3/CRET@bucket/prefix")
    assert place.where == "s3://bucket/prefix"
    assert (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]) == ("KEY", "S3/CRET")


def test_within_returns_raises_or_gives_up() -> None:
    assert within(5, lambda: 3) == 3
    with pytest.raises(KeyError):
        within(5, lambda: {}["x"])
    with pytest.raises(TimeoutError, match=r"no answer within 0.01 s"):
        within(0.01, lambda: time.sleep(0.5))
