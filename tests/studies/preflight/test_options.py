"""The options of a run: from flags, to start.json and back."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from coldtune.durations import parse_duration
from coldtune.studies.preflight.options import Limits, RunOptions


@pytest.mark.parametrize("field", ["retries", "max_failures"])
def test_limits_below_zero_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"--{field.replace('_', '-')} -1: 0 or more"):
        Limits(**{field: -1})


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    RunOptions.add_flags(parser)
    return parser.parse_args(arguments)


def test_options_from_flags_without_flags_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = RunOptions.from_flags(parsed(), home=tmp_path, command="x", begun=0.0)
    assert made == RunOptions(home=tmp_path, command="x", begun=0.0)


def test_options_tracking_uri_comes_from_the_flag_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env:1")
    assert RunOptions.from_flags(parsed(), home=tmp_path, command="x").tracking_uri == "http://env:1"
    flags = parsed("--tracking-uri", "http://flag:1")
    assert RunOptions.from_flags(flags, home=tmp_path, command="x").tracking_uri == "http://flag:1"


def test_options_from_start_restore_what_to_start_kept(tmp_path: Path) -> None:
    flags = parsed(
        "--data-dir", "data", "--tracking-uri", "u", "--storage", "s", "--store", "p", "--workers", "2",
        "--gpus-per-trial", "0.5", "--retries", "7", "--trial-timeout", "1h", "--wait-for-nodes", "2m",
        "--resume", "--join", "--study", "not kept", "--confirm", "3",
        "--stop-when-settled",
    )  # fmt: skip
    made = RunOptions.from_flags(flags, home=tmp_path, command="x", begun=0.0)
    start = json.loads(json.dumps({**made.to_start(), "command": "x"}))
    again = RunOptions.from_start(tmp_path, start, begun=0.0)
    assert again == replace(made, data_dir=Path("data").absolute(), resume=False, join=False, name=None)
    assert again.limits == Limits(retries=7, trial_timeout=3600, patience=120)


def test_options_from_start_of_an_older_version_have_defaults(tmp_path: Path) -> None:
    old = {"command": "x", "data_dir": None, "tracking_uri": None, "storage": None, "workers": 1, "gpus_per_trial": 0.0}
    assert RunOptions.from_start(tmp_path, old, begun=0.0) == RunOptions(home=tmp_path, command="x", begun=0.0)


def test_options_from_start_stop_when_settled_must_be_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'yes' is neither true nor false"):
        RunOptions.from_start(tmp_path, {"command": "x", "stop_when_settled": "yes"})


def test_options_help_shows_the_real_defaults() -> None:
    parser = argparse.ArgumentParser()
    RunOptions.add_flags(parser)
    said = {action.dest: re.search(r"\(default (\d\w*)", action.help or "") for action in parser._actions}
    defaults = {option.name: option.default for option in [*fields(RunOptions), *fields(Limits)]}
    shown = {name: found[1] for name, found in said.items() if found}
    assert shown.keys() == {"confirm", "workers", "gpus_per_trial", "retries", "max_failures", "patience"}
    for name, text in shown.items():
        assert (parse_duration("", text) if text[-1].isalpha() else float(text)) == defaults[name]
