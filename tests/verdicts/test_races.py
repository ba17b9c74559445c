"""Races from their first training to their end: numbers of trainings, repeatable decisions, and false verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from coldtune.verdicts import Family, Outcome, Panel, Plan, Race, Setting, Standing, Training, judge

NAMES = ("base", "x", "y")
Values = Mapping[str, list[float]]


def race(first: int, most: int, *kinds: str, names: tuple[str, ...] = NAMES, equal_within: float | None = None) -> Race:
    families = {"base": Family("base", names, names[0]), "best": Family("best", names)}
    chosen = tuple(families[kind] for kind in kinds or ("base", "best"))
    return Race(chosen, Plan.racing(first, most), equal_within=equal_within)


def panel_of(values: Values | NDArray[np.float64], names: tuple[str, ...] = NAMES) -> Panel:
    rows = values if isinstance(values, Mapping) else dict(zip(names, values.tolist(), strict=True))
    nothing = torch.zeros(2, dtype=torch.float64)
    return Panel.of(
        Setting(name, tuple(Training(v, nothing, r, f"{name}/{r}") for r, v in enumerate(of)))
        for name, of in rows.items()
    )


def run(
    raced: Race, panel: Panel, first: int, pick: Callable[[list[str]], list[str]] = lambda names: names[:1]
) -> tuple[dict[str, int], Standing]:
    """Give trainings as the race wants them. Return their numbers, and the standing at the end.

    Args:
        pick: Chooses which of the settings that lack trainings get one next. All of them may run at once.
    """
    counts = dict.fromkeys(panel.settings, 0)
    while True:
        standing = raced.standing_of(panel.first(counts))
        lacking = [name for name, count in counts.items() if count < max(first, standing.wanted.get(name, 0))]
        if not lacking:
            return counts, standing
        for name in pick(lacking):
            counts[name] += 1


def drawn(seed: int, most: int, *means: float, sd: float = 1.0) -> NDArray[np.float64]:
    means = means or (0.0,) * len(NAMES)
    return np.random.default_rng(seed).normal(np.array(means)[:, None], sd, (len(means), most))


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**31), first=st.integers(2, 4), more=st.integers(0, 3), shift=st.sampled_from([0.0, 3.0, 30.0])
)
def test_race_gives_every_setting_first_to_most_trainings_in_any_order(seed, first, more, shift):
    """A single trial at a time, all at once, and any order give the same numbers and the same verdicts."""
    most = max(first + more, 3)
    raced, panel = race(first, most), panel_of(drawn(seed, most, 0.0, shift, 0.0))
    counts, end = run(raced, panel, first)
    assert all(first <= count <= most for count in counts.values())
    assert end.over
    rng = np.random.default_rng(seed)
    for pick in (list, lambda names: [str(rng.choice(names))]):
        again, same = run(raced, panel, first, pick)
        assert again == counts
        assert same.judged == end.judged
    undecided = [v for each in end.judged for v in each.verdicts if not v.outcome.decided]
    assert not undecided or max(counts.values()) == most


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["base", "best"]))
def test_race_decides_as_if_all_settings_had_all_trainings(seed, kind):
    """So the simulations of races with all trainings hold for a race that stops trainings early."""
    raced, panel = race(2, 6, kind), panel_of(drawn(seed, 6, 0.0, 4.0, 0.5))
    _, end = run(raced, panel, 2)
    whole = judge(panel.settings.values(), raced.families[0], raced.plan)
    assert [(v.a, v.b, v.outcome) for v in end.judged[0].verdicts] == [(v.a, v.b, v.outcome) for v in whole.verdicts]
    assert end.judged[0].rivals == whole.rivals


def test_race_decision_stays_if_trainings_beyond_it_are_there():
    """Another family may want more trainings of a setting than the family that has decided about it."""
    values = drawn(3, 8, 0.0, 40.0, 0.0)
    raced, panel = race(2, 8, "base"), panel_of(values)
    counts, end = run(raced, panel, 2)
    more = raced.standing_of(panel.first({**counts, "x": 8}))
    assert counts["x"] < 8
    assert more.judged[0]["x"] == end.judged[0]["x"]


def test_race_setting_far_worse_is_dropped_early():
    counts, end = run(race(2, 10), panel_of(drawn(1, 10, 0.0, 50.0, 0.1)), 2)
    assert counts["x"] <= 4
    assert counts["base"] == counts["y"] == 10, "they can hardly be told apart"
    assert end.undecided == {"base", "y"}
    assert [each["x"].outcome for each in end.judged] == [Outcome.WORSE] * 2


def test_race_of_equal_settings_goes_to_most():
    counts, end = run(race(2, 7), panel_of(np.tile(drawn(5, 7, 0.0), (3, 1))), 2)
    assert set(counts.values()) == {7}
    assert end.undecided == set(NAMES)
    assert not [v for each in end.judged for v in each.verdicts if v.outcome.decided]


def test_race_stops_if_settings_are_practically_equal():
    near = panel_of(drawn(5, 10, 0.0, 0.0, 0.0, sd=0.01))
    counts, end = run(race(2, 10, equal_within=1.0), near, 2)
    assert set(counts.values()) == {3}
    assert {v.outcome for each in end.judged for v in each.verdicts} == {Outcome.EQUAL}


def test_race_of_the_best_alone_stops_with_a_single_setting_left():
    counts, end = run(race(2, 10, "best"), panel_of(drawn(2, 10, 0.0, 30.0, 60.0)), 2)
    assert max(counts.values()) < 10
    assert end.judged[0].rivals == ("base",)
    assert end.undecided == frozenset()


def test_race_ignores_a_setting_without_a_mean_but_keeps_it_in_the_family():
    values = drawn(1, 10, 0.0, 50.0, 0.0)
    panel = panel_of(values)
    lost = Setting("y", (), "failed (1 of 10)")
    members = [panel.settings["base"].first(4), panel.settings["x"].first(4), lost]
    standing = race(2, 10).standing(members)
    assert standing.over
    assert all(each["y"].outcome is Outcome.MISSING for each in standing.judged)
    assert standing.judged[0]["x"].comparisons == 2


def test_race_continues_without_a_setting_that_gets_no_more_trainings():
    panel = panel_of(np.tile(drawn(5, 10, 0.0), (3, 1)))
    given = panel.first({"base": 4, "x": 3, "y": 4})
    assert race(2, 10).standing_of(given).wanted == {"x": 4}
    standing = race(2, 10).standing_of(given, exhausted=["x"])
    assert standing.wanted == {"base": 5, "y": 5}
    for each in standing.judged:
        verdict = next(verdict for verdict in each.verdicts if "x" in (verdict.a, verdict.b))
        assert (verdict.outcome, verdict.count_a) == (Outcome.UNDECIDED, 3), "the verdict of its last look"


def test_race_before_the_first_training_wants_the_first_of_all():
    standing = race(3, 5).standing([])
    assert standing.wanted == dict.fromkeys(NAMES, 3)
    assert standing.undecided == set(NAMES)


@pytest.mark.parametrize("kind", ["base", "best"])
def test_race_of_equal_settings_seldom_ends_with_a_verdict(kind):
    """Of 40 races without a difference at most 12 have a verdict: at a rate of 5 %, P(more) < 1e-6."""
    raced = race(2, 6, kind)
    wrong = 0
    for seed in range(40):
        values = drawn(1000 + seed, 6) * np.array([[1.0], [1.0], [3.0]])
        _, end = run(raced, panel_of(values), 2, list)
        wrong += any(verdict.outcome.decided for verdict in end.judged[0].verdicts)
    assert stats.binom.sf(12, 40, 0.05) < 1e-6
    assert wrong <= 12
