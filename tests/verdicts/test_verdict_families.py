"""Families, looks, races and sentences."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy import stats

from coldtune.verdicts import Family, Outcome, Plan, adjusted_p_values, compare, judge
from coldtune.verdicts.levels import nominal_levels, per_comparison

MEMBERS = ("base", "x", "y", "z")
BASE, BEST = Family("base", MEMBERS, "base"), Family("best", MEMBERS)
NOISE = np.array([0.1, -0.2, 0.3, -0.1, -0.1, 0.2, -0.3, 0.1, 0.05, -0.05])


def four(setting, count: int = 5, **means: float):
    means = dict.fromkeys(MEMBERS, 1.0) | means
    return [
        setting(name, list(mean + np.roll(NOISE, shift)[:count])) for shift, (name, mean) in enumerate(means.items())
    ]


def test_sidak_level_of_all_comparisons_is_the_familys():
    assert 1 - (1 - per_comparison(0.05, 9)) ** 9 == pytest.approx(0.05)
    assert per_comparison(0.05, 1) == pytest.approx(0.05)


def test_nominal_levels_of_two_equal_looks_are_pococks():
    """Pocock (1977): 0.0294 at each of 2 looks, and 0.0158 at each of 5 looks, keep 5 %."""
    for looks, level in ((2, 0.0294), (5, 0.0158)):
        crossed, spent = 0.0, []
        fractions = tuple((i + 1) / looks for i in range(looks))
        for number in range(looks):  # find the spending that leads to equal levels
            low, high = crossed, 0.05 + 1e-3
            for _ in range(40):
                middle = (low + high) / 2
                levels = nominal_levels(fractions[: number + 1], (*spent, middle))
                low, high = (middle, high) if levels[-1] < level else (low, middle)
            spent.append(low)
            crossed = low
        assert crossed == pytest.approx(0.05, abs=2e-4)


def test_nominal_level_of_a_single_look_is_the_error():
    assert nominal_levels((0.3,), (0.04,)) == pytest.approx((0.04,))


def test_nominal_levels_agree_with_simulated_paths():
    """The share of 200,000 random walks that cross is the spent error, within 5 standard errors."""
    levels = nominal_levels((0.3, 0.5, 1.0), (0.01, 0.02, 0.05))
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((200_000, 3)) * np.sqrt([0.3, 0.2, 0.5])
    z = np.abs(steps.cumsum(1)) / np.sqrt([0.3, 0.5, 1.0])
    crossed = (z > stats.norm.isf(np.array(levels) / 2)).any(1).mean()
    assert crossed == pytest.approx(0.05, abs=5 * math.sqrt(0.05 * 0.95 / 200_000))


def test_family_alone_has_the_interval_of_the_single_comparison(setting):
    sides = four(setting)[:2]
    judged = judge(sides, Family("base", ("base", "x"), "base"))
    alone = compare(sides[1], sides[0])
    assert judged["x"].interval.low == pytest.approx(alone.interval.low)


def test_family_intervals_are_wider_than_dunnetts_and_agree_if_far_apart(setting):
    """Dunnett's test takes one variance for all settings, which it may here. Ours does not know that."""
    given = four(setting, 10, x=0.5, y=1.02)
    oracle = stats.dunnett(*(s.values for s in given[1:]), control=given[0].values, random_state=0)
    judged = judge(given, BASE)
    oracle_half = oracle.confidence_interval(0.95)
    for i, name in enumerate(("x", "y", "z")):
        ours = judged[name].interval
        assert ours.value == pytest.approx((oracle_half.low[i] + oracle_half.high[i]) / 2)
        width = oracle_half.high[i] - oracle_half.low[i]
        assert width < ours.high - ours.low < 1.35 * width
        assert (judged[name].outcome is not Outcome.UNDECIDED) == (oracle.pvalue[i] < 0.05)


def test_family_size_counts_members_without_trainings(setting):
    given = four(setting, x=0.5)
    all_there, two_there = judge(given, BASE), judge(given[:2], BASE)
    assert two_there["x"].interval == all_there["x"].interval
    assert two_there["y"].outcome is Outcome.INCOMPLETE


def test_family_verdicts_do_not_depend_on_the_order_of_settings(setting):
    given = four(setting, x=0.4, y=0.9)
    for family in (BASE, BEST):
        forth, back = judge(given, family), judge(given[::-1], family)
        assert [v.interval for v in forth.verdicts] == [v.interval for v in back.verdicts]


def test_family_outcome_agrees_with_its_interval(setting):
    rng = np.random.default_rng(3)
    for _ in range(20):
        given = [
            setting(name, list(rng.normal(mean, 0.3, 4)))
            for name, mean in zip(MEMBERS, rng.normal(0, 0.5, 4), strict=True)
        ]
        for family in (BASE, BEST):
            for verdict in judge(given, family).verdicts:
                expected = Outcome.UNDECIDED
                if verdict.interval.low > 0:
                    expected = Outcome.WORSE
                elif verdict.interval.high < 0:
                    expected = Outcome.BETTER
                assert verdict.outcome is expected


def test_best_far_ahead_beats_all(setting):
    judged = judge(four(setting, y=-5.0), BEST)
    assert (judged.best, judged.rivals) == ("y", ("y",))
    assert {v.a: v.outcome for v in judged.verdicts} == dict.fromkeys(("base", "x", "z"), Outcome.WORSE)
    assert judge(four(setting, y=5.0), BEST, metric="ssim").best == "y"


def test_best_of_two_close_settings_leaves_both_as_rivals(setting):
    judged = judge(four(setting, x=-3.0, y=-3.01), BEST)
    assert set(judged.rivals) == {"x", "y"}
    assert judged["base"].outcome is Outcome.WORSE
    assert f"base is worse than the best setting ({judged.best})" in judged["base"].sentence()
    other = next(name for name in ("x", "y") if name != judged.best)
    assert judged[other].outcome is Outcome.UNDECIDED


def test_best_shares_the_error_among_all_pairs(setting):
    given = four(setting)
    judged = judge(given, BEST)
    assert judged["x" if judged.best != "x" else "y"].comparisons == 6
    for verdict in judged.verdicts:
        a, b = (next(s for s in given if s.name == name) for name in (verdict.a, verdict.b))
        assert verdict.interval == compare(a, b, alpha=per_comparison(0.05, 6)).interval


def test_first_undecided_leaves_the_others_without_verdict(setting):
    family = Family("base", MEMBERS, "base", first="y")
    judged = judge(four(setting, x=-5.0), family)
    assert judged["y"].outcome is Outcome.UNDECIDED
    assert judged["x"].outcome is Outcome.NOT_TESTED
    assert "y was tested first and is not decided" in judged["x"].sentence()
    passed = judge(four(setting, x=-5.0, y=-4.0), family)
    assert [passed[name].outcome for name in ("y", "x")] == [Outcome.BETTER, Outcome.BETTER]


def test_first_has_the_interval_of_a_single_comparison(setting):
    given = four(setting)
    judged = judge(given, Family("base", MEMBERS, "base", first="y"))
    assert judged["y"].interval == compare(given[2], given[0]).interval


def test_equal_within_is_decided_by_the_same_interval(setting):
    given = four(setting)
    wide = judge(given, BASE)["x"].interval
    edge = max(abs(wide.low), abs(wide.high))
    assert judge(given, BASE, equal_within=edge * 1.01)["x"].outcome is Outcome.EQUAL
    assert judge(given, BASE, equal_within=edge * 0.99)["x"].outcome is Outcome.UNDECIDED


def test_missing_setting_stays_in_the_family_without_verdict(setting):
    given = [*four(setting)[:3], setting("z", [0.0], missing="was pruned (1 of 5)")]
    for family in (BASE, BEST):
        judged = judge(given, family, Plan.fixed(5))
        assert judged["z"].sentence().endswith("z was pruned (1 of 5).")
        assert judged["x" if judged.best != "x" else "y"].comparisons == (3 if family is BASE else 6)


@pytest.mark.parametrize("plan", [None, Plan.fixed(5), Plan.racing(2, 5)])
@pytest.mark.parametrize("left", [0, 1])
def test_families_with_hardly_a_mean_have_no_verdict(setting, plan, left):
    given = [setting(name, [0.0], missing="was pruned (1 of 5)") for name in MEMBERS[left:]]
    given += four(setting)[:left]
    for family in (BASE, BEST):
        judged = judge(given, family, plan)
        assert {v.outcome for v in judged.verdicts} == {Outcome.MISSING}
        assert len(judged.verdicts) == 3 if left or family is BASE else 4


def test_fixed_plan_that_is_incomplete_gives_no_verdict(setting):
    for family in (BASE, BEST):
        judged = judge(four(setting, 3, x=-9.0), family, Plan.fixed(5))
        assert {v.outcome for v in judged.verdicts} == {Outcome.INCOMPLETE}
        assert "3 of 5 trainings, no verdict yet." in judged.verdicts[0].sentence()
        assert judged.wanted == dict.fromkeys(MEMBERS, 5)


def test_fixed_plan_ignores_trainings_after_its_look(setting):
    for family in (BASE, BEST):
        early, later = (
            judge([whole.first(count) for whole in four(setting, 10)], family, Plan.fixed(5)) for count in (5, 8)
        )
        assert [v.interval for v in early.verdicts] == [v.interval for v in later.verdicts]


def test_extended_plan_charges_its_second_look(setting):
    plan = Plan.fixed(5)
    level = plan.extended(10).alpha_at(10, 0.05)
    assert plan.alpha_at(5, 0.05) == pytest.approx(0.04)
    assert 0.005 < level < 0.04
    assert plan.extended(10).alpha_at(5, 0.05) == pytest.approx(0.04)
    twenty = plan.extended(10).extended(20)
    assert twenty.alpha_at(10, 0.05) == pytest.approx(level)
    judged = judge(four(setting, 10), BASE, plan.extended(10))
    assert judged["x"].count_a == 10
    assert "adjusted for 3 comparisons and 2 looks" in judged["x"].sentence()


def test_extended_plan_keeps_what_its_first_look_decided(setting):
    """The second look has a smaller level. It does not take back a verdict that the first look has given."""
    x = [*(0.5 + NOISE[:5]), *(1.0 + 3 * NOISE[5:])]
    given = [setting("base", list(1 + NOISE)), setting("x", x)]
    family, plan = Family("base", ("base", "x"), "base"), Plan.fixed(5)
    alone = judge(given, family, Plan((10,), "once"))["x"]
    first, second = (judge(given, family, plan)["x"], judge(given, family, plan.extended(10))["x"])
    assert first.outcome is Outcome.BETTER
    assert alone.outcome is Outcome.UNDECIDED
    assert second.outcome is Outcome.BETTER
    assert (second.interval, second.count_a) == (first.interval, 5)


def test_race_stops_for_decided_settings_and_goes_on_for_others(setting):
    for family in (BASE, BEST):
        judged = judge(four(setting, 4, z=50.0), family, Plan.racing(2, 10))
        assert judged["z"].outcome is Outcome.WORSE
        assert set(judged.wanted) == {"base", "x", "y"}
        assert set(judged.wanted.values()) == {5}
        assert not judged.finished


def test_race_keeps_a_verdict_whatever_follows(setting):
    """The base has more trainings than a dropped setting. The setting's verdict is that of its own last look."""
    four_each = four(setting, 4, z=50.0)
    more = [*(s for s in four(setting, 8, z=50.0) if s.name != "z"), four_each[3]]
    for family in (BASE, BEST):
        before, after = judge(four_each, family, Plan.racing(2, 10)), judge(more, family, Plan.racing(2, 10))
        assert after["z"].outcome is Outcome.WORSE
        assert after["z"].interval == before["z"].interval
        assert set(after.wanted.values()) == {9}


def test_race_with_unequal_numbers_waits_for_the_slowest(setting):
    given = four(setting, 4)
    given[1] = given[1].first(3)
    for family in (BASE, BEST):
        assert judge(given, family, Plan.racing(2, 10)).wanted == {"x": 4}


def test_race_is_finished_at_its_most_trainings(setting):
    for family in (BASE, BEST):
        assert judge(four(setting, 10), family, Plan.racing(2, 10)).finished


def test_race_gives_no_verdict_below_three_trainings(setting):
    for family in (BASE, BEST):
        judged = judge(four(setting, 2, z=1e6), family, Plan.racing(2, 10))
        assert {v.outcome for v in judged.verdicts} == {Outcome.TOO_FEW}
        assert set(judged.wanted) == set(MEMBERS)


@pytest.mark.parametrize("metric", ["fid", "sampled/ssim"])
@pytest.mark.parametrize("counts", [(1, 1), (1, 5), (2, 2), (2, 5)])
def test_sentence_below_three_trainings_calls_no_setting_better(setting, counts, metric):
    a, b = (setting(name, list(mean + NOISE[:n])) for name, mean, n in zip("AB", (0.0, 9.0), counts, strict=True))
    sentence = compare(a, b, metric).sentence()
    assert not re.search(r"^[AB] is (better|worse)", sentence)
    assert ("says nothing about the settings" in sentence) == (1 in counts)
    assert ("too few trainings for a verdict" in sentence) == (1 not in counts)


def test_sentence_of_single_trainings_has_the_interval_over_images(setting):
    a, b = setting("A", [1.0], images=0.1), setting("B", [2.0], images=0.1)
    verdict = compare(a, b)
    assert verdict.outcome is Outcome.NETWORKS
    assert verdict.sentence().startswith("The network of A is better than that of B: FID -1.0")
    assert verdict.sentence().endswith(
        "over images. This rests on 1 training each and says nothing about the settings."
    )
    more = compare(setting("A", [1.0, 1.1], images=0.1), b).sentence()
    assert more.startswith("The networks of A are on average better than those of B")
    assert "This rests on 2 trainings of A and 1 of B and says nothing" in more
    assert verdict.p_value is None


def test_sentence_about_pairs_says_that_the_chance_is_that_of_a_pair(setting):
    """Two networks that are no pair differ by far more than the two samplers of one network."""
    a, b = setting("A", [0.0, 1.0, 2.0], networks="n"), setting("B", [0.1, 1.11, 2.09], networks="n")
    sentence = compare(a, b).sentence()
    assert "3 trainings each (paired)" in sentence
    assert sentence.endswith("In a new pair of trainings, A beats B with a probability of about 99 %.")


@pytest.mark.parametrize("kind", ["base", "best"])
def test_members_to_come_count_as_those_that_are_there(kind, setting):
    """Two settings of a search of four have the adjustment, and the p-value, that they have at its end."""
    base = "base" if kind == "base" else None
    given = four(setting, x=1.4)
    early = Family(kind, MEMBERS[:2], base, to_come=2)
    late = Family(kind, MEMBERS, base)
    assert early.comparisons == late.comparisons
    assert early.alpha("x") == late.alpha("x")
    judged = judge(given[:2], early, Plan.fixed(5))
    if kind == "best":
        assert judged.best is None, "the best of four is not known among two"
        return
    assert judged["x"].interval == judge(given, late, Plan.fixed(5))["x"].interval
    found = [adjusted_p_values(*each, Plan.fixed(5))["x"] for each in ((given[:2], early), (given, late))]
    assert found[0] == found[1], "the smallest p-value of a family is multiplied by its size"


def test_sentence_tells_trainings_interval_and_chance(setting):
    a, b = setting("A", [1.0, 1.1, 0.9]), setting("B", [2.0, 2.2, 1.8, 2.1])
    sentence = compare(a, b).sentence()
    assert sentence.startswith("A is better than B: FID -1.0")
    assert "over trainings and images, 3 trainings of A and 4 of B." in sentence
    assert sentence.endswith("A new training of A beats a new training of B with a probability of about 99 %.")
    assert compare(a, b, "ssim").sentence().startswith("A is worse than B: SSIM -1.0")


def test_sentence_of_pairs_and_of_secondary_metrics_says_so(setting):
    a, b = setting("A", [1.0, 1.1, 0.9], networks="n"), setting("B", [2.0, 2.2, 1.8], networks="n")
    sentence = compare(a, b, secondary=True).sentence()
    assert "3 trainings each (paired)" in sentence
    assert "secondary, unadjusted" in sentence


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Family("base", MEMBERS), "only the kind 'base' has a base"),
        (lambda: Family("best", MEMBERS, "base"), "only the kind 'base' has a base"),
        (lambda: Family("base", MEMBERS, "w"), "base = 'w': must be a member"),
        (lambda: Family("base", ("x", "x"), "x"), "a setting is there twice"),
        (lambda: Family("base", MEMBERS, "base", "base"), "must not be the base"),
        (lambda: Family("best", MEMBERS, first="x"), "only the kind 'base' tests a setting first"),
        (lambda: Plan.racing(5, 4), "replicates.first = 5, replicates.most = 4: must be 1 <= first <= most"),
        (lambda: Plan.fixed(0), "must be ascending numbers of trainings from 1"),
        (lambda: Plan.fixed(5).extended(5), "replicates = 5: must be more than the 5 of the plan"),
        (lambda: Plan.racing(2, 5).extended(9), "only a fixed plan can be extended"),
        (lambda: Plan((3, 5), "once"), "one look"),
    ],
)
def test_wrong_families_and_plans_are_refused_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_judge_with_a_stranger_is_refused(setting):
    with pytest.raises(ValueError, match="setting w: no member of the family"):
        judge([setting("w", [1.0])], BASE)


@pytest.mark.parametrize("plan", [None, Plan.fixed(4), Plan.racing(2, 4)])
@pytest.mark.parametrize("kind", ["base", "best"])
def test_families_of_equal_settings_seldom_have_a_verdict(setting, plan, kind):
    """Of 150 studies without a difference at most 24 have a verdict: at a rate of 5 %, P(more) < 1e-6."""
    rng = np.random.default_rng(11)
    family = Family(kind, MEMBERS, "base" if kind == "base" else None)
    wrong = 0
    for _ in range(150):
        given = [setting(name, list(rng.normal(0, sd, 4))) for name, sd in zip(MEMBERS, (1, 1, 3, 0.5), strict=True)]
        wrong += any(v.outcome.decided for v in judge(given, family, plan).verdicts)
    assert stats.binom.sf(24, 150, 0.05) < 1e-6
    assert wrong <= 24
