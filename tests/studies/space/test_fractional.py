"""The design `fractional` against its defining relation and the resolutions of the standard tables."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest

from coldtune.studies.space.design_kinds.fractional import Fractional
from coldtune.studies.space.design_kinds.fractions import find_fraction
from coldtune.testing import DesignSuite
from coldtune.testing.designs import factors_of

SECTION = {"kind": "fractional"}


def two_levels(count: int) -> dict[str, list[int]]:
    return {"ABCDEFGHJKLMNOPQR"[place]: [-1, 1] for place in range(count)}


class TestFractional(DesignSuite):
    designs: ClassVar = {
        "2^(4-1), resolution IV": (SECTION, two_levels(4)),
        "2^(5-2), resolution III": (SECTION | {"resolution": 3}, two_levels(5)),
        "2^(5-1), resolution V": (SECTION | {"resolution": 5}, two_levels(5)),
        "2^(7-3), resolution IV": (SECTION, two_levels(7)),
        "3 factors, no fraction": (SECTION, two_levels(3)),
    }
    wrong: ClassVar = [
        (SECTION, {"A": [0, 1], "B": [0, 1, 2], "C": [0, 1]}, "factorial"),
        (SECTION, {"A": [0, 1], "B": [0, 1]}, "factorial"),
        (SECTION, two_levels(17), "3 to 16"),
    ]


# Box, Hunter and Hunter (2005), table 6.22: factors, resolution asked for, runs, resolution reached.
@pytest.mark.parametrize(
    ("factors", "asked", "runs", "reached"),
    [
        (3, 3, 4, 3), (4, 4, 8, 4), (5, 3, 8, 3), (5, 5, 16, 5), (6, 3, 8, 3), (6, 4, 16, 4), (7, 3, 8, 3),
        (7, 4, 16, 4), (8, 4, 16, 4), (8, 5, 64, 5), (9, 4, 32, 4), (10, 4, 32, 4), (11, 4, 32, 4), (11, 3, 16, 3),
        (15, 3, 16, 3), (16, 4, 32, 4),
    ],
)  # fmt: skip
def test_fraction_has_the_runs_of_the_standard_tables(factors, asked, runs, reached):
    fraction = find_fraction(factors, asked)
    assert (fraction.runs, fraction.resolution) == (runs, reached)
    assert len(list(fraction.combinations())) == runs


# Chen, Sun and Wu (1993), table 3: the numbers of words of length 4, 5, ... of the minimum-aberration fraction.
@pytest.mark.parametrize(
    ("factors", "asked", "lengths"),
    [(6, 4, {4: 3}), (7, 4, {4: 7}), (8, 5, {5: 2, 6: 1}), (9, 4, {4: 6, 5: 8, 8: 1}), (10, 4, {4: 10, 5: 16, 8: 5}),
     (11, 4, {4: 25, 6: 27, 8: 10, 10: 1})],
)  # fmt: skip
def test_fraction_has_the_fewest_short_words(factors, asked, lengths):
    assert Counter(map(int.bit_count, find_fraction(factors, asked).words)) == lengths


def test_fractional_of_four_factors_satisfies_its_defining_relation():
    """In the 2^(4-1) of resolution IV, I = ABCD: the product of all four signs is the same in every arm."""
    factors = factors_of(two_levels(4))
    signs = np.array([list(arm.levels.values()) for arm in Fractional().arms(factors)])
    assert len(signs) == 8
    assert set(signs.prod(axis=1)) == {1}
    for a, b in itertools.combinations(range(4), 2):
        c, d = sorted({0, 1, 2, 3} - {a, b})
        assert (signs[:, a] * signs[:, b] == signs[:, c] * signs[:, d]).all(), "pairs of interactions alias"
        assert signs[:, a] @ signs[:, b] == 0, "main effects are clear of each other"
        for place in range(4):
            assert (signs[:, a] * signs[:, b]) @ signs[:, place] == 0, "and of interactions of two factors"


@pytest.mark.parametrize("resolution", [3, 4, 5])
@pytest.mark.parametrize("count", [4, 5, 6, 7])
def test_fractional_columns_correlate_as_the_resolution_promises(count, resolution):
    factors = factors_of(two_levels(count))
    signs = np.array([list(arm.levels.values()) for arm in Fractional(resolution=resolution).arms(factors)])
    pairs = [signs[:, a] * signs[:, b] for a, b in itertools.combinations(range(count), 2)]
    main = signs.T @ signs
    assert (main == len(signs) * np.eye(count)).all()
    if resolution >= 4:
        assert not (signs.T @ np.stack(pairs, axis=1)).any()
    if resolution == 5:
        assert (np.stack(pairs) @ np.stack(pairs).T == len(signs) * np.eye(len(pairs))).all()


def test_fractional_aliases_are_said_in_words():
    said = Fractional().aliases(factors_of(two_levels(4)))
    assert "the effect of A cannot be told apart from the interaction B x C x D" in said
    pairs = [line for line in said if line.startswith("the interactions")]
    assert pairs == [
        "the interactions A x B and C x D cannot be told apart, only their sum is known",
        "the interactions A x C and B x D cannot be told apart, only their sum is known",
        "the interactions A x D and B x C cannot be told apart, only their sum is known",
    ]


def test_fractional_aliases_of_a_quarter_follow_from_its_defining_relation():
    """D = AB and E = AC, so I = ABD = ACE = BCDE. The sum of BD and CE is a part of the effect of A."""
    assert Fractional(resolution=3).aliases(factors_of(two_levels(5))) == [
        "the effect of A cannot be told apart from the interactions B x D and C x E",
        "the effect of B cannot be told apart from the interaction A x D",
        "the effect of C cannot be told apart from the interaction A x E",
        "the effect of D cannot be told apart from the interaction A x B",
        "the effect of E cannot be told apart from the interaction A x C",
        "the interactions B x C and D x E cannot be told apart, only their sum is known",
        "the interactions B x E and C x D cannot be told apart, only their sum is known",
    ]


def test_fractional_without_a_fraction_has_no_aliases():
    factors = factors_of(two_levels(3))
    assert Fractional().aliases(factors) == []
    assert len(Fractional().arms(factors)) == 8
