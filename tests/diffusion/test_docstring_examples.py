"""The examples in docstrings that users read first do what they show."""

from __future__ import annotations

import doctest

import pytest

from coldtune.diffusion import build_degradation, sample


@pytest.mark.parametrize("function", [build_degradation, sample])
def test_docstring_example_runs(function):
    (example,) = doctest.DocTestFinder(recurse=False).find(function)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
