"""Conformance suites: subclass one to prove that a new component keeps its promises. They need pytest.

from coldtune.testing import DegradationSuite

class TestPixelate(DegradationSuite):
    settings = {"to 2 px": {"kind": "pixelate", "steps": 3}}
"""

import pytest

pytest.register_assert_rewrite("coldtune.testing.degradations")  # before its import, so that a failure shows values

from coldtune.testing.degradations import DegradationSuite  # noqa: E402

__all__ = ["DegradationSuite"]
