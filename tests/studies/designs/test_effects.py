"""Effects of designs against ordinary least squares, closed forms for balanced designs, and the sums of a path."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from coldtune.config import plain
from coldtune.studies.designs.effects import Effect, effects_of_ablation, effects_of_design, label_of_change
from coldtune.studies.space.design import DesignRecord, FactorConfig
from coldtune.studies.space.design_kinds.registry import build_kind
from coldtune.studies.spec.ablation import AblationRecord, Change, Step
from coldtune.testing.designs import estimate, factors_of, record_of

LEVELS = {"a": [0, 1, 2], "b": ["x", "y"], "c": [False, True]}


def record(kind: str, levels: dict, **more: object) -> DesignRecord:
    built, factors = build_kind({"kind": kind, **more}), factors_of(levels)
    return record_of(built, factors, built.arms(factors))


def random_means(made: DesignRecord) -> dict[str, float]:
    rng = random.Random(1)
    return {arm: rng.gauss(0, 1) for arm in made.arms}


def mean_where(made: DesignRecord, means: dict[str, float], **levels: object) -> float:
    return float(np.mean([means[n] for n, arm in made.arms.items() if all(arm[k] == v for k, v in levels.items())]))


def test_effect_question_ignores_a_common_factor_and_the_order():
    one = Effect("a", "effect", {"x": 1.0, "y": -1.0})
    assert one.question == Effect("b", "alone", {"y": 0.5, "x": -0.5}).question
    assert one.question != Effect("c", "effect", {"x": 1.0, "z": -1.0}).question
    assert one.question != Effect("d", "interaction", {"x": 1.0, "y": -0.5, "z": -0.5}).question


def test_factorial_effect_equals_difference_of_marginal_means():
    made = record("factorial", LEVELS)
    means = random_means(made)
    found = {effect.name: estimate(effect, means) for effect in effects_of_design(made)}
    for level in (1, 2):
        expected = mean_where(made, means, a=level) - mean_where(made, means, a=0)
        assert found[f"a={level} instead of 0"] == pytest.approx(expected)
    assert found["b=y instead of x"] == pytest.approx(mean_where(made, means, b="y") - mean_where(made, means, b="x"))


def test_factorial_interaction_equals_difference_of_differences():
    made = record("factorial", LEVELS)
    means = random_means(made)
    found = {effect.name: estimate(effect, means) for effect in effects_of_design(made)}
    for level in (1, 2):
        there = mean_where(made, means, a=level, b="y") - mean_where(made, means, a=0, b="y")
        here = mean_where(made, means, a=level, b="x") - mean_where(made, means, a=0, b="x")
        assert found[f"a={level} x b=y"] == pytest.approx(there - here)
    assert sum(" x " in name for name in found) == 2 + 2 + 1


def test_two_level_effects_equal_least_squares_of_numpy():
    """With codes -1 and +1, an effect is twice its coefficient, and a difference of differences is four times its."""
    made = record("factorial", {name: [0, 1] for name in "abcd"})
    means = random_means(made)
    signs = {name: np.array([2 * arm[name] - 1 for arm in made.arms.values()]) for name in "abcd"}
    pairs = list(itertools.combinations("abcd", 2))
    columns = [np.ones(16), *signs.values(), *(signs[x] * signs[y] for x, y in pairs)]
    fitted, *_ = np.linalg.lstsq(np.stack(columns, axis=1), np.array([means[arm] for arm in made.arms]), rcond=None)
    found = [estimate(effect, means) for effect in effects_of_design(made)]
    np.testing.assert_allclose(found, [*(2 * fitted[1:5]), *(4 * fitted[5:])], atol=1e-12)


def test_effects_with_a_missing_arm_equal_least_squares_of_numpy():
    """An arm that was skipped leaves an unbalanced design. Then plain means would be wrong."""
    made = record("factorial", {"a": [0, 1, 2], "b": [0, 1]})
    arms = {name: arm for name, arm in made.arms.items() if arm != {"a": 2, "b": 1}}
    made = made.model_copy(update={"arms": arms})
    means = {name: 2.0 * arm["a"] + 10.0 * arm["b"] for name, arm in arms.items()}
    found = {effect.name: effect for effect in effects_of_design(made)}
    assert estimate(found["a=2 instead of 0"], means) == pytest.approx(4)
    assert estimate(found["b=1 instead of 0"], means) == pytest.approx(10)
    assert mean_where(made, means, a=2) - mean_where(made, means, a=0) == pytest.approx(-1)
    assert found["a=2 x b=1"].problem
    assert not found["a=1 x b=1"].problem


def test_fractional_interactions_that_alias_are_one_effect():
    made = record("fractional", {name: [0, 1] for name in "abcd"})
    names = [effect.name for effect in effects_of_design(made) if effect.group == "interaction"]
    assert names == ["a=1 x b=1 + c=1 x d=1", "a=1 x c=1 + b=1 x d=1", "a=1 x d=1 + b=1 x c=1"]
    means = {name: 3.0 * arm["a"] * arm["b"] + 5.0 * arm["c"] * arm["d"] for name, arm in made.arms.items()}
    found = {effect.name: estimate(effect, means) for effect in effects_of_design(made)}
    assert found["a=1 x b=1 + c=1 x d=1"] == pytest.approx(8), "only the sum is known"
    assert found["a=1 x c=1 + b=1 x d=1"] == pytest.approx(0)


def test_factor_without_effect_in_some_arms_is_estimated_where_it_has_one():
    """`rate` matters for two of three schedules. Its effect is the mean of its effects under these."""
    arms = {
        f"{schedule} {rate}": {"schedule": schedule, "rate": rate} for schedule in ("lin", "exp") for rate in (1, 2)
    } | {"constant": {"schedule": "constant"}}
    made = DesignRecord(
        design={"kind": "factorial"},
        factors={
            "schedule": FactorConfig(levels=("constant", "lin", "exp")),
            "rate": FactorConfig(levels=(1, 2), when={"schedule": ("lin", "exp")}),
        },
        references={"schedule": "constant", "rate": 1},
        arms=arms,
    )
    means = {"lin 1": 1.0, "lin 2": 2.0, "exp 1": 10.0, "exp 2": 14.0, "constant": 0.0}
    found = {effect.name: effect for effect in effects_of_design(made)}
    assert estimate(found["rate=2 instead of 1"], means) == pytest.approx((1 + 4) / 2)
    assert estimate(found["schedule=lin instead of constant"], means) == pytest.approx(1.5)
    assert estimate(found["schedule=exp instead of constant"], means) == pytest.approx(12)


SAMPLERS = {
    "sampler": FactorConfig(levels=("tacos", "direct")),
    "steps": FactorConfig(levels=(20, 5), when={"sampler": ("tacos",)}),
}


@pytest.mark.parametrize("kind", ["one_factor", "add_one_in"])
def test_effect_of_one_change_is_its_arm_minus_the_reference_arm_alone(kind):
    """Direct restoration has no number of steps. The arm with fewer steps tells nothing about it."""
    tacos = {"sampler": "tacos"}
    arms = {"base": {**tacos, "steps": 20}, "direct": {"sampler": "direct"}, "5": {**tacos, "steps": 5}}
    made = DesignRecord(
        design={"kind": kind}, factors=SAMPLERS, references={"sampler": "tacos", "steps": 20}, arms=arms
    )
    assert [effect.weights for effect in effects_of_design(made)] == [
        pytest.approx({"direct": 1, "base": -1}), pytest.approx({"5": 1, "base": -1})
    ]  # fmt: skip


def test_effect_is_compared_with_a_level_that_exists():
    """The base has no number of steps, and the arm of the first level was skipped."""
    factors = {
        "sampler": FactorConfig(levels=("direct", "tacos")),
        "steps": FactorConfig(levels=(20, 10, 5), when={"sampler": ("tacos",)}),
    }
    arms = {
        "base": {"sampler": "direct"}, "10": {"sampler": "tacos", "steps": 10}, "5": {"sampler": "tacos", "steps": 5}
    }  # fmt: skip
    made = DesignRecord(
        design={"kind": "factorial"}, factors=factors, references={"sampler": "direct", "steps": 20}, arms=arms
    )
    found = {effect.name: effect for effect in effects_of_design(made) if effect.group == "effect"}
    assert list(found) == ["sampler=tacos instead of direct", "steps=20 instead of 10", "steps=5 instead of 10"]
    assert found["steps=5 instead of 10"].weights == pytest.approx({"5": 1, "10": -1})
    assert found["steps=20 instead of 10"].problem == "cannot be known from the arms that exist"


def test_effect_against_a_base_that_is_a_list():
    made = DesignRecord(
        design={"kind": "one_factor"}, factors={"schedule": FactorConfig(levels=("uniform", "rho"))},
        references={"schedule": [20, 5]}, arms={"base": {"schedule": [20, 5]}, "rho": {"schedule": "rho"}},
    )  # fmt: skip
    known, unknown = sorted(effects_of_design(made), key=lambda effect: effect.problem)
    assert (known.name, known.weights) == ("schedule=rho instead of [20, 5]", pytest.approx({"rho": 1, "base": -1}))
    assert unknown.name == "schedule=uniform instead of [20, 5]"


def test_factor_that_no_arm_of_a_stored_design_has_is_not_known():
    made = DesignRecord(
        design={"kind": "factorial"}, factors=SAMPLERS, references={"sampler": "tacos", "steps": 20},
        arms={"base": {"sampler": "tacos"}, "direct": {"sampler": "direct"}},
    )  # fmt: skip
    assert [bool(effect.problem) for effect in effects_of_design(made) if effect.group == "effect"] == [False, True]


@pytest.mark.parametrize("kind", ["leave_one_out", "add_one_in"])
def test_one_part_effects_are_with_minus_without(kind):
    made = record(kind, {name: [0, 1] for name in "abc"})
    means = {name: sum(arm.values()) ** 2 for name, arm in made.arms.items()}
    expected = 9 - 4 if kind == "leave_one_out" else 1 - 0
    assert [estimate(effect, means) for effect in effects_of_design(made)] == pytest.approx([expected] * 3)


# --- ablations


def ablation(*, impossible: bool = False) -> AblationRecord:
    names = ("T", "lr", "loss")
    changes = {n: Change(keys=(n,), before={n: 0}, after={n: 1}, alone=f"only {n}") for n in names}
    if impossible:
        changes["lr"] = changes["lr"].model_copy(update={"alone": None, "why_not": "out of reach"})
    path = (
        Step(changes=("T",), arm="lr loss"),
        Step(changes=("lr",), arm="only loss"),
        Step(changes=("loss",), arm="base"),
    )
    return AblationRecord(study="s", trial=3, changes=changes, base="base", best="best", path=path)


MEANS = {"base": 1.0, "best": 0.25, "lr loss": 0.375, "only loss": 0.75, "only T": 0.9375, "only lr": 0.5}


def test_ablation_steps_sum_to_the_whole_difference_exactly():
    found = effects_of_ablation(ablation())
    steps = sum(estimate(effect, MEANS) for effect in found if effect.group == "step")
    (whole,) = (estimate(effect, MEANS) for effect in found if effect.group == "whole")
    assert steps == whole == -0.75
    weights: dict[str, float] = {}
    for effect in found:
        if effect.group == "step":
            for arm, weight in effect.weights.items():
                weights[arm] = weights.get(arm, 0) + weight
    assert {arm: weight for arm, weight in weights.items() if weight} == {"best": 1, "base": -1}


def test_ablation_interaction_is_the_whole_minus_the_changes_alone():
    found = {(effect.group, effect.name): estimate(effect, MEANS) for effect in effects_of_ablation(ablation())}
    alone = {name: value for (group, name), value in found.items() if group == "alone"}
    assert alone == {"T=1 instead of 0": -0.0625, "lr=1 instead of 0": -0.5, "loss=1 instead of 0": -0.25}
    assert found["interaction", "interaction"] == -0.75 - sum(alone.values())


def test_ablation_with_an_impossible_arm_says_that_the_interaction_is_not_known():
    found = {(effect.group, effect.name): effect for effect in effects_of_ablation(ablation(impossible=True))}
    assert found["alone", "lr=1 instead of 0"].problem == "cannot exist (out of reach)"
    assert "lr alone" in found["interaction", "interaction"].problem


def test_ablation_of_one_change_has_no_interaction():
    change = Change(keys=("T",), before={"T": 1}, after={"T": 2}, alone="best")
    made = AblationRecord(
        study="s", trial=0, changes={"T": change}, base="base", best="best", path=(Step(changes=("T",), arm="base"),)
    )
    assert {effect.group: dict(effect.weights) for effect in effects_of_ablation(made)} == {
        "step": {"best": 1, "base": -1},
        "alone": {"best": 1, "base": -1},
        "whole": {"best": 1, "base": -1},
        "interaction": {},
    }


def test_change_of_close_numbers_is_written_with_all_digits():
    change = Change(keys=("lr",), before={"lr": 0.002}, after={"lr": 0.00200001})
    assert label_of_change(change) == "lr=0.00200001 instead of 0.002"
    assert label_of_change(change.model_copy(update={"after": {"lr": 0.0123456}})) == "lr=0.01235 instead of 0.002"


def test_design_record_survives_yaml():
    made = record("factorial", LEVELS)
    assert DesignRecord.model_validate(plain(made)) == made
