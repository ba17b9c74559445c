"""The conditions under which a study stops by itself: failures in a row, and a cluster that is too small."""

from __future__ import annotations

from typing import Any

import pytest

from coldtune.studies.execution.stopping import StopConditions
from coldtune.studies.preflight.options import Limits
from coldtune.studies.progress.events import StoppedError
from coldtune.studies.storage.outcome import TrialOutcome


class FakeCapacity:
    """A cluster that has been too small for `empty` seconds."""

    empty = 0.0

    def empty_for(self) -> float:
        return self.empty


def stop_conditions(**limits: Any) -> tuple[StopConditions, FakeCapacity, list[str]]:
    """Return the conditions, their cluster, and the sentences that they say."""
    capacity, sentences = FakeCapacity(), list[str]()
    return StopConditions(Limits(**limits), capacity, sentences.append), capacity, sentences  # type: ignore[arg-type]


def test_stop_conditions_only_failures_in_a_row_stop_a_study() -> None:
    conditions, _, _ = stop_conditions(max_failures=3)
    for ending in "ffcffpff":
        if ending == "f":
            conditions.failed(0, "ValueError: bad")
        elif ending == "c":
            conditions.completed(0, TrialOutcome())
        else:
            conditions.pruned(0, 50)
        conditions.tick()
    conditions.failed(7, "ValueError: worse\nand more")
    with pytest.raises(StoppedError, match=r"last 3 trials failed.*: ValueError: worse \(--max-failures 3\)$"):
        conditions.tick()


def test_stop_conditions_max_failures_zero_never_stops() -> None:
    conditions, _, _ = stop_conditions(max_failures=0)
    for number in range(100):
        conditions.failed(number, "x")
        conditions.tick()


def test_stop_conditions_too_small_cluster_is_waited_for() -> None:
    conditions, capacity, sentences = stop_conditions(patience=60)
    conditions.tick()
    for capacity.empty in (1, 30, 60):
        conditions.tick()
    assert len(sentences) == 1
    assert sentences[0].startswith("waiting for nodes: ")
    assert sentences[0].endswith("; ends in 1m unless they come")
    capacity.empty = 0
    conditions.tick()
    conditions.tick()
    assert sentences[1:] == ["the cluster is large enough again"]
    capacity.empty = 61
    with pytest.raises(StoppedError, match=r"the cluster is too small: .*for 1m now"):
        conditions.tick()
