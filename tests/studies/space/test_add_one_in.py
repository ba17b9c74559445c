"""The design `add_one_in` by hand."""

from __future__ import annotations

from typing import ClassVar

from coldtune.studies.space.design_kinds.add_one_in import AddOneIn
from coldtune.studies.space.design_kinds.kind import Factor
from coldtune.testing import DesignSuite

SECTION = {"kind": "add_one_in"}


class TestAddOneIn(DesignSuite):
    designs: ClassVar = {"three": (SECTION, {"a": [0, 1], "b": [False, True], "c": ["none", "some"]})}
    wrong: ClassVar = [(SECTION, {"a": [0, 1, 2]}, "one_factor")]


def test_add_one_in_arms_are_nothing_and_each_part_alone():
    factors = [Factor("a", "a", (0, 1), 0), Factor("b", "b", (0, 5), 5)]
    arms = AddOneIn().arms(factors)
    assert [tuple(arm.levels.values()) for arm in arms] == [(0, 0), (1, 0), (0, 5)]
    assert [arm.role for arm in arms] == ["none", "only a", "only b"]
