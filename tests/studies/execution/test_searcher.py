"""The searcher, when trials end by a fault of the machine or by the death of their process. No cluster is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from ray import exceptions as ray_errors
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.search import Searcher

from coldtune.faults import MachineFaultError
from coldtune.studies.execution.lost_workers import report_lost_workers
from coldtune.studies.execution.searcher import StudySearcher
from coldtune.studies.preflight.capacity import Capacity, plan_resources
from coldtune.studies.progress.events import Events
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.trials.ledger import Ledger, TrialRequest, open_ledger

OUT_OF_MEMORY = ray_errors.OutOfMemoryError(
    "Task was killed due to the node running low on memory.\nMemory on the node"
)


@pytest.fixture
def ledger(root: Path) -> Ledger:
    spec = build_spec("sweep_blur", root / "search_spaces" / "blur.yaml")
    return open_ledger("study", spec, Space(spec.space, spec.base, (1, 16, 16)), InMemoryStorage())


def make_searcher(ledger: Ledger, events: Events | None = None) -> StudySearcher:
    nodes = [{"CPU": 2.0}]
    capacity = Capacity(plan_resources(nodes, 1, 0.0, 2), 2, lambda: nodes)

    def job(request: TrialRequest) -> Any:
        return {"number": request.number}

    return StudySearcher(ledger, events or Events(), job, capacity, 2)


def test_searcher_trial_with_a_fault_stays_running_and_the_study_stops(ledger: Ledger) -> None:
    search = make_searcher(ledger)
    assert isinstance(search.suggest("a"), dict)
    assert isinstance(search.suggest("b"), dict)
    search.on_trial_complete("a", {"state": "fault", "reason": "[Errno 28] No space left on device"})
    assert isinstance(search.failure, MachineFaultError)
    assert str(search.failure) == "trial 0: [Errno 28] No space left on device"
    assert search.suggest("c") == Searcher.FINISHED
    assert [trial.state for trial in ledger.trials()] == [TrialState.RUNNING] * 2
    assert ledger.running() == [0, 1]


def test_searcher_process_killed_for_its_memory_is_a_fault_and_a_crash_is_a_failure(ledger: Ledger) -> None:
    search = make_searcher(ledger)
    search.suggest("a")
    search.suggest("b")
    search.deaths[0] = 2
    search.lost_process = ray_errors.ActorDiedError()
    search.on_trial_complete("a", error=True)
    assert search.failure is None
    assert ledger.trials()[0].state == TrialState.FAIL
    assert ledger.failed()[0].number == 0
    search.deaths[1] = 2
    search.lost_process = OUT_OF_MEMORY
    search.on_trial_complete("b", error=True)
    assert str(search.failure).startswith("trial 1: Ray ended its process because the machine ran out of memory")
    assert ledger.trials()[1].state == TrialState.RUNNING


def test_searcher_errors_of_the_driver_become_its_failure(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Events):
        def progressed(self, number: int, result: Any) -> None:
            raise OSError(28, "No space left on device")

    search = make_searcher(ledger, Full())
    search.suggest("a")
    search.on_trial_result("a", {"state": "running", "stage": "train"})
    assert isinstance(search.failure, OSError)
    search = make_searcher(ledger)
    monkeypatch.setattr(ledger, "ask", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    assert search.suggest("b") == Searcher.FINISHED
    assert isinstance(search.failure, OSError)


def test_report_lost_workers_memory_kill_ends_the_actor_for_tune() -> None:
    """Tune's manager raises RuntimeError for an OutOfMemoryError, and handles the death of an actor."""
    ended: list[Exception] = []
    told: list[Exception | None] = []

    class Actor:
        actor_id = 7
        _on_error = staticmethod(lambda actor, error: ended.append(error))

    class Task:
        _tracked_actor = Actor
        _on_error = staticmethod(lambda actor, error: ended.append(error))

    class Manager(RayActorManager):
        def __init__(self) -> None:
            self._failed_actor_ids: set[Any] = set()

        def _cleanup_actor(self, tracked_actor: Any) -> None:
            pass

    manager: Any = Manager()
    with pytest.raises(RuntimeError):
        manager._actor_task_failed(tracked_actor_task=Task, exception=OUT_OF_MEMORY)
    with report_lost_workers(told.append):
        manager._actor_task_failed(tracked_actor_task=Task, exception=OUT_OF_MEMORY)
    assert told == [OUT_OF_MEMORY, None]
    assert len(ended) == 2
    assert all(isinstance(error, ray_errors.RayActorError) and "low on memory" in str(error) for error in ended)
    with pytest.raises(RuntimeError):
        manager._actor_task_failed(tracked_actor_task=Task, exception=OUT_OF_MEMORY)
