"""Differences of settings against closed forms, scipy's t-tests and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coldtune.metrics.intervals import jackknife_covariance, jackknife_error
from coldtune.verdicts import Outcome, Panel, Setting, Training, compare, contrast
from coldtune.verdicts.estimate import correlation, own_image_variance

A, B = [1.0, 1.3, 0.8, 1.1, 0.9], [1.6, 1.2, 1.9]


def difference(*sides: Setting, pair: str = "network", **weights: float):
    given = weights or {sides[0].name: 1.0, sides[1].name: -1.0}
    return contrast(Panel.of(sides), given, pair)


def test_contrast_without_image_variance_equals_welchs_test(setting):
    found = difference(setting("a", A), setting("b", B))
    welch = stats.ttest_ind(A, B, equal_var=False)
    assert found.value == pytest.approx(np.mean(A) - np.mean(B))
    assert found.p_value == pytest.approx(welch.pvalue)
    assert found.df == pytest.approx(welch.df)
    low, high = welch.confidence_interval(0.95)
    interval = found.interval(0.05)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_contrast_of_the_same_networks_equals_the_paired_test(setting):
    a, b = [1.0, 1.3, 0.8, 1.1], [1.2, 1.6, 1.15, 1.2]
    found = difference(setting("a", a, networks="n"), setting("b", b, networks="n"))
    paired = stats.ttest_rel(a, b)
    assert found.paired
    assert found.p_value == pytest.approx(paired.pvalue)
    low, high = paired.confidence_interval(0.99)
    # A group of pairs has only one number of degrees of freedom, so far tails change nothing.
    assert (found.interval(0.01).low, found.interval(0.01).high) == pytest.approx((low, high))


def test_contrast_of_the_same_networks_in_another_order_is_paired_by_network(setting):
    a = setting("a", [1.0, 2.0, 4.0], networks="n", seeds=[0, 1, 2])
    b = setting("b", [4.5, 1.5, 2.5], networks="n", seeds=[2, 0, 1])
    found = difference(a, b)
    assert found.value == pytest.approx(-0.5)
    assert found.training_variance == pytest.approx(0, abs=1e-30)


def test_contrast_with_equal_seeds_is_paired_only_if_asked(setting):
    sides = setting("a", [1.0, 2.0, 4.0]), setting("b", [1.5, 2.5, 4.5])
    assert not difference(*sides).paired
    assert difference(*sides).p_value > 0.5
    by_seed = difference(*sides, pair="seed")
    assert by_seed.paired
    assert by_seed.training_variance == pytest.approx(0, abs=1e-30)


def test_contrast_of_shifted_values_of_the_same_networks_has_the_images_error_alone(setting):
    a = setting("a", [1.0, 2.0, 4.0], images=0.1, networks="n")
    b = Setting("b", tuple(Training(t.value + 1, 2 * t.influences, t.seed, t.network) for t in a.trainings))
    found = difference(a, b)
    assert found.training_variance == pytest.approx(0, abs=1e-30)
    mean = torch.stack([t.influences for t in a.trainings]).mean(0)
    assert math.sqrt(found.network_variance) == pytest.approx(jackknife_error(mean))


def test_contrast_with_one_shared_network_counts_it_once(setting):
    a = setting("a", [1.0, 2.0, 3.0, 4.0], networks="n", seeds=[0, 1, 2, 3])
    b = setting("b", [1.0, 2.0, 3.0], networks="n", seeds=[0, 11, 12])
    found = difference(a, b)
    assert not found.paired
    assert dict(found.counts) == {"a": 3, "b": 3}
    assert found.value == pytest.approx(3.0 - 2.0)


def test_contrast_with_three_shared_networks_leaves_the_others_out(setting):
    a = setting("a", [1.0, 2.0, 3.0, 9.0], networks="n", seeds=[0, 1, 2, 3])
    b = setting("b", [1.5, 2.5, 3.5, -9.0], networks="n", seeds=[0, 1, 2, 8])
    found = difference(a, b)
    assert found.paired
    assert dict(found.counts) == {"a": 3, "b": 3}
    assert found.value == pytest.approx(-0.5)


def test_contrast_of_four_settings_is_an_interaction(setting):
    cells = [setting(name, values) for name, values in (("ab", A), ("a", B), ("b", A), ("base", B))]
    found = difference(*cells, ab=1.0, a=-1.0, b=-1.0, base=1.0)
    assert found.value == pytest.approx(0)
    assert found.training_variance == pytest.approx(2 * np.var(A, ddof=1) / 5 + 2 * np.var(B, ddof=1) / 3)


def test_contrast_image_part_does_not_shrink_with_trainings(setting):
    """The images' effect of a setting is common to its trainings: 50 trainings have the error of one."""
    effect = setting("effect", [0.0], images=0.3).trainings[0].influences

    def side(name: str, count: int, sign: float) -> Setting:
        return Setting(name, tuple(Training(0.0, sign * effect, i, f"{name}{i}") for i in range(count)))

    few, many = (difference(side("a", k, 1.0), side("b", k, -1.0)) for k in (2, 50))
    assert few.image_variance == pytest.approx(many.image_variance)
    assert math.sqrt(many.image_variance) == pytest.approx(jackknife_error(2 * effect))


def test_contrast_image_variance_is_unbiased():
    """The parts of trainings and images add up to the variance over 4,000 draws of both (within 5 standard errors)."""
    rng = np.random.default_rng(0)
    n, k, draws = 30, 3, 4000
    values, variances = [], []
    for _ in range(draws):
        sides = []
        for name in "ab":
            common, own = rng.standard_normal(n) * 2, rng.standard_normal((k, n)) * 3
            luck, influences = rng.standard_normal(k), common + own
            sides.append(
                Setting(
                    name,
                    tuple(
                        Training(luck[r] + row.mean(), torch.from_numpy(row - row.mean()), r, f"{name}{r}")
                        for r, row in enumerate(influences)
                    ),
                )
            )
        found = difference(*sides)
        values.append(found.value)
        variances.append(found.error**2)
    truth = 2 * (1 / k + 4 / n + 9 / n / k)
    assert np.mean(np.square(values)) == pytest.approx(truth, rel=5 * math.sqrt(2 / draws))
    # Cutting the images' part at 0 can only make it larger.
    assert truth * 0.97 < np.mean(variances) < truth * 1.15


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=6),
    st.lists(st.floats(-5, 5), min_size=2, max_size=6),
    st.floats(0.01, 100),
)
def test_compare_is_antisymmetric_and_scales(x, y, scale):
    def make(name: str, values: list[float], factor: float) -> Setting:
        rows = torch.linspace(-1, 1, 9, dtype=torch.float64) * (1 if name == "a" else 0.5)
        return Setting(name, tuple(Training(factor * v, factor * rows, i, f"{name}{i}") for i, v in enumerate(values)))

    forth = compare(make("a", x, 1.0), make("b", y, 1.0))
    back = compare(make("b", y, 1.0), make("a", x, 1.0))
    assert forth.interval.low == pytest.approx(-back.interval.high, abs=1e-9)
    assert forth.interval.value == pytest.approx(-back.interval.value, abs=1e-9)
    assert forth.chance == pytest.approx(1 - back.chance, abs=1e-9)
    scaled = compare(make("a", x, scale), make("b", y, scale))
    assert scaled.interval.high == pytest.approx(scale * forth.interval.high, rel=1e-6, abs=1e-6 * scale)


def test_half_width_far_in_the_tails_is_between_welchs_and_banerjees(setting):
    found = difference(setting("a", A), setting("b", B))
    low, high = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.999)
    squares = [stats.t.isf(0.0005, len(x) - 1) ** 2 * np.var(x, ddof=1) / len(x) for x in (A, B)]
    banerjee = math.sqrt(sum(squares))
    assert (high - low) / 2 < found.half_width(0.001) < banerjee
    assert found.half_width(0.001) ** 2 == pytest.approx(banerjee * (high - low) / 2)


def test_half_width_of_three_trainings_is_wider_than_welchs_below_a_level_of_5_percent(setting):
    x, y = A[:3], B
    found = difference(setting("a", x), setting("b", y))
    welch = {
        level: float(np.ptp(stats.ttest_ind(x, y, equal_var=False).confidence_interval(1 - level))) / 2
        for level in (0.05, 0.04)
    }
    squares = [stats.t.isf(0.02, len(z) - 1) ** 2 * np.var(z, ddof=1) / len(z) for z in (x, y)]
    assert found.half_width(0.05) == pytest.approx(welch[0.05])
    assert found.half_width(0.04) ** 2 == pytest.approx(welch[0.04] * math.sqrt(sum(squares)))
    four = [*B, 1.4]
    more = difference(setting("a", A), setting("b", four))
    expected = np.ptp(stats.ttest_ind(A, four, equal_var=False).confidence_interval(0.96)) / 2
    assert more.half_width(0.04) == pytest.approx(expected), "4 trainings and more keep Welch's"


def test_half_width_of_an_effect_of_eight_arms_is_near_welchs(setting):
    arms = [setting(f"arm{i}", A) for i in range(8)]
    found = difference(*arms, **{arm.name: (-1) ** i / 4 for i, arm in enumerate(arms)})
    welch = stats.t.isf(0.005, 8 * 4) * found.error
    assert found.df == pytest.approx(32)
    assert welch < found.half_width(0.01) < 1.03 * welch


def test_half_width_of_two_trainings_is_banerjees(setting):
    found = difference(setting("a", A), setting("b", B[:2]))
    squares = [stats.t.isf(0.025, len(x) - 1) ** 2 * np.var(x, ddof=1) / len(x) for x in (A, B[:2])]
    assert found.half_width(0.05) == pytest.approx(math.sqrt(sum(squares)))


def test_jackknife_covariance_agrees_with_the_error_of_every_sum():
    generator = torch.Generator().manual_seed(1)
    influences, reference = (torch.randn(3, count, generator=generator, dtype=torch.float64) for count in (20, 35))
    influences, reference = (x - x.mean(1, keepdim=True) for x in (influences, reference))
    pairs = torch.randperm(35, generator=generator)[:20]
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    for of_reference, places in ((None, None), (reference, None), (reference, pairs)):
        covariance = jackknife_covariance(influences, of_reference, places)
        row = None if of_reference is None else weights @ of_reference
        error = jackknife_error(weights @ influences, row, places)
        assert float(weights @ covariance @ weights) == pytest.approx(error**2)


def test_own_image_variance_of_independent_networks_is_their_variance():
    assert own_image_variance(np.eye(4) * 3) == pytest.approx(3)
    assert own_image_variance(np.ones((4, 4))) == pytest.approx(0)
    assert own_image_variance(np.eye(1)) == 0


def test_correlation_uses_equal_seeds(setting):
    a, b = setting("a", [1.0, 2.0, 4.0, 0.0], seeds=[0, 1, 2, 9]), setting("b", [8.0, 2.0, 4.5], seeds=[2, 0, 1])
    assert correlation(Panel.of([a, b]), "a", "b") == pytest.approx(np.corrcoef([1, 2, 4], [2, 4.5, 8])[0, 1])
    assert correlation(Panel.of([a, setting("c", [1.0, 2.0])]), "a", "c") is None


def test_chance_of_equal_settings_is_a_half_and_of_identical_networks_too(setting):
    assert compare(setting("a", A), setting("b", A[::-1])).chance == pytest.approx(0.5)
    same = compare(setting("a", A, networks="n"), setting("b", A, networks="n"))
    assert same.chance == 0.5
    assert same.outcome is Outcome.UNDECIDED
    assert same.interval.low == same.interval.high == 0


def test_chance_of_many_trainings_is_that_of_normal_values(setting):
    x = stats.norm.ppf((np.arange(400) + 0.5) / 400)
    a, b = setting("a", list(x - 1), count=3), setting("b", list(2 * x), count=3)
    assert compare(a, b).chance == pytest.approx(stats.norm.cdf(1 / math.sqrt(5)), abs=5e-3)
    assert compare(a, b, "ssim").chance == pytest.approx(stats.norm.cdf(-1 / math.sqrt(5)), abs=5e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda s: Setting("a", (*s("a", [1.0]).trainings, *s("a", [2.0]).trainings)), "'a/0' is there twice"),
        (lambda s: s("a", [math.nan]), "setting a: the value of the training with seed 0 is not finite"),
        (lambda s: compare(s("a", A), s("a", A)), "setting a: two settings have this name"),
        (lambda s: compare(s("a", A), s("b", A, count=7)), "settings a and b were judged on different images"),
        (lambda s: compare(s("a", A), s("b", [])), "setting b: has no training yet"),
        (lambda s: compare(s("a", A), s("b", A), equal_within=0), "equal_within = 0: must be a number greater than 0"),
        (lambda s: compare(s("a", A), s("b", A), equal_within=math.nan), "equal_within = nan"),
        (lambda s: contrast(Panel.of([s("a", A)]), {"x": 1.0}), "setting x: unknown; known are a"),
    ],
)
def test_wrong_trainings_are_refused_in_one_line(setting, make, words):
    with pytest.raises(ValueError, match=words) as caught:
        make(setting)
    assert "\n" not in str(caught.value)
