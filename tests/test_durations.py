"""Durations as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldtune.durations import (
    DAY_S,
    format_age,
    format_clock,
    format_estimate,
    format_flag,
    format_work,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5 hours", 5400),
        ("1 h 30 min", 5400),
        ("2D", 172800),
        ("1d 2 hrs 3 mins 4secs", 93784),
        ("3650d", 3650 * 86400),
    ],
)
def test_parse_duration_reads_units_and_decimals(text: str, value: float) -> None:
    assert parse_duration("--trial-timeout", text) == value


@pytest.mark.parametrize(
    "text",
    [
        "30", "1.5", "", "half an hour", "3x", "-5m", "0s", "1h30", "m", "2months", "500ms", "3 hippos", "5scores",
        "1h1h", "30m1h", "1m1min", "3651d", "9" * 400 + "h", "1e3s", "inf", "1,5h", "٣h", "0.00001s",
    ],
)  # fmt: skip
def test_parse_duration_with_wrong_text_names_the_flag(text: str) -> None:
    with pytest.raises(ValueError, match=f"^--trial-timeout {text}: ") as caught:
        parse_duration("--trial-timeout", text)
    assert ("say the unit" in str(caught.value)) == (text in ("30", "1.5"))


@given(st.integers(1, 10**6))
def test_format_flag_is_read_back_by_parse_duration(value: int) -> None:
    assert parse_duration("", format_flag(value)) == value


@pytest.mark.parametrize(("value", "text"), [(0, "0s"), (1.5, "1.5s"), (60, "1m"), (3601, "1h1s"), (5400, "1h30m")])
def test_format_flag_leaves_out_units_that_are_zero(value: float, text: str) -> None:
    assert format_flag(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0:00"), (65.9, "1:05"), (3599, "59:59"), (3661, "1:01:01")])
def test_format_clock_shows_hours_only_from_an_hour_on(value: float, text: str) -> None:
    assert format_clock(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.4, "0:00:00"), (90.6, "0:01:31"), (DAY_S + 61, "1 day, 0:01:01")])
def test_format_work_rounds_to_seconds_and_counts_days(value: float, text: str) -> None:
    assert format_work(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.01, "1 s"), (99, "99 s"), (100, "2 min"), (7100, "118 min"), (7200, "2.0 h")]
)
def test_format_estimate_uses_seconds_then_minutes_then_hours(value: float, text: str) -> None:
    assert format_estimate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.23, "1.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1.0 min"),
        (7200, "2.0 h"),
        (47 * 3600, "47 h"),
        (48 * 3600, "2 d"),
        (1e9 * DAY_S, "1,000,000,000 d"),
    ],
)
def test_format_age_has_a_decimal_below_ten_of_a_unit(value: float, text: str) -> None:
    assert format_age(value) == text
