"""What decides over kills, and what notes them down."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from chaos_checks import _expect
from chaos_episode import Episode
from chaos_plan import COSTLY, KINDS, SCENARIOS, Dice
from chaos_study import Kill, TroubleError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from chaos import Fire, Record, page


def test_every_kind_can_be_hit_in_a_study_that_must_end_identical() -> None:
    assert {kind for scenario in SCENARIOS.values() if scenario.identical for kind in scenario.kinds} == set(KINDS)


def test_what_was_hit_least_is_next_and_a_trial_dies_twice_at_most() -> None:
    scenario = SCENARIOS["random"]
    dice = Dice(Random(0))
    for _ in range(13):
        kind = dice.kind(scenario, 0)
        assert kind
        dice.hits[kind] += 1
    assert dice.hits == {"driver": 2, "raylet": 2, "trial": 3, "mlflow": 3, "postgres": 3}
    dice.hits["trial"] = 0
    assert dice.kind(scenario, 1) == "trial"
    assert dice.kind(scenario, 2) != "trial"
    assert [Dice(Random(3)).instant(scenario) for _ in range(2)] == [Dice(Random(3)).instant(scenario)] * 2


def test_a_record_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    record = Record(tmp_path / "chaos.json", 7)
    kills = [Kill("driver", "tpe", 2, "training 10", 12.0), Kill("mlflow", "tpe", 3, "starting", 0.5, 4.5)]
    record.tree["unbroken"]["tpe"] = []
    record.add(Episode("tpe", 60.0, "", kills))
    record.add(Episode("tpe", 30.0, "a trial was lost", kills[:1]))
    again = Record(tmp_path / "chaos.json", 8)
    assert again.tree["seed"] == 7
    assert again.kills == [*kills, kills[0]]
    text = page(again, "command")
    assert "| driver | 2 | 2, 2 |  | 12.0 (12.0) | 1 |" in text
    assert "| mlflow | 1 | 3 | 4.5 to 4.5 | 0.5 (0.5) | 0 |" in text
    assert "| tpe | 6 | 2 | 3 | 1 of 2 identical to the unbroken study |" in text


def test_the_next_study_is_one_that_can_lose_what_was_hit_least(tmp_path: Path) -> None:
    fire = Fire.__new__(Fire)
    fire.scenarios, fire.record = list(SCENARIOS.values()), Record(tmp_path / "chaos.json", 0)
    hits = Counter({kind: 2 if kind in COSTLY else 3 for kind in KINDS})
    for kind in ("worker", "postgres"):
        assert kind in fire._scenario(hits - Counter({kind: 1})).kinds


def test_a_difference_is_trouble_that_names_both() -> None:
    _expect("the table", [1], [1])
    with pytest.raises(TroubleError, match=r"the table:\n  found  \[1\]\n  wanted \[2\]"):
        _expect("the table", [1], [2])
