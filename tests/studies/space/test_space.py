"""The search space: refused configurations, skipped keys, and the equal leftover of all feasible points."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldtune import presets
from coldtune.config import parse
from coldtune.diffusion import leftover
from coldtune.studies.space.config import InfeasibleError, SpaceConfig
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space, warn_of_seeds

SHAPE = (1, 16, 16)
BASE = presets.load("digits-quick")
KEYS = ("base", "vary", "derive")


def tree(root: Path) -> dict:
    return {key: value for key, value in presets.read_yaml(root / "search_spaces/blur.yaml").items() if key in KEYS}


def build(tree: dict, base: dict = BASE) -> Space:
    return build_space(parse(SpaceConfig, tree), base, SHAPE)


@pytest.fixture(scope="module")
def blur(root: Path) -> Space:
    return build(tree(root))


def test_space_first_point_resolves_to_base(blur: Space) -> None:
    trial = blur.resolve(blur.first)
    assert blur.conditional == {"rate"}, "a constant schedule has no rate"
    assert blur.first == {"schedule": "exponential", "rate": 0.05, "T": 20, "kernel": 7, "sampler": "tacos"}
    assert trial.degradation == BASE["degradation"], "the derived start must equal the start of the base"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**31))
def test_space_feasible_points_have_the_leftover_of_base(blur: Space, seed: int) -> None:
    point = blur.sample(random.Random(seed))
    if not blur.feasible(point):
        with pytest.raises(InfeasibleError, match=r"leftover = .* out of reach"):
            blur.resolve(point)
        return
    trial = blur.resolve(point)
    # `start` is rounded to 6 digits, and its error grows with T steps.
    assert leftover(trial.degradation, SHAPE) == pytest.approx(leftover(BASE["degradation"], SHAPE), rel=1e-3)
    assert trial.degradation["steps"] == point["T"]
    assert trial.degradation["kernel_size"] == point["kernel"]


def test_space_feasible_share_is_between_half_and_one(blur: Space) -> None:
    # Ten flat kernels of 5 pixels leave (1 + 2 cos w + 2 cos 2w)^10 / 5^10 = .20 of the slowest mode, w = 2 pi / 16.
    # That is strong enough. A linear growth of .2 over 40 steps is too strong, even with start 0.
    assert 0.5 < blur.feasible_share() < 1
    assert not blur.feasible({"schedule": "linear", "rate": 0.2, "T": 40, "kernel": 7, "sampler": "tacos"})
    assert blur.feasible({"schedule": "linear", "rate": 0.01, "T": 10, "kernel": 5, "sampler": "tacos"})


def test_walk_skips_key_with_unmet_condition(blur: Space) -> None:
    asked = []

    def pick(name, distribution):
        asked.append(name)
        return {"schedule": "constant", "T": 20, "kernel": 7, "sampler": "tacos"}[name]

    point = blur.walk(pick)
    assert "rate" not in asked
    assert "rate" not in blur.resolve(point).degradation["sigma"]


def test_derive_at_number_fixes_that_leftover(root: Path) -> None:
    changed = tree(root)
    changed["derive"]["degradation.sigma.start"]["at"] = 0.5
    space = build(changed)
    assert leftover(space.resolve(space.first).degradation, SHAPE) == pytest.approx(0.5, rel=1e-4)


def broken(root: Path, change) -> dict:
    made = copy.deepcopy(tree(root))
    change(made)
    return made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["vary"].update({"degradation.T": {"low": 1, "high": 2}}), r"vary\.degradation\.T: .*no such key"),
        (lambda t: t["vary"].update({"training.lr": {"low": 1, "high": 0.1}}), r"low = 1.* must not be above high"),
        (lambda t: t["vary"].update({"training.lr": {"low": 0, "high": 1, "log": True}}), "log needs low > 0"),
        (lambda t: t["vary"].update({"training.lr": {"low": 0.1}}), "either choices, or low and high"),
        (lambda t: t["vary"].update({"training.lr": {"choices": []}}), "choices must be different"),
        (lambda t: t["vary"].update({"training.lr": {"low": 0.0001, "high": 1.0, "lo": 2}}), "unknown key"),
        (lambda t: t["vary"]["degradation.kernel_size"].update(choices=[6, 7]), r"kernel_size = 6.*must be odd"),
        (lambda t: t["vary"]["degradation.kernel_size"].update(choices=[7, 35]), r"kernel_size = 35: at most 33"),
        (lambda t: t["vary"].update({"training.lr": {"low": -1.0, "high": 0.001}}), r"training\.lr = -1\.0"),
        (lambda t: t["vary"].update({"sampler.num_steps": {"low": 1, "high": 50}}), "lies outside the space"),
        (lambda t: t["vary"]["degradation.steps"].update(low=25), r"degradation\.steps = 20: the first trial is"),
        (lambda t: t["derive"].update({"training.lr": {"hold": "leftover"}}), "derives only degradation.sigma.start"),
        (lambda t: t["derive"]["degradation.sigma.start"].update(hold="psnr"), "'leftover'"),
        (lambda t: t.update(constrain={"nfe": {}}), "needs min, max or both"),
        (lambda t: t.update(constrain={"nfe": {"min": 3, "max": 2}}), r"min = 3 must not be above max = 2"),
        (lambda t: t.update(constrain={"fid": {"max": 2}}), r"constrain\.fid"),
        (lambda t: t.update(constrain={"nfe": {"max": 15}}), r"nfe = 20: constrain\.nfe is at most 15"),
        (lambda t: t.update(constrain={"leftover": {"max": 0.01}}), r"leftover = .*: constrain\.leftover is at most"),
        (lambda t: t["vary"].update({"degradation.sigma.start": {"low": 0.1, "high": 1.0}}), "derived, not both"),
        (lambda t: t["derive"]["degradation.sigma.start"].update(at=1e-9), "out of reach"),
        (lambda t: t["vary"]["degradation.sigma.rate"].update(when={"sigma.kind": ["x"]}), r"when\.sigma\.kind"),
        (
            lambda t: t["vary"]["degradation.sigma.rate"].update(when={"degradation.sigma.schedule": "cubic"}),
            r"rate\.when\.degradation\.sigma\.schedule = 'cubic': .* never .*; allowed: constant, linear, exponential",
        ),
        (
            lambda t: t["vary"]["degradation.sigma.rate"].update(when={"degradation.steps": 20}),
            r"rate\.when\.degradation\.steps: must be listed above the key that waits for it",
        ),
        (
            lambda t: t["vary"].update({"protocol.seed": {"choices": [0, 1]}}),
            r"vary\.protocol\.seed: changes how trials are judged, and trials are compared with each other",
        ),
        (
            lambda t: t["vary"].update({"protocol.num_images": {"low": 300, "high": 363}}),
            r"vary\.protocol\.num_images: changes how",
        ),
        (lambda t: t["vary"].update({"data.resize": {"choices": ["bilinear", "nearest"]}}), r"vary\.data\.resize: ch"),
        (lambda t: t["vary"].update({"rungs.metric": {"choices": ["kid", "mind"]}}), r"vary\.rungs\.metric: changes"),
        (lambda t: t.update(first=[{"training.lr": 1.0}]), r"first\[0\]\.training\.lr: does not vary"),
        (
            lambda t: t.update(first=[{"degradation.sigma.schedule": "constant", "degradation.sigma.rate": 0.1}]),
            r"first\[0\]\.degradation\.sigma\.rate: has no effect there",
        ),
        (
            lambda t: t.update(first=[{"degradation.sigma.schedule": "linear", "degradation.sigma.rate": 0.2}]),
            r"first\[0\]: leftover = .* out of reach",
        ),
    ],
)  # fmt: skip
def test_build_space_wrong_config_is_refused(root: Path, change, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(broken(root, change))


def test_build_space_mixing_restored_and_generated_images_is_refused() -> None:
    tree = {"base": "x", "vary": {"prior.kind": {"choices": ["data", "gmm"]}}}
    with pytest.raises(ValueError, match=r"changes whether images are restored or .* \(prior\.kind = 'gmm'\)"):
        build(tree, BASE | {"prior": {"kind": "data"}})


def test_condition_on_skipped_key_is_not_met() -> None:
    """`num_steps` waits for `clamp: false`. The base has this value, but `clamp` is skipped with `tacos`."""
    space = build(
        {
            "base": "x",
            "vary": {
                "sampler.algorithm": {"choices": ["tacos", "naive"]},
                "sampler.clamp": {"choices": [False, True], "when": {"sampler.algorithm": "naive"}},
                "sampler.num_steps": {"choices": [None, 5], "when": {"sampler.clamp": False}},
            },
        }
    )
    points = space.grid()
    assert {frozenset(point.items()) for point in points} == {
        frozenset({("sampler", "tacos")}),
        *(frozenset({("sampler", "naive"), ("clamp", False), ("num_steps", steps)}) for steps in (None, 5)),
        frozenset({("sampler", "naive"), ("clamp", True)}),
    }


def test_sources_lists_datasets_of_base_and_choices(root: Path) -> None:
    base = copy.deepcopy(BASE)
    base["degradation"] = {"kind": "animorph", "steps": 10, "schedule": "cosine", "source": "cifar10"}
    space = {"base": "x", "vary": {"degradation.steps": {"low": 5, "high": 10}}}
    assert build(space, base).sources() == {"cifar10"}
    space["vary"]["degradation.source"] = {"choices": ["cifar10", "mnist"]}
    assert build(space, base).sources() == {"cifar10", "mnist"}
    assert build(tree(root)).sources() == set()


def test_warn_of_seeds_seed_of_trainings_is_named(root: Path) -> None:
    changed = tree(root)
    warn_of_seeds(build(changed))
    changed["vary"]["training.seed"] = {"choices": [0, 1, 2]}
    with pytest.warns(UserWarning, match=r"training\.seed: differs between trials, so it counts as a hyperparameter"):
        warn_of_seeds(build(changed))
    variants = {"base": "digits-quick", "variants": {"a": {"training.seed": 1}, "b": {"training.seed": 2}}}
    with pytest.warns(UserWarning, match=r"training\.seed"):
        warn_of_seeds(build(variants))


@pytest.mark.parametrize("key", ["protocol.reference", "protocol.seed", "rungs.num_images"])
def test_space_key_that_changes_judging_is_refused(root: Path, key: str) -> None:
    changed = tree(root)
    changed["vary"][key] = {"choices": ["same", "train"]}
    with pytest.raises(ValueError, match=rf"vary\.{key}: changes how trials are judged"):
        build(changed)
