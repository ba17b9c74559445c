"""The surroundings of a command: the default home."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from coldtune import environment


def test_default_home_in_rays_copy_is_outside_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLDTUNE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert environment.default_home() == tmp_path / "me" / "coldtune-runs"
    monkeypatch.chdir(tmp_path)
    assert environment.default_home() == tmp_path / "runs"
    monkeypatch.setenv("COLDTUNE_HOME", "elsewhere")
    assert environment.default_home() == tmp_path / "elsewhere"


def test_default_home_of_an_unknown_user_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDTUNE_HOME", "~nobody-has-this-name/x")
    with pytest.raises(ValueError, match=r"^COLDTUNE_HOME ~nobody-has-this-name/x: .* Write the whole path\.$"):
        environment.default_home()


def test_default_home_without_home_folder_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDTUNE_HOME", "~/x")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # as in a container with a user that has no name
    with pytest.raises(ValueError, match=r"^COLDTUNE_HOME ~/x: .* Write the whole path\.$"):
        environment.default_home()
    environment.ensure_home_variable()
    assert environment.default_home().is_absolute()


def test_free_port_skips_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert environment.free_port(port) > port
    assert environment.free_port(port) == port
