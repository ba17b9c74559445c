"""What a study checks and sets before it starts Ray: its folder, its token, and a Python that bash can start."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from coldtune.studies.execution.cluster import _cause
from coldtune.studies.preflight import ray_start
from coldtune.studies.preflight.ray_start import prepare

AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
VARIABLES = (*AUTH, "RAY_TMPDIR", "TMPDIR", "BASH_ENV")


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of a user whose environment says nothing about Ray."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "x")  # so that the test's end restores what `prepare` sets
        monkeypatch.delenv(name)
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path, which all users can reach."""
    folder = Path(tempfile.mkdtemp(prefix="ct", dir="/tmp"))
    folder.chmod(0o755)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_prepare_folder_is_closed_to_other_users(user: Path, short: Path) -> None:
    folder = prepare().folder
    assert folder.is_dir()
    assert folder.parent.parent == short
    assert mode(folder.parent) == 0o700


def test_prepare_open_folder_of_this_user_is_closed(user: Path, short: Path) -> None:
    before = short / f"coldtune-{os.getuid()}"
    before.mkdir()
    before.chmod(0o777)
    assert prepare().folder.parent == before
    assert mode(before) == 0o700


def test_prepare_planted_link_is_not_followed(user: Path, short: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (short / f"coldtune-{os.getuid()}").symlink_to(victim)
    folder = prepare().folder
    assert folder.parent.parent == short
    assert mode(folder.parent) == 0o700
    assert not list(victim.iterdir())


def test_prepare_private_ray_tmpdir_is_used_as_ray_does(user: Path, short: Path) -> None:
    short.chmod(0o700)
    assert prepare().folder == short / "ray"


@pytest.mark.parametrize("tmpdir", ["x" * 100, "missing", "file", "x" * 200])
def test_prepare_unusable_tmpdir_is_replaced(user: Path, tmp_path: Path, monkeypatch, tmpdir: str) -> None:
    place = tmp_path / tmpdir
    if tmpdir == "file":
        place.touch()
    elif tmpdir != "missing":
        place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(place))
    folder = prepare().folder
    assert len(os.fsencode(folder)) < 40
    assert mode(folder.parent) == 0o700
    listener = Path(os.environ["TMPDIR"]) / "pymp-12345678/listener-12345678"  # a socket of Ray's dashboard
    assert len(os.fsencode(listener)) <= 107


@pytest.mark.parametrize("kind", ["long", "file", "beyond a file", "quote"])
def test_prepare_unusable_ray_tmpdir_is_refused_in_a_line_that_names_it(
    user: Path, short: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (short / "file").touch()
    place = {"long": "x" * 60, "file": "file", "beyond a file": "file/x", "quote": "a'b"}[kind]
    monkeypatch.setenv("RAY_TMPDIR", str(short / place))
    with pytest.raises(ValueError, match="RAY_TMPDIR") as error:
        prepare()
    assert str(short / place) in str(error.value)
    assert "\n" not in str(error.value)


def test_prepare_new_token_is_in_rays_file_and_for_its_owner_only(user: Path, short: Path) -> None:
    assert prepare().notes == ()
    token = user / ".ray" / "auth_token"
    assert mode(token) == 0o600
    assert mode(token.parent) == 0o700
    assert len(token.read_text()) >= 32
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    assert os.environ["RAY_AUTH_MODE"] == "token"
    text = token.read_text()
    prepare()
    assert token.read_text() == text
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]


@pytest.mark.parametrize("home", ["/proc", "/dev/null", None])
def test_prepare_without_writable_home_keeps_the_token_in_the_private_folder(
    user: Path, short: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    if home is None:
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        monkeypatch.setenv("HOME", home)
    folder = prepare().folder
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert token.parent == folder.parent
    assert mode(token) == 0o600


def test_prepare_token_that_others_can_read_is_reported_with_the_command(user: Path, short: Path) -> None:
    token = user / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("a" * 40)
    token.chmod(0o644)
    (note,) = prepare().notes
    assert f"`chmod 600 {token}`" in note
    assert "\n" not in note
    token.chmod(0o600)
    assert prepare().notes == ()


def test_prepare_missing_token_of_the_user_is_refused(user: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(user / "missing"))
    with pytest.raises(ValueError, match=r"^RAY_AUTH_TOKEN_PATH = .*missing: cannot be read"):
        prepare()


def test_prepare_python_without_docstrings_is_refused(user: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start.sys, "flags", SimpleNamespace(optimize=2))
    with pytest.raises(ValueError, match=r"^PYTHONOPTIMIZE=2 .* Use PYTHONOPTIMIZE=1\.$"):
        prepare()


def python_in(folder: Path) -> str:
    """Link this virtual environment from another folder, and return the path of its Python there."""
    folder.mkdir()
    (folder / "venv").symlink_to(sys.prefix)
    return str(folder / "venv" / "bin" / "python")


@pytest.mark.parametrize("name", ["a b", "a & b;(c", 'a"b', "$HOME", "`id`", "*", "größe", "a\nb"])
def test_prepare_python_in_an_odd_folder_is_quoted_for_bash(user: Path, short: Path, monkeypatch, name: str) -> None:
    python = python_in(short / name)
    monkeypatch.setattr(sys, "executable", python)
    quoted = prepare().python
    command = ["bash", "-c", f"{quoted} -S -c 'import sys; print(sys.executable)'"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{python}\n"


@pytest.mark.parametrize("name", ["it's", "a\\b"])
def test_prepare_python_that_ray_cannot_start_is_refused(user: Path, short: Path, monkeypatch, name: str) -> None:
    monkeypatch.setattr(sys, "executable", python_in(short / name))
    with pytest.raises(ValueError, match=r"Ray cannot start from a path that contains .* Move the virtual environment"):
        prepare()


def test_prepare_plain_python_needs_no_quotes(user: Path, short: Path) -> None:
    assert prepare().python == ""


def test_prepare_bash_that_cannot_start_python_is_named(user: Path, short: Path, monkeypatch) -> None:
    profile = short / "profile"
    profile.write_text("echo broken profile >&2\nexit 3\n")
    monkeypatch.setenv("BASH_ENV", str(profile))
    with pytest.raises(ValueError, match=r"fails \(broken profile\).* unset BASH_ENV\.$"):
        prepare()


def test_prepare_without_bash_is_refused(user: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(user))
    with pytest.raises(ValueError, match=r"^bash is not on PATH"):
        prepare()


def test_longest_socket_is_that_of_rays_dashboard() -> None:
    """A newer Ray may have a module with a longer name."""
    pytest.importorskip("ray")
    from ray.dashboard.subprocesses.module import SubprocessModule
    from ray.dashboard.utils import get_all_modules

    names = [module.__name__ for module in get_all_modules(SubprocessModule)]
    session = "/session_2026-01-31_00-00-00_123456_1234567"
    assert max(len(f"{session}/sockets/dash_{name}") for name in names) <= ray_start._LONGEST_SOCKET


def test_cause_of_a_failed_start_is_the_last_error_in_a_quoted_log() -> None:
    log = "The last 20 lines of /tmp/x (it contains the error):\n  File a\nOSError: AF_UNIX path too long\nmore"
    assert _cause(log) == "OSError: AF_UNIX path too long"
    assert _cause("The node timed out.\nThis could happen") == "The node timed out."
    assert _cause("") == ""
