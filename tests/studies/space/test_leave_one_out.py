"""The design `leave_one_out` by hand."""

from __future__ import annotations

from typing import ClassVar

from coldtune.studies.space.design_kinds.kind import Factor
from coldtune.studies.space.design_kinds.leave_one_out import LeaveOneOut
from coldtune.testing import DesignSuite

SECTION = {"kind": "leave_one_out"}


class TestLeaveOneOut(DesignSuite):
    designs: ClassVar = {"three": (SECTION, {"a": [0, 1], "b": [False, True], "c": ["none", "some"]})}
    wrong: ClassVar = [(SECTION, {"a": [0, 1, 2]}, "one_factor")]


def test_leave_one_out_arms_are_everything_and_everything_without_a_part():
    factors = [Factor("a", "a", (0, 1), 0), Factor("b", "b", (0, 5), 5)]
    arms = LeaveOneOut().arms(factors)
    assert [tuple(arm.levels.values()) for arm in arms] == [(1, 5), (0, 5), (1, 0)]
    assert [arm.role for arm in arms] == ["all", "without a", "without b"]
