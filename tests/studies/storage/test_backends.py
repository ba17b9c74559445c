"""Opening the storage of a study, and the errors if that is impossible."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

import servers
from coldtune.studies.storage.backends import open_storage


def test_storage_with_a_bad_url_is_refused_without_password(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--storage .*cannot be opened.*allowed: a database such as"):
        open_storage(tmp_path, "nonsense://x:secret@host/db")
    with pytest.raises(ValueError, match="nonsense://host/db") as caught:
        open_storage(tmp_path, "nonsense://x:secret@host/db")
    assert "secret" not in str(caught.value)


def test_storage_without_its_driver_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"postgresql://host/db: its driver psycopg is not .*coldtune\[postgres\]"):
        open_storage(tmp_path, "postgresql://user:secret@host/db")


def test_storage_that_does_not_answer_is_refused_without_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # a port on which nobody listens
        with pytest.raises(ValueError, match=r"--storage postgresql://127.*refused") as caught:
            open_storage(tmp_path, f"postgresql://user:secret@127.0.0.1:{taken.getsockname()[1]}/db")
    assert "secret" not in str(caught.value)


def test_storage_with_a_wrong_password_is_refused(postgres: servers.Postgres, tmp_path: Path) -> None:
    url = postgres.database()
    with pytest.raises(ValueError, match="password authentication failed"):
        open_storage(tmp_path, url.replace(postgres.password, "guess"))
    open_storage(tmp_path, url.replace("+psycopg", ""))
