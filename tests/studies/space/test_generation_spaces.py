"""Spaces that judge generation: almost nothing of an image may remain at t = T, because a prior replaces it."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest

from coldtune import presets
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


def test_generation_space_range_with_leftover_is_refused() -> None:
    said = r"degradation\.sigma\.rate = 0\.001: the blur leaves 0\.\d+ of an image at T.*constrain: \{leftover: "
    with pytest.raises(ValueError, match=said):
        build(RATES)
    with pytest.raises(ValueError, match=r"degradation\.collapse_final = False.*collapse_final: true"):
        build({**RATES, "degradation.collapse_final": {"choices": [False, True]}})


def test_generation_space_base_with_leftover_is_refused() -> None:
    base = copy.deepcopy(BASE)
    base["degradation"]["sigma"]["rate"] = 0.001
    with pytest.raises(ValueError, match=r"leaves .* of an image at T"):
        build({"prior.noise_scale": {"low": 0.001, "high": 0.1}}, base)


def test_generation_space_mask_is_refused_unless_it_ends_empty() -> None:
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
        {"constrain": {"leftover": {"max": 0.5}}},  # a bound above 1e-3 is accepted, because the user chose it
        {"derive": {"degradation.sigma.start": {"hold": "leftover", "at": 0.0005}}},
    ],
)
def test_generation_space_with_bounded_leftover_is_accepted(parts: dict) -> None:
    build(RATES, **parts)


def test_leftover_check_skips_collapsed_ends_and_restoration() -> None:
    base = copy.deepcopy(BASE)
    base["degradation"]["collapse_final"] = True
    build(RATES, base)
    build(RATES, presets.load("digits-quick") | {"degradation": BASE["degradation"]})


@pytest.mark.parametrize("name", ["blur-generation", "noise", "degradations"])
def test_shipped_generation_space_every_point_has_no_leftover(root: Path, name: str) -> None:
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


def test_leftover_constraint_skips_variants_without_leftover() -> None:
    variants = {"blur": {}, "noise": {"degradation": {"kind": "noise", "steps": 20}, "prior": {"kind": "normal"}}}
    vary = {"degradation.sigma.rate": {"low": 0.001, "high": 0.1, "when": {"variant": "blur"}}}
    space = build(vary, variants=variants, constrain={"leftover": {"max": 0.001}})
    assert space.feasible({"variant": "noise"})
    assert not space.feasible({"variant": "blur", "rate": 0.001})
