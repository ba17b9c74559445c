"""The surroundings of a command: the default home."""

from __future__ import annotations

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
