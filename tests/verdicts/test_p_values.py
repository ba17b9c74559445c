"""P-values of tables against their intervals, closed testing and an independent Holm procedure."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from coldtune.verdicts import Family, Outcome, Panel, Plan, adjusted_p_values, contrast, holm, judge
from coldtune.verdicts.p_values import over_looks

ONCE = Plan((5,), "once")
RNG = np.random.default_rng(0)
NOISE = {name: RNG.normal(size=5) for name in ("base", "x", "y", "z")}
MEANS = {"base": 0.0, "x": 1.5, "y": 3.0, "z": -0.4}
BASE = Family("base", tuple(MEANS), "base")
BEST = Family("best", tuple(MEANS))


def four(setting, **means: float):
    return [setting(name, list(mean + NOISE[name])) for name, mean in (MEANS | means).items()]


def welch(a: str, b: str) -> float:
    return float(stats.ttest_ind(MEANS[a] + NOISE[a], MEANS[b] + NOISE[b], equal_var=False).pvalue)


def closed_testing(p_values: dict[str, float]) -> dict[str, float]:
    """Return the adjusted p-values of closed testing: each intersection of hypotheses is tested by Bonferroni."""
    subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(p_values, size)]
    return {
        name: max(min(len(s) * min(p_values[other] for other in s), 1.0) for s in subsets if name in s)
        for name in p_values
    }


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_closed_testing_with_bonferroni(seed):
    drawn = np.random.default_rng(seed).beta(0.4, 2, size=6)
    p_values = {f"h{i}": float(p) for i, p in enumerate([*drawn, drawn[0]])}
    assert holm(p_values) == pytest.approx(closed_testing(p_values))


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("counts", [(5, 5), (3, 7), (2, 5), (3, 3)])
def test_p_value_is_the_level_at_which_the_interval_reaches_zero(setting, scale, counts):
    a, b = (setting(name, list(shift + RNG.normal(size=n)), images=0.05)
            for name, shift, n in zip("ab", (0.0, scale), counts, strict=True))  # fmt: skip
    found = contrast(Panel.of([a, b]), {"a": 1.0, "b": -1.0})
    p = found.p_value
    assert found.interval(p * 1.001).excludes_zero or p >= 0.999
    assert not found.interval(p * 0.999).excludes_zero


def test_p_values_against_the_base_are_those_of_welch_adjusted_by_holm(setting):
    found = adjusted_p_values(four(setting), BASE, ONCE)
    alone = {name: welch(name, "base") for name in ("x", "y", "z")}
    ranked = sorted(alone, key=lambda name: alone[name])
    expected, largest = {}, 0.0
    for place, name in enumerate(ranked):
        # Below 0.03 the interval is more cautious than Welch's, and so is the p-value.
        largest = max(largest, min((3 - place) * alone[name], 1.0))
        expected[name] = largest
    for name in ranked:
        assert found[name] == pytest.approx(expected[name], rel=1e-3) or (
            expected[name] / 3 < 0.03 and found[name] >= expected[name]
        )


def test_p_values_and_verdicts_of_a_single_comparison_agree_at_every_plan(setting):
    family = Family("base", ("base", "x"), "base")
    for shift in np.linspace(0.0, 4.0, 11):
        given = [each for each in four(setting, x=float(shift)) if each.name in family.members]
        for plan in (ONCE, Plan.fixed(5), Plan((3, 5)), Plan.racing(3, 5)):
            (verdict,) = judge(given, family, plan).verdicts
            p = adjusted_p_values(given, family, plan)["x"]
            assert (verdict.outcome is not Outcome.UNDECIDED) == (p <= 0.05), (shift, plan)


def test_p_value_of_a_fixed_plan_pays_for_later_looks(setting):
    once, fixed = (adjusted_p_values(four(setting), BASE, plan) for plan in (ONCE, Plan.fixed(5)))
    for name, p in once.items():
        assert fixed[name] == pytest.approx(min(p / 0.8, 1.0), rel=1e-4), "the first look has 80 % of the error"


def test_p_value_of_the_second_look_pays_for_the_first():
    plan = Plan((5, 10))
    assert over_looks({5: 0.01, 10: 0.9}, plan) == pytest.approx(0.01 / 0.8, rel=1e-4)
    assert 1e-4 / 0.9 < over_looks({5: 0.9, 10: 1e-4}, plan) < 1e-4 / 0.1, "looks overlap, so they err together"


def test_p_values_against_the_best_are_adjusted_among_all_pairs(setting):
    found = adjusted_p_values(four(setting), BEST, ONCE, "z")
    alone = {pair: welch(*pair) for pair in itertools.combinations(MEANS, 2)}
    adjusted = closed_testing({" ".join(pair): p for pair, p in alone.items()})
    assert set(found) == {"base", "x", "y"}
    assert found["base"] == pytest.approx(adjusted["base z"], rel=1e-3)
    assert found["y"] >= adjusted["y z"]


def test_missing_setting_has_no_p_value_but_counts_in_the_adjustment(setting):
    *three, _ = four(setting)
    gone = setting("z", [], missing="was pruned (1 of 5)")
    found = adjusted_p_values([*three, gone], BASE, ONCE)
    smaller = adjusted_p_values(three, Family("base", ("base", "x", "y"), "base"), ONCE)
    assert set(found) == {"x", "y"}
    assert found["y"] == pytest.approx(1.5 * smaller["y"], rel=1e-3)
    assert adjusted_p_values(three, BASE, ONCE) == found, "a setting that was not asked yet counts too"


def test_comparison_that_is_tested_first_is_a_lower_limit_of_the_others(setting):
    given = four(setting, z=-0.1)
    found = adjusted_p_values(given, Family("base", tuple(MEANS), "base", "z"), ONCE)
    assert found["y"] == found["z"] > 0.05
    winner_first = adjusted_p_values(given, Family("base", tuple(MEANS), "base", "y"), ONCE)
    alone = adjusted_p_values(
        [each for each in given if each.name in ("base", "y")], Family("base", ("base", "y"), "base"), ONCE
    )
    assert winner_first["y"] == pytest.approx(alone["y"])


def test_p_values_before_the_first_look_do_not_exist(setting):
    given = [each.first(4) for each in four(setting)]
    assert adjusted_p_values(given, BASE, Plan.fixed(5)) == {}
    assert adjusted_p_values([each.first(2) for each in given], BASE, Plan.fixed(2)) == {}


def test_p_values_of_many_comparisons_are_left_out(setting):
    names = [f"s{i}" for i in range(34)]
    given = [setting(name, [1.0, 2.0, 3.0]) for name in names]
    assert adjusted_p_values(given, Family("best", tuple(names)), Plan.fixed(3), "s0") == {}
