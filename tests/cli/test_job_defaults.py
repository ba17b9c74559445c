"""The default confirmation of a job, and when it is off."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from coldtune.cli.job import main
from coldtune.studies import run
from coldtune.studies.preflight.options import RunOptions


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which every study that would run adds the trainings of its confirmation."""
    found: list[int] = []

    def run_study(spec: object, options: RunOptions, console: object) -> int:
        found.append(options.confirm)
        return 0

    monkeypatch.setattr(run, "run_study", run_study)
    return found


@pytest.mark.parametrize(("flags", "confirm"), [([], 4), (["--confirm", "0"], 0), (["--confirm", "7"], 7)])
def test_sweep_blur_confirms_unless_the_command_says_otherwise(
    root: Path, started: list[int], monkeypatch: pytest.MonkeyPatch, flags: list[str], confirm: int
) -> None:
    job = str(root / "jobs" / "sweep_blur.py")
    monkeypatch.setattr(sys, "argv", [job, *flags])
    with pytest.raises(SystemExit):
        runpy.run_path(job, run_name="__main__")
    assert started == [confirm]


@pytest.mark.parametrize(
    ("space", "confirm"),
    [
        ("base: digits-quick\nvary: {degradation.steps: {low: 4, high: 8}}\n", 5),
        ("base: digits-quick\nvariants: {a: {}, b: {training.lr: 2.0e-3}}\n", 0),
        (
            "base: digits-quick\nvary: {sampler.num_steps: {low: 2, high: 8}}\n"
            "objective: [{metric: fid}, {metric: nfe}]\n",
            0,
        ),
    ],
)
def test_default_confirmation_is_off_for_a_study_without_a_winner(
    tmp_path: Path, started: list[int], space: str, confirm: int
) -> None:
    (tmp_path / "space.yaml").write_text(space)
    with pytest.raises(SystemExit):
        main("job", tmp_path / "space.yaml", "", arguments=[], confirm=5)
    assert started == [confirm]
