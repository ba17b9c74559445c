"""Conformance suites: subclass one to prove that a new component keeps its promises. They need pytest.

from coldtune.testing import DegradationSuite

class TestPixelate(DegradationSuite):
    settings = {"to 2 px": {"kind": "pixelate", "steps": 3}}
"""

from coldtune.testing.degradations import DegradationSuite

__all__ = ["DegradationSuite"]
