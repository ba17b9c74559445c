"""A study survives five kills of five kinds, and a kill at its very end. benchmarks/chaos.py makes more kills."""

from __future__ import annotations

import signal
from pathlib import Path
from random import Random

import pytest
from chaos_checks import check, storage_of, table
from chaos_episode import episode, unbroken
from chaos_plan import SCENARIOS, KillChooser, Scenario
from chaos_servers import Mlflow
from chaos_study import finish, study_of
from optuna.trial import TrialState

import servers

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1800)]
SEED = 20261123


def test_study_killed_five_times_equals_unbroken_study(
    tmp_path: Path, mlflow: Mlflow, postgres: servers.Postgres
) -> None:
    scenario = SCENARIOS["random"]
    wanted = unbroken(scenario, tmp_path / "unbroken", mlflow, postgres, "unbroken")
    chooser = KillChooser(Random(SEED))
    print(f"seed {SEED}")
    done = episode(scenario, wanted, chooser, tmp_path / "killed", mlflow, postgres, "killed", 5, print)
    assert not done.trouble, done.trouble
    assert sorted(kill.kind for kill in done.kills) == sorted(scenario.kinds), "the study ended before five kills"


def test_driver_killed_after_last_trial_is_completed_by_resume(tmp_path: Path, mlflow: Mlflow) -> None:
    with study_of(Scenario("end", 1, (), {"search.algorithm": "random"}), tmp_path / "s", mlflow, None, "end") as study:
        study.start()
        study.run.until("the end of its trial", study.runs_ended)
        study.run.process.kill()
        assert study.run.wait() == -signal.SIGKILL
        study.wait("the end of all processes", lambda: not study.leftovers())
        assert storage_of(study).trials[0].state == TrialState.COMPLETE
        assert "test" not in storage_of(study).user_attrs, "killed too late for this test"
        study.resume()
        finish(study)
        check(study, table(study))
        for state in study.home.glob("studies/*/spool/*.state"):
            state.unlink()  # as if the driver had been killed before it delivered any record
        study.resume()  # only the delivery is left to do
        finish(study)
        assert "on Ray started here" not in study.run.text
        check(study, table(study))
