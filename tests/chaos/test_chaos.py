"""Five kills of five kinds, and what is left of the study: all of it. More: benchmarks/chaos.py."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from chaos_checks import check, storage_of, table
from chaos_episode import episode, unbroken
from chaos_plan import SCENARIOS, Dice, Scenario
from chaos_servers import Mlflow
from chaos_study import finish, study_of
from optuna.trial import TrialState

import servers

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1800)]
SEED = 20261123


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Mlflow]:
    server = Mlflow(tmp_path / "mlflow")
    server.start()
    yield server
    server.close()


def test_five_kills_of_a_random_search_change_nothing(
    tmp_path: Path, mlflow: Mlflow, postgres: servers.Postgres
) -> None:
    scenario = SCENARIOS["random"]
    wanted = unbroken(scenario, tmp_path / "unbroken", mlflow, postgres, "unbroken")
    dice = Dice(Random(SEED))
    print(f"seed {SEED}")
    done = episode(scenario, wanted, dice, tmp_path / "killed", mlflow, postgres, "killed", 5, print)
    assert not done.trouble, done.trouble
    assert sorted(kill.kind for kill in done.kills) == sorted(scenario.kinds), "the study ended before"


def test_a_driver_killed_behind_its_last_trial_leaves_the_end_to_the_next(tmp_path: Path, mlflow: Mlflow) -> None:
    with study_of(Scenario("end", 1, (), {"search.algorithm": "random"}), tmp_path / "s", mlflow, None, "end") as study:
        study.start()
        study.run.until("the end of its trial", study.runs_ended)
        study.run.process.kill()
        assert study.run.ended() == -signal.SIGKILL
        study.wait("the end of all", lambda: not study.leftovers())
        assert storage_of(study).trials[0].state == TrialState.COMPLETE
        assert "test" not in storage_of(study).user_attrs, "killed too late for this test"
        study.resume()
        finish(study)
        check(study, table(study))
        for state in study.home.glob("studies/*/spool/*.state"):
            state.unlink()  # as if it had been killed before anything was delivered
        study.resume()  # nothing is left to do but that
        finish(study)
        assert "on Ray started here" not in study.run.text
        check(study, table(study))
