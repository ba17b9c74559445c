"""The logic of benchmarks/small_n_ranking.py that its figures stand on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from small_n_metrics import Judged, Target, bin_means, differences
from small_n_report import coverage, right
from torch import Tensor

from coldtune.metrics import kid_influences


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def judged() -> Judged:
    return Judged(_random(90, 12, seed=1) * 1.3 + 0.4, Target(_random(250, 12).relu(), seed=3, directions=1000))


@pytest.mark.parametrize("n", [6, 25, 50, 90])  # 25 and 50 divide the reference's 250, the others do not
def test_the_metrics_are_the_librarys(judged: Judged, n: int) -> None:
    rows = torch.randperm(90, generator=torch.Generator().manual_seed(n))[:n]
    assert max(differences(judged, rows).values()) < 1e-9


def test_kid_influences_are_the_librarys(judged: Judged) -> None:
    rows = torch.arange(5, 60)
    expected = kid_influences(judged.features[rows], judged.target.features)
    torch.testing.assert_close(judged.kid_influences(rows), expected, rtol=1e-9, atol=1e-12)


def test_bin_means_of_a_ramp() -> None:
    # 0, 1, 2 on thirds; a half holds the first third and half of the second: (0 + 0.5 * 1) / 1.5, and by symmetry.
    assert bin_means(np.array([[0.0, 1.0, 2.0]]), 2) == pytest.approx(np.array([[1 / 3, 5 / 3]]))


def test_right_pairs_halves_with_themselves_and_then_crosswise() -> None:
    # One metric, two repeats. a is better (smaller) everywhere on the same half; crosswise only in the first repeat.
    a = torch.tensor([[[1.0], [2.0]], [[1.0], [5.0]]])
    b = torch.tensor([[[3.0], [4.0]], [[2.0], [6.0]]])
    assert right(a, b, truth=1).flatten().tolist() == [1.0, 0.75]
    assert right(a, b, truth=-1).flatten().tolist() == [0.0, 0.25]


def test_coverage_counts_misses_and_intervals_on_the_wrong_side() -> None:
    one = torch.tensor([[-3.0, -2.0, -1.0], [-1.0, 0.0, 1.0]])  # of FID and of KID: low, value, high of a - b
    intervals = one.expand(1, 2, 2, 3)
    held, wrong = coverage(intervals, torch.tensor([-2.0, 5.0]), truth=1)
    assert held.tolist() == [1.0, 0.0]
    assert wrong.tolist() == [0.0, 0.0]  # a - b < 0: a is better, as the truth has it
    assert coverage(intervals, torch.tensor([-2.0, 5.0]), truth=-1)[1].tolist() == [1.0, 0.0]
