"""Commands that are printed run when they are pasted, whatever the name of the study and the home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coldtune.cli import build_parser
from coldtune.cli.job import command_line
from coldtune.environment import coldtune_command, shell_command

HARD = [
    "my study (v2)",
    "semi;rm -rf x",
    "-dash",
    "--help",
    "$(touch x)",
    "a'b\"c",
    "[bold]x",
    "`x`",
    "größe",
    "a&b|c>d",
    "*",
]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_uv: None) -> Path:
    """A folder with programs that print their arguments, on the path of the shell."""
    for name in ("coldtune", "uv", "mlflow", "python"):
        program = tmp_path / name
        program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def pasted(command: str, folder: Path) -> list[str]:
    """Return the arguments that a program gets if a command is pasted into a shell."""
    before = sorted(folder.iterdir())
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    assert sorted(folder.iterdir()) == before
    words: list[str] = json.loads(done.stdout)
    return words


@pytest.mark.parametrize("name", HARD)
def test_coldtune_command_hard_name_reaches_the_command(name: str, shell: Path) -> None:
    home = shell / f"home of {name}"
    for verb in ("study show", "study resume"):
        options = build_parser().parse_args(pasted(coldtune_command(verb, home, name), shell))
        assert (options.name, options.home) == (name, home)
    options = build_parser().parse_args(pasted(coldtune_command("study promote", home, name, 3), shell))
    assert (options.name, options.trial, options.home) == (name, 3, home)
    options = build_parser().parse_args(pasted(coldtune_command("evaluate", home, name), shell))
    assert (options.runs, options.home) == ([name], home)
    command = coldtune_command("study resume", home, name, flags=("--trials", 9))
    assert build_parser().parse_args(pasted(command, shell)).trials == 9


def test_shell_command_names_uv_only_if_uv_runs_the_process(shell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pasted(shell_command("mlflow", "a b"), shell) == ["a b"]
    monkeypatch.setenv("UV", "uv")
    assert pasted(shell_command("mlflow", "a b"), shell) == ["run", "mlflow", "a b"]


@pytest.mark.parametrize("script", ["jobs/my job (v2).py", "jobs/a;b.py"])
def test_command_line_of_a_job_is_repeated_without_passwords(
    script: str, shell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setattr(sys, "argv", [script, "--storage", "postgresql://me:S3CRET@db/d", "--study", "a b"])
    assert pasted(command_line(), shell) == [script, "--storage", "postgresql://me@db/d", "--study", "a b"]


def test_command_line_of_the_installed_command_has_no_path(shell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/coldtune", "study", "run", "blur"])
    assert command_line() == "coldtune study run blur"
    monkeypatch.setattr(sys, "argv", ["/somewhere/coldtune/__main__.py", "study", "run", "blur"])
    assert command_line() == "python -m coldtune study run blur"
