"""The conditions under which a study stops by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coldtune.studies.execution.stopping import StopConditions
from coldtune.studies.preflight.options import Limits
from coldtune.studies.progress.events import StoppedError
from coldtune.studies.storage.outcome import TrialOutcome


def stop_conditions(empty: float = 0.0, **limits: Any) -> tuple[StopConditions, list[str], SimpleNamespace]:
    said: list[str] = []
    capacity = SimpleNamespace(empty=empty)
    capacity.empty_for = lambda: capacity.empty
    return StopConditions(Limits(**limits), capacity, said.append), said, capacity  # type: ignore[arg-type]


def test_stop_conditions_failures_in_a_row_stop_the_study() -> None:
    made, _, _ = stop_conditions(max_failures=3)
    for ending in "ffcffcff":
        made.failed(0, "ValueError: bad") if ending == "f" else made.completed(0, TrialOutcome())
        made.tick()
    made.failed(7, "ValueError: worse\nand more")
    with pytest.raises(StoppedError, match=r"last 3 trials failed.*: ValueError: worse \(--max-failures 3\)$"):
        made.tick()


def test_stop_conditions_max_failures_zero_never_stops() -> None:
    made, _, _ = stop_conditions(max_failures=0)
    for number in range(100):
        made.failed(number, "x")
        made.tick()


def test_stop_conditions_small_cluster_stops_after_patience() -> None:
    made, said, capacity = stop_conditions(patience=60)
    made.tick()
    for capacity.empty in (1, 30, 60):
        made.tick()
    assert len(said) == 1
    assert said[0].startswith("waiting for nodes: ")
    assert said[0].endswith("; ends in 1m unless they come")
    capacity.empty = 0
    made.tick()
    made.tick()
    assert said[1:] == ["the cluster has room again"]
    capacity.empty = 61
    with pytest.raises(StoppedError, match=r"the cluster is too small: .*for 1m now"):
        made.tick()
