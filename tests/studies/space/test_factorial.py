"""The design `factorial` by hand."""

from __future__ import annotations

from typing import ClassVar

from coldtune.studies.space.design_kinds.factorial import Factorial
from coldtune.studies.space.design_kinds.kind import Factor
from coldtune.testing import DesignSuite


class TestFactorial(DesignSuite):
    designs: ClassVar = {
        "2 x 2": ({"kind": "factorial"}, {"a": [1, 2], "b": ["x", "y"]}),
        "3 x 2 x 4": ({"kind": "factorial"}, {"a": [1, 2, 3], "b": ["x", "y"], "c": [0, 1, 2, 3]}),
        "one factor": ({"kind": "factorial"}, {"a": [1, 2, 3]}),
    }


def test_factorial_has_every_combination_and_the_base_first():
    factors = [Factor("a", "a", (1, 2), 2), Factor("b", "b", ("x", "y"), "x")]
    levels = [tuple(arm.levels.values()) for arm in Factorial().arms(factors)]
    assert levels == [(2, "x"), (1, "x"), (1, "y"), (2, "y")]
