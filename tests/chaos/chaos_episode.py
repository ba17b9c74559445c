"""An episode: one study, killed again and again until it has its trials, and then compared with the unbroken one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_checks import check, table
from chaos_plan import Dice, Scenario
from chaos_servers import Mlflow, Postgres
from chaos_study import Kill, Study, finish, strike, study_of

Say = Callable[[str], None]


@dataclass
class Episode:
    """What became of one. trouble: "" where everything held."""

    scenario: str
    seconds: float = 0.0
    trouble: str = ""
    kills: list[Kill] = field(default_factory=list)


def unbroken(scenario: Scenario, folder: Path, mlflow: Mlflow, postgres: Postgres | None, name: str) -> list[Any]:
    """The table of the study that nobody kills; it must pass the same checks."""
    with study_of(scenario, folder, mlflow, postgres, name) as study:
        study.start()
        finish(study)
        found = table(study)
        check(study, found)
        return found


def episode(
    scenario: Scenario,
    wanted: list[Any],
    dice: Dice,
    folder: Path,
    mlflow: Mlflow,
    postgres: Postgres | None,
    name: str,
    most: int,
    say: Say,
) -> Episode:
    """At most `most` kills of one study, each at an instant that the dice say after it went on from the last."""
    since, done = time.monotonic(), Episode(scenario.name)
    try:
        with study_of(scenario, folder, mlflow, postgres, name) as study:
            done.kills = study.kills
            study.start()
            while len(done.kills) < most and (kill := _next(study, dice, say)) is not None:
                say(f"{kill.kind} ({kill.ended} trials ended, {kill.doing}): went on after {kill.seconds:g} s")
            finish(study)
            check(study, wanted)
    except Exception as trouble:  # whatever it is: it belongs in the record, and the next study may tell more
        done.trouble = f"{type(trouble).__name__}: {trouble}"
    done.seconds = round(time.monotonic() - since, 1)
    return done


def _next(study: Study, dice: Dice, say: Say) -> Kill | None:
    """The next kill; None where the study ended before."""
    kind = dice.kind(study.scenario, study.alive_deaths())
    if kind is None:
        return None
    wait, outage = dice.instant(study.scenario), dice.outage()
    say(f"next: {kind} in {wait:.1f} s")
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline and not study.over:
        time.sleep(0.05)
    if study.over:
        return None
    kill = strike(study, kind, outage)
    if kill is not None:
        dice.hits[kind] += 1
    return kill
