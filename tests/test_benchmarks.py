"""The scripts in benchmarks/ that anybody with a GPU can run. Each is tried in its smallest version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipes import ROOT


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_gpu_without_time_starts_no_part_and_lists_all_as_not_measured(tmp_path: Path) -> None:
    done = run("gpu.py", "--device", "cpu", "--quick", "--budget", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == 11
    assert all("| not measured |" in row for row in rows)


def test_gpu_unknown_part_is_an_error_that_names_the_parts(tmp_path: Path) -> None:
    done = run("gpu.py", "--parts", "memory,warp", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "no part warp; allowed are memory, judging" in done.stderr


@pytest.mark.slow
def test_gpu_part_keeps_its_result_and_is_skipped_when_done(tmp_path: Path) -> None:
    arguments = ("--device", "cpu", "--quick", "--out", str(tmp_path), "--parts", "memory")
    done = run("gpu.py", *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results.json").read_text())["parts"]["memory"]
    assert result["verdict"].startswith("passed"), result
    report = (tmp_path / "report.md").read_text()
    assert "| `memory` |" in report
    assert report.count("| not measured |") == 10
    again = run("gpu.py", *arguments, "--skip-done")
    assert "memory: begins" not in again.stdout
    assert json.loads((tmp_path / "results.json").read_text())["parts"]["memory"] == result
    assert len(list(tmp_path.iterdir())) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("script", ["training.py", "sampling.py"])
def test_ways_are_compared_in_a_table_and_others_have_a_reason(script: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    images = ["--images", "8"] if script == "sampling.py" else []
    cases = ["--device", "cpu", "--cases", "micro-16-b4", "--rounds", "1", "--seconds", "0.01"]
    done = run(script, *cases, "--ways", "closed-form", "ours, float32", "tf32", "--json", str(file), *images)
    assert done.returncode == 0, done.stderr
    rows = {row["way"]: row for row in json.loads(file.read_text())}
    assert rows["plain loop, closed-form blur"]["images_per_s"] > 0
    assert rows["ours, float32"]["images_per_s"] > 0
    assert "no CUDA" in rows["ours, tf32"]["skipped"]
    assert "| ours, float32 |" in done.stdout
