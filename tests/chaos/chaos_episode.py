"""An episode: a study is killed until it has its trials, and is then compared with an unbroken study."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_checks import check, table
from chaos_plan import KillChooser, Scenario
from chaos_servers import Mlflow, Postgres
from chaos_study import Kill, Study, finish, kill_and_restore, study_of

Say = Callable[[str], None]


@dataclass
class Episode:
    """The record of an episode. `trouble` is empty if all checks passed."""

    scenario: str
    seconds: float = 0.0
    trouble: str = ""
    kills: list[Kill] = field(default_factory=list)


def unbroken(scenario: Scenario, folder: Path, mlflow: Mlflow, postgres: Postgres | None, name: str) -> list[Any]:
    """Run the study without kills and return its table. The study must pass the same checks."""
    with study_of(scenario, folder, mlflow, postgres, name) as study:
        study.start()
        finish(study)
        found = table(study)
        check(study, found)
        return found


def episode(
    scenario: Scenario,
    wanted: list[Any],
    chooser: KillChooser,
    folder: Path,
    mlflow: Mlflow,
    postgres: Postgres | None,
    name: str,
    max_kills: int,
    say: Say,
) -> Episode:
    """Run a study and kill it up to `max_kills` times. The chooser picks the kind and time of each kill."""
    since, done = time.monotonic(), Episode(scenario.name)
    try:
        with study_of(scenario, folder, mlflow, postgres, name) as study:
            done.kills = study.kills
            study.start()
            while len(done.kills) < max_kills and (kill := _next(study, chooser, say)) is not None:
                say(f"{kill.kind} ({kill.ended} trials ended, {kill.doing}): continued after {kill.seconds:g} s")
            finish(study)
            check(study, wanted)
    except Exception as trouble:  # any error belongs in the record, and the next episode still runs
        done.trouble = f"{type(trouble).__name__}: {trouble}"
    done.seconds = round(time.monotonic() - since, 1)
    return done


def _next(study: Study, chooser: KillChooser, say: Say) -> Kill | None:
    """Wait for the next kill and do it. Return None if the study ends before."""
    kind = chooser.kind(study.scenario, study.alive_deaths())
    if kind is None:
        return None
    wait, outage = chooser.delay(study.scenario), chooser.outage()
    say(f"next: {kind} in {wait:.1f} s")
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline and not study.over:
        time.sleep(0.05)
    if study.over:
        return None
    kill = kill_and_restore(study, kind, outage)
    if kill is not None:
        chooser.hits[kind] += 1
    return kill
