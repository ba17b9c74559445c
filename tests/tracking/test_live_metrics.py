"""Tests of the gauges, read from Ray's Prometheus endpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from coldtune.labels import as_label
from coldtune.tracking import prometheus
from coldtune.tracking.prometheus import BEST_FID, METRICS, STATES, StudyMetrics, TrialMetrics

# A trial reports until all gauges are exported. With an argument, the process then waits until the trial's disappear.
STUDY = """
import json, sys, time, urllib.request
import ray
from coldtune.tracking.prometheus import METRICS, STATES, StudyMetrics, TrialMetrics

def scrape():
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return []
    return [line for line in lines if line.startswith("ray_coldtune_")]

def wait(condition):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        lines = scrape()
        if condition(lines):
            return lines
        time.sleep(0.2)
    raise AssertionError(lines)

def all_are_there(lines):
    ray.get([trial.train.remote(number) for number in (0, 1)])
    counts = {metric.exported: sum(line.startswith(metric.exported + "{") for line in lines) for metric in METRICS}
    return counts == {m.exported: 2 if "trial" in m.tags else len(STATES) if "state" in m.tags else 1 for m in METRICS}

def only_the_studys(lines):
    return lines and not any("trial=" in line for line in lines)

@ray.remote(num_cpus=0)
class Trial:
    def train(self, number):
        TrialMetrics("s", number).training(10 * (number + 1), 0.25, 1000.0)

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
study = StudyMetrics("s")
study.trials({"running": 2, "failed": 1})
study.best_fid(1.5)
trial = Trial.remote()
lines = wait(all_are_there)
print(json.dumps([lines, wait(only_the_studys) if sys.argv[1:] else lines]))
ray.shutdown()
"""


def value(lines: list[str], name: str, *tags: str) -> float:
    (line,) = [line for line in lines if line.startswith(name + "{") and all(tag in line for tag in tags)]
    return float(line.rpartition(" ")[2])


def study(*arguments: str) -> tuple[list[str], list[str]]:
    """Return the endpoint's lines about coldtune when all gauges are exported, and again at the end of the process.

    With an argument, the process ends when the gauges of the trials have disappeared.
    """
    environment = os.environ | {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    command = [sys.executable, "-c", STUDY, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-8000:]
    first, later = json.loads(done.stdout.splitlines()[-1])
    return first, later


def check_study(lines: list[str]) -> None:
    for state in STATES:
        wanted = {"running": 2.0, "failed": 1.0}.get(state, 0.0)
        assert value(lines, "ray_coldtune_trials", 'study="s"', f'state="{state}"') == wanted
    assert value(lines, "ray_coldtune_best_fid", 'study="s"') == 1.5


@pytest.mark.e2e
@pytest.mark.slow
def test_gauges_set_values_are_exported_by_ray() -> None:
    lines, _ = study()
    check_study(lines)
    for trial, step in (("0", 10.0), ("1", 20.0)):
        tags = ('study="s"', f'trial="{trial}"')
        assert value(lines, "ray_coldtune_training_step", *tags) == step
        assert value(lines, "ray_coldtune_training_loss", *tags) == 0.25
        assert value(lines, "ray_coldtune_images_per_second", *tags) == 1000.0


@pytest.mark.e2e
@pytest.mark.slow
def test_gauges_of_an_ended_trial_disappear() -> None:
    _, later = study("fade")
    check_study(later)
    assert not [line for line in later if "ray_coldtune_training" in line or "images_per_second" in line]


def test_gauges_without_ray_have_no_effect() -> None:
    TrialMetrics("s", 0).training(1, 0.5, 10.0)
    study = StudyMetrics("s")
    study.best_fid(1.0)
    study.close()


def test_gauges_have_unique_names_and_checked_tags() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all("study" in metric.tags for metric in METRICS)
    with pytest.raises(AssertionError):
        BEST_FID.set(1.0, {"study": "s", "trial": "0"})


def test_gauges_study_name_outside_ascii_is_exported_percent_encoded() -> None:
    assert as_label("größe-日本 (v2)") == "gr%C3%B6%C3%9Fe-%E6%97%A5%E6%9C%AC (v2)"
    assert as_label("plain_name-1%") == "plain_name-1%"
    study = StudyMetrics("größe")
    study.trials({"running": 1})
    study.close()


def test_gauge_that_ray_refuses_is_a_warning_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def set(self, value: float, tags: object) -> None:
            raise UnicodeEncodeError("ascii", "x", 0, 1, "ordinal not in range(128)")

    monkeypatch.setattr(prometheus, "_gauge", lambda metric: Refusing())
    with pytest.warns(UserWarning, match="gauge coldtune_best_fid cannot be set .*The study goes on without it"):
        BEST_FID.set(1.0, {"study": "s"})
