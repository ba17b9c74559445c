"""`coldtune importance` in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

import synthetic_study as made_up
from coldtune import cli


def test_importance_command_in_a_narrow_terminal_prints_commands_whole(
    digits_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("UV", "/usr/bin/uv")  # as `uv run` does, after which printed commands begin with it
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    (tmp_path / "data").symlink_to(digits_home / "data")
    folder, ledger = made_up.open_study(tmp_path, digits_home)
    made_up.fill(ledger, tmp_path, 3)
    with pytest.raises(SystemExit) as ended:
        cli.main(["importance", folder.name, "--home", str(tmp_path)])
    assert ended.value.code == 0
    command = f"coldtune study resume {folder.name} --home {tmp_path} --trials 20"
    assert any(command in line for line in capsys.readouterr().out.splitlines())
