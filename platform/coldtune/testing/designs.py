"""The conformance suite for kinds of designs. Subclass `DesignSuite` and name some designs for it to check."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml

from coldtune.config import plain
from coldtune.studies.designs.effects import Effect, effects_of_design
from coldtune.studies.space.design import DesignRecord, FactorConfig
from coldtune.studies.space.design_kinds.kind import Arm, DesignKind, Factor
from coldtune.studies.space.design_kinds.registry import build_kind


class DesignSuite:
    """Tests of the promises that every kind of design makes.

        class TestOneFactor(DesignSuite):
            designs = {"two": ({"kind": "one_factor"}, {"a": [1, 2, 3], "b": ["x", "y"]})}

    Every test runs for each of the designs.

    Attributes:
        designs: By name, the section `design` and the levels of each factor by its key. The base is at the first level.
        wrong: Factors that the kind refuses, with a part of the error's message.
    """

    designs: ClassVar[Mapping[str, tuple[Mapping[str, Any], Mapping[str, Sequence[Any]]]]]
    wrong: ClassVar[Sequence[tuple[Mapping[str, Any], Mapping[str, Sequence[Any]], str]]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test for each of the designs. Pytest calls this hook."""
        if "design" in metafunc.fixturenames:
            metafunc.parametrize("design", self.designs.values(), ids=list(self.designs))

    @pytest.fixture
    def kind(self, design: tuple[Mapping[str, Any], Mapping[str, Sequence[Any]]]) -> DesignKind:
        """The kind of the current design."""
        return build_kind(design[0])

    @pytest.fixture
    def factors(self, design: tuple[Mapping[str, Any], Mapping[str, Sequence[Any]]]) -> list[Factor]:
        """The factors of the current design."""
        return factors_of(design[1])

    @pytest.fixture
    def arms(self, kind: DesignKind, factors: list[Factor]) -> list[Arm]:
        """The arms of the current design."""
        kind.check(factors)
        return kind.arms(factors)

    def test_count_equals_number_of_arms(self, kind: DesignKind, factors: list[Factor], arms: list[Arm]) -> None:
        """`count` says how many arms there are, at least two."""
        assert kind.count(factors) == len(arms) >= 2

    def test_every_arm_has_an_allowed_level_of_every_factor(self, factors: list[Factor], arms: list[Arm]) -> None:
        """An arm has one of the listed levels, or the base's, for each factor, and nothing else."""
        for arm in arms:
            assert list(arm.levels) == [factor.path for factor in factors]
            assert all(arm.levels[factor.path] in (*factor.levels, factor.base) for factor in factors)
            assert set(arm.shown) <= set(arm.levels)

    def test_arms_differ_from_each_other(self, arms: list[Arm]) -> None:
        """No two arms have the same levels."""
        levels = [tuple(arm.levels.items()) for arm in arms]
        assert len(set(levels)) == len(levels)

    def test_every_level_is_in_some_arm(self, factors: list[Factor], arms: list[Arm]) -> None:
        """No level that the user lists is left out."""
        for factor in factors:
            assert set(factor.levels) <= {arm.levels[factor.path] for arm in arms}

    def test_arms_are_the_same_each_time(self, kind: DesignKind, factors: list[Factor], arms: list[Arm]) -> None:
        """The arms follow from the factors alone."""
        assert kind.arms(factors) == arms
        again = build_kind(yaml.safe_load(yaml.safe_dump(plain(kind))))
        assert again.arms(factors) == arms

    def test_reference_is_a_level(self, kind: DesignKind, factors: list[Factor], arms: list[Arm]) -> None:
        """Other levels are compared with a level that occurs in the arms."""
        for factor in factors:
            assert kind.reference(factor) in {arm.levels[factor.path] for arm in arms}

    def test_additive_effects_are_recovered(self, kind: DesignKind, factors: list[Factor], arms: list[Arm]) -> None:
        """If the effects of all levels add up, each is estimated exactly, and no interaction is."""
        rng = random.Random(0)
        truth = {(f.path, level): rng.uniform(-1, 1) for f in factors for level in (f.base, *f.levels)}
        record = record_of(kind, factors, arms)
        means = {
            name: 3 + sum(truth[path, level] for path, level in levels.items()) for name, levels in record.arms.items()
        }
        effects = effects_of_design(record)
        known = [effect for effect in effects if effect.group == "effect"]
        expected = [
            truth[factor.path, level] - truth[factor.path, kind.reference(factor)]
            for factor in factors
            for level in factor.levels
            if level != kind.reference(factor)
        ]
        assert [effect.problem for effect in known] == [""] * len(expected)
        np.testing.assert_allclose([estimate(effect, means) for effect in known], expected, atol=1e-9)
        others = [estimate(effect, means) for effect in effects if effect.group == "interaction" and not effect.problem]
        np.testing.assert_allclose(others, 0, atol=1e-9)

    def test_weights_of_an_effect_sum_to_zero(self, kind: DesignKind, factors: list[Factor], arms: list[Arm]) -> None:
        """A shift of all arms changes no effect."""
        for effect in effects_of_design(record_of(kind, factors, arms)):
            assert abs(sum(effect.weights.values())) < 1e-9

    def test_description_is_one_line(self, kind: DesignKind, factors: list[Factor]) -> None:
        """The design and its aliases are described in lines without line breaks."""
        for text in (kind.describe(factors), *kind.aliases(factors)):
            assert text
            assert text.isprintable()

    def test_unsuitable_factors_are_refused(self) -> None:
        """Factors with which the kind cannot work raise ValueError, which names the factor or the section."""
        for section, levels, says in self.wrong:
            with pytest.raises(ValueError, match=r"^factors") as caught:
                build_kind(section).check(factors_of(levels))
            assert says in str(caught.value)


def factors_of(levels: Mapping[str, Sequence[Any]]) -> list[Factor]:
    """Return factors whose base is the first level."""
    return [Factor(path, path, tuple(values), values[0]) for path, values in levels.items()]


def record_of(kind: DesignKind, factors: Sequence[Factor], arms: Sequence[Arm]) -> DesignRecord:
    """Return the record of a design all of whose arms exist. The name of an arm is its number."""
    return DesignRecord(
        design=plain(kind),
        factors={factor.path: FactorConfig(levels=factor.levels) for factor in factors},
        references={factor.path: kind.reference(factor) for factor in factors},
        arms={str(number): arm.levels for number, arm in enumerate(arms)},
    )


def estimate(effect: Effect, means: Mapping[str, float]) -> float:
    """Return an effect from the mean of each arm."""
    return sum(weight * means[arm] for arm, weight in effect.weights.items())
