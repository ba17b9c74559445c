"""Spaces that judge generation: nothing of an image may be left where a prior, which has none, begins."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest

from coldtune import presets
from coldtune.cli.job import parser
from coldtune.config import parse
from coldtune.diffusion import leftover_of
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.build import build_spec

SHAPE = (1, 16, 16)
BASE = presets.load("quick/digits-blur-generation")
RATES = {"degradation.sigma.rate": {"low": 0.001, "high": 0.1}}


def build(vary: dict, base: dict = BASE, **parts: object) -> Space:
    return build_space(parse(SpaceConfig, {"base": "x", "vary": vary, **parts}), base, SHAPE)


def test_ranges_that_leave_something_are_refused_naming_the_keys() -> None:
    said = r"degradation\.sigma\.rate = 0\.001: the blur leaves 0\.\d+ of an image at T.*constrain: \{leftover: "
    with pytest.raises(ValueError, match=said):
        build(RATES)
    with pytest.raises(ValueError, match=r"degradation\.collapse_final = False.*collapse_final: true"):
        build({**RATES, "degradation.collapse_final": {"choices": [False, True]}})


def test_a_base_that_leaves_something_is_refused_too() -> None:
    base = copy.deepcopy(BASE)
    base["degradation"]["sigma"]["rate"] = 0.001
    with pytest.raises(ValueError, match=r"leaves .* of an image at T"):
        build({"prior.noise_scale": {"low": 0.001, "high": 0.1}}, base)


def test_masks_are_looked_at_and_those_that_end_empty_pass() -> None:
    mask = presets.load("quick/digits-mask-generation")
    few = {"degradation.steps": {"low": 2, "high": 50}}
    with pytest.raises(ValueError, match=r"degradation\.steps = 50: the mask leaves .*order: reverse"):
        build(few, mask)
    mask["degradation"]["order"] = "reverse"
    build(few, mask)


@pytest.mark.parametrize(
    "parts",
    [
        {"constrain": {"leftover": {"max": 0.001}}},
        {"constrain": {"leftover": {"max": 0.5}}},  # said on purpose: then it is what the space asks
        {"derive": {"degradation.sigma.start": {"hold": "leftover", "at": 0.0005}}},
    ],
)
def test_a_space_that_bounds_its_end_is_not_refused(parts: dict) -> None:
    build(RATES, **parts)


def test_ends_that_collapse_and_restored_images_are_not_refused() -> None:
    base = copy.deepcopy(BASE)
    base["degradation"]["collapse_final"] = True
    build(RATES, base)
    build(RATES, presets.load("digits-quick") | {"degradation": BASE["degradation"]})


@pytest.mark.parametrize("name", ["blur-generation", "noise", "degradations"])
def test_every_point_of_a_shipped_space_of_generation_ends_with_nothing_left(root: Path, name: str) -> None:
    spec = build_spec("x", root / "search_spaces" / f"{name}.yaml")
    space = build_space(spec.space, spec.base, SHAPE)
    rng, seen = random.Random(1), 0
    while seen < 40:
        point = space.sample(rng)
        if space.feasible(point):
            seen += 1
            trial = space.resolve(point)
            assert trial.task == "generated"
            if trial.degradation["kind"] in ("blur", "mask"):
                assert leftover_of(trial.degradation, SHAPE) <= 1e-3


def test_a_leftover_is_asked_of_the_variants_that_have_one() -> None:
    variants = {"blur": {}, "noise": {"degradation": {"kind": "noise", "steps": 20}, "prior": {"kind": "normal"}}}
    vary = {"degradation.sigma.rate": {"low": 0.001, "high": 0.1, "when": {"variant": "blur"}}}
    space = build(vary, variants=variants, constrain={"leftover": {"max": 0.001}})
    assert space.feasible({"variant": "noise"})
    assert not space.feasible({"variant": "blur", "rate": 0.001})


def test_generate_is_a_flag_of_the_job_that_has_such_a_space() -> None:
    assert parser("", 12, generate=True).parse_args(["--generate"]).generate
    with pytest.raises(SystemExit):
        parser("", 12).parse_args(["--generate"])
