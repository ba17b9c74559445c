"""A new study that cannot start leaves no study behind, and the message is a single line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from coldtune.studies.preflight.options import RunOptions
from coldtune.studies.run import run_study
from coldtune.studies.spec.build import build_spec


@pytest.mark.parametrize(
    ("study", "variable", "value", "named"),
    [
        ("deep", "RAY_TMPDIR", "{tmp}/" + "x" * 110, "RAY_TMPDIR"),
        ("file", "RAY_TMPDIR", "{tmp}/file", "RAY_TMPDIR"),
        ("no-token", "RAY_AUTH_TOKEN_PATH", "{tmp}/missing", "RAY_AUTH_TOKEN_PATH"),
        ("no-cluster", "RAY_ADDRESS", "127.0.0.1:1", "RAY_ADDRESS = 127.0.0.1:1: no cluster answers"),
        ("client", "RAY_ADDRESS", "ray://127.0.0.1:1", "RAY_ADDRESS = ray://127.0.0.1:1"),
        (
            "dashboard",
            "RAY_ADDRESS",
            "http://127.0.0.1:8265",
            "8265': allowed: HOST:PORT",
        ),
        ("no-port", "RAY_ADDRESS", "somewhere", "RAY_ADDRESS = 'somewhere': allowed: HOST:PORT"),
        ("big-port", "RAY_ADDRESS", "127.0.0.1:70000", "RAY_ADDRESS = '127.0.0.1:70000': allowed: HOST:PORT"),
        ("odd-host", "RAY_ADDRESS", "a..b:1", "RAY_ADDRESS = a..b:1: no cluster answers"),
        ("it's", "RAY_ADDRESS", "local", "--study"),
        ('say "x"', "RAY_ADDRESS", "local", "--study"),
        ("two\nlines", "RAY_ADDRESS", "local", "--study"),
        ("a\\b", "RAY_ADDRESS", "local", "--study"),
    ],
)
def test_new_study_that_cannot_start_is_refused_and_not_listed(
    digits_home: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study, variable, value, named
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv(variable, value.format(tmp=tmp_path))
    options = RunOptions(home=digits_home, name=study, command="job", trials=1, default_trials=1)
    spec = build_spec("job", root / "search_spaces" / "blur.yaml")
    with pytest.raises(ValueError, match=named) as error:
        run_study(spec, options, Console(file=io.StringIO()))
    assert "\n" not in str(error.value)
    assert not (digits_home / "studies" / study).exists()
