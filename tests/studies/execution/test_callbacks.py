"""What is left in the driver of a trial that ended."""

from __future__ import annotations

import json
from typing import Any

from ray.tune.experiment import Trial

from coldtune.studies.execution.callbacks import _forget


def ended(reports: int, text: int) -> Any:
    """A trial of Tune that has reported, with texts of a length."""
    trial = Trial("coldtune_trial", stub=True, config={"number": 3, "job": "j" * text}, trial_id="a1")
    for step in range(reports):
        numbers = {f"metric{i}": float(step) for i in range(20)}
        trial.update_last_result({"outcome": "o" * text, "config": trial.config, "time": 1.0, **numbers})
    return trial


def state(trial: Any) -> list[Any]:
    return [json.loads(part) for part in trial.get_json_state()]  # what Tune saves when the experiment ends


def test_what_tune_keeps_does_not_depend_on_what_was_reported() -> None:
    short, long = ended(1, 10), ended(50, 100_000)
    assert len(str(state(long))) > len(str(state(short))) + 100_000
    for trial in (short, long):
        _forget(trial)
    small, large = (len(str(state(trial))) for trial in (short, long))
    assert abs(large - small) < 100, "but for the digits of the time"
    assert short.trial_id == "a1"
