"""The design `one_factor` by hand."""

from __future__ import annotations

from typing import ClassVar

from coldtune.studies.space.design_kinds.kind import Factor
from coldtune.studies.space.design_kinds.one_factor import OneFactor
from coldtune.testing import DesignSuite


class TestOneFactor(DesignSuite):
    designs: ClassVar = {
        "two": ({"kind": "one_factor"}, {"a": [1, 2, 3], "b": ["x", "y"]}),
        "one": ({"kind": "one_factor"}, {"a": [None, 0.5]}),
    }


def test_one_factor_arms_change_a_single_level():
    factors = [Factor("a", "a", (1, 2, 3), 2), Factor("b", "b", ("x", "y"), "x")]
    levels = [tuple(arm.levels.values()) for arm in OneFactor().arms(factors)]
    assert levels == [(2, "x"), (1, "x"), (3, "x"), (2, "y")]


def test_one_factor_base_beside_its_levels_is_an_arm_of_its_own():
    factors = [Factor("a", "a", (1, 3), 2)]
    assert [arm.levels["a"] for arm in OneFactor().arms(factors)] == [2, 1, 3]
    assert OneFactor().count(factors) == 3
