"""The memory that an ended trial takes in the driver."""

from __future__ import annotations

import json
from typing import Any

from ray.tune.experiment import Trial

from coldtune.studies.execution.callbacks import _drop_statistics


def make_trial(reports: int, length: int) -> Any:
    """Make a trial of Tune that sent `reports` reports, with texts of `length` characters."""
    job, tag = "j" * length, f"3_job={'j' * length}"  # Tune's tag names all values of the configuration
    trial = Trial("coldtune_trial", stub=True, config={"number": 3, "job": job}, experiment_tag=tag, trial_id="a1")
    for step in range(reports):
        numbers = {f"metric{i}": float(step) for i in range(20)}
        trial.update_last_result({"outcome": "o" * length, "config": trial.config, "time": 1.0, **numbers})
    return trial


def saved_length(trial: Any) -> int:
    """Return the length of the state that Tune saves at the end of an experiment."""
    return len(str([json.loads(part) for part in trial.get_json_state()]))


def test_drop_statistics_saved_state_does_not_grow_with_the_reports() -> None:
    short, long = make_trial(1, 10), make_trial(50, 100_000)
    assert saved_length(long) > saved_length(short) + 100_000
    for trial in (short, long):
        _drop_statistics(trial)
    assert abs(saved_length(long) - saved_length(short)) < 100, "only the digits of the time may differ"
    assert short.trial_id == "a1"
