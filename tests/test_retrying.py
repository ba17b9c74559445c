"""Exponential backoff."""

from __future__ import annotations

from itertools import islice

import pytest

from coldtune.retrying import pauses


def test_pauses_without_jitter_double_up_to_the_longest() -> None:
    assert list(islice(pauses(0.5, 3.0), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_pauses_with_equal_first_and_longest_stay_constant() -> None:
    assert list(islice(pauses(2.0, 2.0), 3)) == [2.0, 2.0, 2.0]


def test_pauses_continue_after_a_very_long_outage() -> None:
    assert next(islice(pauses(1e-3, 1e3), 10_000, None)) == 1e3


@pytest.mark.parametrize("jitter", [0.5, 1.0])
def test_pauses_with_jitter_vary_within_its_share(jitter: float) -> None:
    drawn = list(islice(pauses(2.0, 2.0, jitter), 1000))
    assert 2 * (1 - jitter) <= min(drawn) < max(drawn) <= 2 * (1 + jitter)
    # A uniform distribution: with 1,000 draws the mean's standard error is below 0.04.
    assert abs(sum(drawn) / len(drawn) - 2) < 0.3


@pytest.mark.parametrize(("first", "longest", "jitter"), [(0, 1, 0), (2, 1, 0), (-1, 1, 0), (1, 2, -0.1), (1, 2, 1.1)])
def test_pauses_with_wrong_lengths_are_refused_at_the_call(first: float, longest: float, jitter: float) -> None:
    with pytest.raises(ValueError, match=f"first_s = {first}, longest_s = {longest}, jitter = {jitter}: allowed"):
        pauses(first, longest, jitter)
