"""Detectable differences, the variance split, advice and Holm's p-values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from coldtune.verdicts import (
    Panel,
    Plan,
    Setting,
    SettingVariance,
    Split,
    Training,
    advise,
    combine_variances,
    compare,
    contrast,
    describe_others,
    detectable_difference,
    detectable_effect,
    holm,
    narrowing_by_images,
    narrowing_by_trainings,
    paying_correlation,
    split_variance,
    trainings_to_detect,
)
from coldtune.verdicts.levels import per_comparison


@pytest.mark.parametrize(("replicates", "size"), [(17, 1.0), (26, 0.8), (64, 0.5)])
def test_detectable_difference_agrees_with_cohens_table(replicates, size):
    """Cohen (1988, table 2.4.1): n for 80 % power at 5 %, rounded up, so one fewer is not enough."""
    assert detectable_difference(1.0, replicates, alpha=0.05) <= size
    assert detectable_difference(1.0, replicates - 1, alpha=0.05) > size
    assert trainings_to_detect(2.0, 2 * size, alpha=0.05) == replicates


@pytest.mark.parametrize("replicates", [3, 5, 20])
def test_detectable_difference_is_found_in_80_percent_of_simulated_studies(replicates):
    """20,000 studies of Welch's test, within 5 standard errors."""
    size = detectable_difference(1.0, replicates, alpha=0.05)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20_000, replicates)) + size, rng.standard_normal((20_000, replicates))
    found = (stats.ttest_ind(x, y, axis=1, equal_var=False).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=5 * math.sqrt(0.16 / 20_000))


def test_detectable_difference_grows_with_comparisons_and_images_and_falls_with_pairs():
    alone = detectable_difference(0.2, 5)
    assert detectable_difference(0.4, 5) == pytest.approx(2 * alone)
    assert detectable_difference(0.2, 5, comparisons=9) > alone
    assert detectable_difference(0.2, 5, correlation=0.8) < alone
    # With countless trainings, only the images are left.
    endless = detectable_difference(0.2, 100_000, image_error=0.1, alpha=0.05)
    assert endless == pytest.approx(0.1 * (stats.norm.isf(0.025) + stats.norm.ppf(0.8)), rel=1e-3)


def test_detectable_effect_of_two_settings_is_their_detectable_difference():
    for replicates, comparisons in ((3, 1), (5, 2), (10, 6)):
        size = detectable_difference(0.2, replicates, comparisons=comparisons)
        assert detectable_effect(0.2, replicates, [1, -1], comparisons=comparisons) == pytest.approx(size)
    assert detectable_effect(0.2, 5, [2, -2, 0]) == pytest.approx(2 * detectable_effect(0.2, 5, [1, -1]))
    assert detectable_effect(0.2, 2, [1, -1]) == math.inf


@pytest.mark.parametrize("replicates", [3, 5])
@pytest.mark.parametrize("weights", [{"10": 1, "00": -1}, {"00": -0.5, "01": -0.5, "10": 0.5, "11": 0.5}])
def test_detectable_effect_is_found_in_80_percent_of_simulated_designs(replicates, weights):
    """Two arms, and the effect of a level in 2 x 2 arms. 1,500 studies by the rule of the product, within 4 errors."""
    size = detectable_effect(1.0, replicates, list(weights.values()), comparisons=3)
    level = Plan.fixed(replicates).alpha_at(replicates, per_comparison(0.05, 3))
    rng, found, nothing = np.random.default_rng(0), 0, torch.zeros(2)
    for _ in range(1500):
        values = rng.standard_normal((len(weights), replicates))
        values += size * np.array([[weight > 0] for weight in weights.values()])
        settings = [
            Setting(name, tuple(Training(float(v), nothing, k, f"{name}/{k}") for k, v in enumerate(row)))
            for name, row in zip(weights, values, strict=True)
        ]
        found += contrast(Panel.of(settings), weights).interval(level).excludes_zero
    assert found / 1500 == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 1500))


def test_detectable_difference_below_three_trainings_is_infinite():
    assert math.isinf(detectable_difference(0.2, 2))
    assert trainings_to_detect(1.0, 1000.0) == 3
    assert trainings_to_detect(1.0, 1e-3, most=50) is None


@pytest.mark.parametrize("replicates", [3, 5, 10])
def test_paying_correlation_makes_both_intervals_equally_wide(replicates, setting):
    r = paying_correlation(replicates)
    paired = stats.t.isf(0.025, replicates - 1) * math.sqrt(2 * (1 - r) / replicates)
    assert paired == pytest.approx(stats.t.isf(0.025, 2 * replicates - 2) * math.sqrt(2 / replicates))


def test_narrowing_by_trainings_equals_the_width_of_as_many(setting):
    """Eight trainings with the variance of five have the interval that five and three more are promised."""

    def scaled(name: str, count: int) -> Setting:
        values = np.linspace(-1, 1, count)
        return setting(name, list(values / values.std(ddof=1)))

    five, eight = (compare(scaled("a", k), scaled("b", k)) for k in (5, 8))
    width = [v.interval.high - v.interval.low for v in (five, eight)]
    assert narrowing_by_trainings(five.difference, 3) == pytest.approx(1 - width[1] / width[0])
    assert "3 more trainings of each would narrow this interval by about " in advise(five, 100, 100)


def test_narrowing_by_images_halves_an_interval_of_images_alone(setting):
    effect = setting("effect", [0.0], images=0.1).trainings[0].influences

    def side(name: str, sign: float) -> Setting:
        return Setting(name, tuple(Training(1.0, sign * effect, i, f"{name}{i}") for i in range(3)))

    found = compare(side("a", 1.0), side("b", -1.0))
    assert narrowing_by_images(found.difference, 4.0) == pytest.approx(0.5)
    assert narrowing_by_trainings(found.difference, 100) == pytest.approx(0.0)


def test_advice_on_images_stops_at_the_split(setting):
    verdict = compare(setting("a", [1.0, 1.2, 0.8], images=0.5), setting("b", [1.0, 1.1, 0.9], images=0.5))
    assert "all 400 images of the split instead of 50" in advise(verdict, 50, 400)
    assert "images of the split instead" not in advise(verdict, 400, 400)


def test_advice_below_one_percent_says_what_is_left(setting):
    trainings = compare(setting("a", [1.0, 1.2, 0.8]), setting("b", [1.0, 1.1, 0.9]))
    said = advise(trainings, 50, 10_000)
    assert said.endswith("More images would hardly narrow it, because nearly all of it is due to the trainings.")
    effect = setting("effect", [0.0], images=0.1).trainings[0].influences

    def side(name: str, sign: float) -> Setting:
        return Setting(name, tuple(Training(1.0, sign * effect, i, f"{name}{i}") for i in range(3)))

    images = compare(side("a", 1.0), side("b", -1.0))
    assert advise(images, 50, 200) == (
        "Judging all 200 images of the split instead of 50 would narrow this interval by about 50 %. "
        "3 more trainings of each would hardly narrow it."
    )
    assert advise(images, 200, 200).endswith(
        "hardly narrow this interval, and all images of the split are judged already."
    )
    assert "0 %" not in said.replace("50 %", "")


def test_advice_names_more_trainings_if_few_do_not_pay_for_their_look(setting):
    values = list(np.linspace(-1, 1, 20))
    found = compare(setting("a", values), setting("b", values))
    assert advise(found, 50, 50, {3: 0.001, 20: found.alpha}).startswith("20 more trainings of each would narrow")


def test_advice_on_settings_with_the_same_networks_and_images_is_empty(setting):
    same = [setting(name, [1.0, 1.2, 0.8], networks="n") for name in ("a", "b")]
    assert advise(compare(*same), 50, 400) == ""


def test_advice_on_a_decided_comparison_is_empty(setting):
    assert advise(compare(setting("a", [1.0, 1.1, 0.9]), setting("b", [9.0, 9.1, 8.9])), 50, 400) == ""


def test_split_variance_finds_the_simulated_parts():
    """With 400 settings of 3 trainings, each part is within 15 % of the truth."""
    rng, n, training, images = np.random.default_rng(0), 40, 0.5, 0.3
    given = []
    for s in range(400):
        rows = rng.standard_normal((3, n)) * images * math.sqrt(n)
        luck = rng.standard_normal(3) * training
        given.append(
            Setting(
                f"s{s}",
                tuple(
                    Training(luck[r] + row.mean(), torch.from_numpy(row - row.mean()), r, f"{s}/{r}")
                    for r, row in enumerate(rows)
                ),
            )
        )
    split = split_variance(given)
    assert split.training == pytest.approx(training**2, rel=0.15)
    assert split.images == pytest.approx(images**2, rel=0.15)
    assert split.draws is None
    assert "over images and their draws" in split.sentence("fid")


def test_split_variance_knows_draws_only_with_two_protocol_seeds(setting):
    first = setting("a", [1.0, 2.0, 3.0], images=5.0)
    again = [(1.2,), (1.8,), (3.2,)]
    second = replace(first, trainings=tuple(map(lambda t, x: replace(t, again=x), first.trainings, again)))
    split = split_variance([second])
    assert split.draws == pytest.approx(0.02)
    assert split.images == pytest.approx(split_variance([first]).images - 0.02)
    assert split_variance([first]).draws is None
    assert split.sentence("fid").endswith("by 0.14 over draws (3 trainings, 2 protocol seeds).")


def test_split_variance_leaves_out_networks_with_fewer_protocol_seeds(setting):
    """An imported training has no further draws. Its value still counts for the other sources."""
    first = setting("a", [1.0, 2.0, 3.0])
    trainings = (replace(first.trainings[0], again=(1.0, 4.0)), *first.trainings[1:])
    split = split_variance([replace(first, trainings=trainings)])
    assert (split.draws, split.seeds) == (pytest.approx(3.0), 3)
    assert split.training == pytest.approx(1.0)


def test_split_variance_with_draws_equals_the_components_of_a_crossed_design():
    """Training r, image i and the draw d of image i add up: T_r + (I_i + D_id) / n, crossed with 3 protocol seeds.

    The expected mean squares are those of the analysis of variance of this design. Each component is unbiased, so its
    mean over 1,000 studies is within 4 standard errors of the truth.
    """
    rng, n, seeds, trainings = np.random.default_rng(1), 20, 3, 4
    truth = {"training": 0.25, "images": 0.09, "draws": 0.04}
    found = {source: [] for source in truth}
    for _ in range(1000):
        luck = rng.standard_normal(trainings) * truth["training"] ** 0.5
        image = rng.standard_normal(n) * (n * truth["images"]) ** 0.5
        drawn = rng.standard_normal((seeds, n)) * (n * truth["draws"]) ** 0.5
        per_image = image + drawn  # (seeds, n), the same for all networks
        influences = torch.from_numpy(per_image[0] - per_image[0].mean())
        values = luck[:, None] + per_image.mean(axis=1)
        networks = [
            Training(float(row[0]), influences, r, str(r), again=tuple(map(float, row[1:])))
            for r, row in enumerate(values)
        ]
        split = split_variance([Setting("a", tuple(networks))])
        for source, each in found.items():
            each.append(getattr(split, source))
    for source, each in found.items():
        assert np.mean(each) == pytest.approx(truth[source], abs=4 * np.std(each) / 1000**0.5), source


def test_split_variance_in_parts_equals_the_whole(setting):
    """Settings can be read one after the other, because sources are averaged and settings are not compared."""
    given = [setting("a", [1.0, 2.0, 4.0], images=0.5), setting("b", [3.0, 1.0], images=0.2), setting("c", [1.0])]
    assert combine_variances([SettingVariance.of(each) for each in given]) == split_variance(given)


def test_split_variance_counts_a_network_of_several_samplers_once(setting):
    given = [setting("tacos", [1.0, 2.0], networks="x"), setting("naive", [3.0, 5.0], networks="x")]
    assert split_variance(given).trainings == 2
    assert split_variance([*given, setting("longer", [1.0, 1.5, 2.0])]).trainings == 5


def test_describe_others_names_the_sources_of_all_metrics():
    ssim, psnr = Split(0.04, 0.01, 0.0025, 9, 3, 2), Split(None, 4.0, 1.0, 9, 0, 2)
    assert describe_others({"ssim": ssim, "psnr": psnr}) == (
        "The other metrics vary (sd) by training, by images and by draws: SSIM 0.2, 0.1 and 0.05, PSNR unknown, 2 and "
        "1."
    )
    assert describe_others({}) == ""


def test_split_variance_of_single_trainings_has_no_training_part(setting):
    assert split_variance([setting("a", [1.0]), setting("b", [2.0])]).training is None


def test_holm_agrees_with_a_worked_example():
    """Holm's procedure by hand: 0.01 x 4, 0.02 x 3, 0.03 x 2 (not below the one before), 0.5."""
    assert holm({"a": 0.02, "b": 0.5, "c": 0.01, "d": 0.03}) == pytest.approx(
        {"a": 0.06, "b": 0.5, "c": 0.04, "d": 0.06}
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: detectable_difference(-1.0, 5), "sd = -1: must be a finite number"),
        (lambda: detectable_difference(1.0, 0), "replicates = 0: must be at least 1"),
        (lambda: detectable_difference(1.0, 5, power=1.0), "power = 1: must be between 0 and 1"),
        (lambda: trainings_to_detect(1.0, 0.0), "difference = 0: must be greater than 0"),
        (lambda: paying_correlation(1), "replicates = 1"),
        (lambda: split_variance([]), "no training"),
    ],
)
def test_wrong_plans_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_plan_fixed_spends_four_fifths_at_first():
    assert Plan.fixed(7).alpha_at(7, 0.05) == pytest.approx(0.04)
