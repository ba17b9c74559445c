"""Conformance suites: subclass one to prove that a new component keeps its promises. They need pytest.

from coldtune.testing import DegradationSuite

class TestPixelate(DegradationSuite):
    settings = {"to 2 px": {"kind": "pixelate", "steps": 3}}
"""

import pytest

# Before their import, so that a failure shows values.
pytest.register_assert_rewrite("coldtune.testing.degradations", "coldtune.testing.designs")

from coldtune.testing.degradations import DegradationSuite  # noqa: E402
from coldtune.testing.designs import DesignSuite  # noqa: E402

__all__ = ["DegradationSuite", "DesignSuite"]
