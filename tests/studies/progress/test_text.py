"""Numbers with their uncertainty, as sentences and figures show them."""

from __future__ import annotations

import math

import pytest

from coldtune.studies.progress.text import metric_value, spread_value
from coldtune.studies.storage.settings import Spread


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (1.0003, 0.2426, 1.758, "FID 1.00 [0.24, 1.76]"),
        (13.404, 11.8, 15.01, "FID 13.4 [11.8, 15.0]"),
        (147.53, 120.0, 175.0, "FID 148 [120, 175]"),
        (0.0151, 0.01491, 0.01533, "FID 0.01510 [0.01491, 0.01533]"),
        (-0.0001, -0.2, 0.2, "FID 0.00 [-0.20, 0.20]"),
        (2.0, 2.0, 2.0, "FID 2 [2, 2]"),
    ],
)
def test_metric_value_has_two_digits_of_its_half_width(value: float, low: float, high: float, said: str) -> None:
    assert metric_value("fid", {"fid": value, "fid_low": low, "fid_high": high}) == said


def test_metric_value_without_an_interval_has_four_digits() -> None:
    assert metric_value("fid_direct", {"fid_direct": 1.23456}) == "FID DIRECT 1.235"
    assert metric_value("fid", {"fid": 1.23456, "fid_low": math.nan, "fid_high": math.nan}) == "FID 1.235"


@pytest.mark.parametrize(
    ("spread", "said"),
    [
        (Spread(1.6072, 0.3613, 4), "1.61 ± 0.36 (4 trainings)"),
        (Spread(1.6072, 0.0361, 4), "1.607 ± 0.036 (4 trainings)"),
        (Spread(160.72, 36.13, 4), "161 ± 36 (4 trainings)"),
        (Spread(20.0, 0.0, 4), "20 ± 0 (4 trainings)"),
        (Spread(20.0, 3e-15, 4), "20 ± 3e-15 (4 trainings)"),
        (Spread(1.6072, None, 1), "1.607 (1 training)"),
    ],
)
def test_spread_value_has_two_digits_of_its_standard_deviation(spread: Spread, said: str) -> None:
    assert spread_value(spread) == said
