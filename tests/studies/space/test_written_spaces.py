"""Values of a space are brought to the type of their key, and a grid of floats meets the values that are listed."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from coldtune import presets
from coldtune.config import parse
from coldtune.studies.search.config import SearchConfig
from coldtune.studies.search.sampler import listed_points
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.distributions import describe_distribution
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space
from coldtune.studies.space.written import normalize_space, read_booleans

SHAPE = (1, 16, 16)
BASE = presets.load("digits-quick")
RATES = "vary: {degradation.sigma.rate: {low: 0.005, high: 0.08, step: 0.015}}"


def normalize(text: str, base: dict[str, Any] = BASE) -> SpaceConfig:
    tree = {"base": "digits-quick", **yaml.safe_load(text)}
    return normalize_space(parse(SpaceConfig, tree, "space"), base)


@pytest.mark.parametrize(
    ("key", "choices", "typed"),
    [
        ("training.lr", "[1e-4, 1e-3]", (0.0001, 0.001)),
        ("training.clip_norm", "[null, 1e+0]", (None, 1.0)),
        ("training.steps", "['300', 400]", (300, 400)),
        ("data.flip", "['yes', 'no']", (True, False)),
        ("degradation.sigma.rate", "[1e-2, 0.05]", (0.01, 0.05)),
        ("sampler.algorithm", "[tacos, naive]", ("tacos", "naive")),
        ("degradation.steps", "[20.0, 30]", (20.0, 30)),
        ("training.steps", "[1e2, '3.0E+2']", (100, 300)),
        ("data.flip", "[0, 1]", (0, 1)),
    ],
)
def test_choices_written_as_text_have_the_type_of_their_key(key: str, choices: str, typed: tuple[Any, ...]) -> None:
    found = normalize(f"vary: {{{key}: {{choices: {choices}}}}}").vary[key].choices
    assert found is not None
    assert [(value, type(value)) for value in found] == [(value, type(value)) for value in typed]


def test_conditions_and_first_points_have_the_type_of_their_key() -> None:
    config = normalize(
        "vary:\n  training.lr: {choices: [1e-3, 1e-2]}\n"
        "  training.clip_norm: {low: 0.5, high: 2.0, when: {training.lr: 1e-2}}\nfirst: [{training.lr: 1e-2}]\n"
    )
    assert config.vary["training.clip_norm"].when == {"training.lr": (0.01,)}
    assert config.first == ({"training.lr": 0.01},)


def test_ends_of_a_range_of_integers_are_integers() -> None:
    found = normalize("vary: {training.steps: {low: 1e2, high: 3e+2, step: 50.0}}").vary["training.steps"]
    ends = (found.low, found.high, found.step)
    assert ends == (100, 300, 50)
    assert {type(end) for end in ends} == {int}


def test_key_of_a_variants_degradation_has_the_type_of_that_degradation() -> None:
    text = """
        variants: {blur: {}, mask: {degradation: {kind: mask, steps: 20, beta: {start: 1, step: 0.1}}}}
        vary: {degradation.beta.step: {choices: [1e-1, 2e-1], when: {variant: mask}}}
    """
    assert normalize(text).vary["degradation.beta.step"].choices == (0.1, 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vary: {training.lr: {choices: [1e-3, 0.001]}}", r"vary\.training\.lr\.choices: .*0\.001 is there twice"),
        ("vary: {training.steps: {choices: [300, true]}}", r"choices\.1 = True: .*integer, not true or false"),
        ("vary: {training.clip_norm: {choices: [None, 1]}}", r"choices\.0 = 'None': .*number.*Write null without"),
        ("vary: {training.steps: {low: 100, high: 300, step: 0.5}}", r"steps\.step = 0\.5: must be an integer"),
        ("vary: {training.lr: {low: 0.1, high: 0.2, step: 0.5}}", r"step = 0\.5: is larger than the range 0\.1"),
        ("vary: {training.batch_size: {low: 1, high: 100000000}}", r"batch_size\.high = 100000000: .*less than or"),
        ("vary: {training: {choices: [a]}}", r"vary\.training: is a section"),
    ],
)  # fmt: skip
def test_value_that_its_key_refuses_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normalize(text)


def test_unknown_keys_are_left_to_the_check_that_lists_the_known_ones() -> None:
    config = normalize("vary: {training.learning_rate: {choices: [1e-3, 0.001]}}")
    with pytest.raises(ValueError, match=r"learning_rate: the base has no such key; allowed: .*training\.lr"):
        build_space(config, BASE, SHAPE)


@pytest.mark.parametrize("vary", ["sampler.clamp: {choices: [1, 0]}", "degradation.steps: {choices: [10.0, 20.0]}"])
def test_grid_asks_the_base_once_in_whatever_type_it_is_listed(vary: str) -> None:
    points = build_space(normalize(f"vary: {{{vary}}}"), BASE, SHAPE).grid()
    assert len(points) == 2


@pytest.mark.parametrize("path", ["sampler.clamp", "degradation.quantize", "degradation.collapse_final"])
def test_one_and_zero_of_a_boolean_are_asked_and_shown_as_true_and_false(path: str) -> None:
    space = build_space(normalize(f"vary: {{{path}: {{choices: [1, 0]}}}}\nfirst: [{{{path}: 1}}]"), BASE, SHAPE)
    (distribution,) = space.distributions.values()
    assert describe_distribution(distribution) == "true, false"
    assert {type(value) for point in space.grid() for value in point.values()} == {bool}


def test_one_and_zero_of_a_number_stay_numbers() -> None:
    for path in ("training.clip_norm", "training.batch_size", "sampler.eta"):
        assert read_booleans(path, (1, 0), {}, BASE) == (1, 0)
        assert {type(value) for value in read_booleans(path, (1, 0), {}, BASE)} == {int}


def test_grid_of_floats_asks_the_base_once_and_exactly() -> None:
    """low + 3 * step is 0.05000000000000001 in floating point, and the base has 0.05."""
    assert 0.005 + 0.015 * 3 != BASE["degradation"]["sigma"]["rate"] == 0.05
    space = build_space(normalize(RATES), BASE, SHAPE)
    points = listed_points(space, SearchConfig(algorithm="grid"), 0)
    assert points is not None
    assert points[0] == {"rate": 0.05}
    assert sorted(round(point["rate"], 9) for point in points) == [0.005, 0.02, 0.035, 0.05, 0.065, 0.08]


def test_grid_of_floats_keeps_the_values_that_finished_studies_asked() -> None:
    rates = {point["rate"] for point in build_space(normalize(RATES), BASE, SHAPE).grid()}
    assert rates == {0.005 + 0.015 * i for i in (0, 1, 2, 4, 5)} | {0.05}


def test_search_meets_listed_values_of_a_grid_of_floats() -> None:
    space = build_space(normalize(f"{RATES}\nfirst: [{{degradation.sigma.rate: 0.035}}]"), BASE, SHAPE)
    rng = random.Random(0)
    drawn = {space.sample(rng)["rate"] for _ in range(200)}
    assert {0.05, 0.035} <= drawn
    assert len(drawn) == 6


def test_grid_with_billions_of_values_is_refused_without_listing_them() -> None:
    space = Space(normalize("vary: {training.seed: {low: 0, high: 9000000000000}}"), BASE, SHAPE)
    with pytest.raises(ValueError, match="9,000,000,000,001 combinations"):
        space.grid()
