"""The searcher, when trials end by a fault of the machine or by the death of their process. No cluster is started."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from ray import exceptions as ray_errors
from ray.air.execution import FixedResourceManager, ResourceRequest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from coldtune.faults import MachineFaultError
from coldtune.studies.execution.lost_workers import report_lost_workers
from coldtune.studies.execution.ray_private import drop_tasks_of_removed_actors
from coldtune.studies.execution.searcher import RungScheduler, StudySearcher
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


def test_rung_scheduler_chooses_as_tune_does_from_all_trials() -> None:
    trials: list[Any] = []
    controller: Any = SimpleNamespace(get_trials=lambda: trials)
    ours, theirs, rng, chosen = RungScheduler(search=None), FIFOScheduler(), random.Random(0), 0  # type: ignore[arg-type]
    for step in range(300):
        if rng.random() < 0.3:
            trials.append(Trial("coldtune_trial", stub=True, trial_id=str(step)))
            ours.on_trial_add(controller, trials[-1])
        open_ones = [trial for trial in trials if not trial.is_finished()]
        if open_ones:
            states = [Trial.PENDING, Trial.RUNNING, Trial.PAUSED, Trial.ERROR, Trial.TERMINATED]
            rng.choice(open_ones).set_status(rng.choice(states))
        expected = theirs.choose_trial_to_run(controller)
        assert ours.choose_trial_to_run(controller) is expected
        chosen += expected is not None
    assert chosen > 20


def test_drop_tasks_of_removed_actors_leaves_nothing_of_an_actor_that_never_started() -> None:
    def kept() -> int:
        manager = RayActorManager(resource_manager=FixedResourceManager(total_resources={"CPU": 1}))
        actor = manager.add_actor(object, {}, ResourceRequest([{"CPU": 1}]))
        manager.schedule_actor_task(actor, "train")
        manager.remove_actor(actor)
        return len(manager._pending_actors_to_enqueued_actor_tasks)

    assert kept() == 1, "Ray itself forgets them now"
    with drop_tasks_of_removed_actors():
        assert kept() == 0
    assert kept() == 1
