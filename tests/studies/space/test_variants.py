"""Spaces with variants: each is asked once, in the order written, and all can be compared."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from coldtune import presets
from coldtune.config import parse
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import Ledger, open_ledger

SHAPE = (1, 16, 16)
BASE = presets.load("digits-quick")
VARIANTS = {
    "as it is": {},
    "naive": {"sampler.algorithm": "naive"},
    "mask": {"degradation": {"kind": "mask", "steps": 5, "beta": {"start": 1.0, "step": 0.2}}},
}


def build(variants: dict = VARIANTS, base: dict = BASE) -> Space:
    return build_space(parse(SpaceConfig, {"base": "digits-quick", "variants": variants}), base, SHAPE)


def ledger(folder: Path) -> Ledger:
    space = build()
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    spec = StudySpec(job="j", space=space.config, base=BASE)
    return open_ledger("s", spec, space, storage)


def test_variant_changes_only_the_named_keys() -> None:
    space = build()
    plain, naive, mask = (space.resolve({"variant": name}) for name in VARIANTS)
    assert (plain.sampler.algorithm, naive.sampler.algorithm) == ("tacos", "naive")
    assert plain.degradation == naive.degradation == BASE["degradation"]
    assert naive.model_copy(update={"sampler": plain.sampler}) == plain
    assert mask.degradation == VARIANTS["mask"]["degradation"], "a section must replace the whole section of the base"
    assert mask.model_copy(update={"degradation": plain.degradation}) == plain


def test_variants_are_asked_once_in_order_after_driver_death(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    assert [first.ask().point["variant"] for _ in range(2)] == ["as it is", "naive"]
    first.complete(1, TrialOutcome({"fid": 1.0}))
    again = ledger(tmp_path)  # trial 0 has no result, so it is asked again before trial 2
    assert again.interrupted() == [0]
    asked = [again.ask(), again.ask()]
    assert [(a.number, a.point["variant"], a.again) for a in asked] == [(0, "as it is", True), (2, "mask", False)]
    assert asked[1].config.degradation["kind"] == "mask"


def test_variants_trial_without_parameters_after_driver_death_gets_its_variant(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    first.ask()
    first.study.ask()  # the driver dies here, when the trial exists but has no parameter
    again = ledger(tmp_path)
    assert [again.ask().point["variant"] for _ in range(3)] == list(VARIANTS)
    assert [trial.params["variant"] for trial in optuna.load_study(
        study_name="s", storage=again.study._storage).trials] == list(VARIANTS)  # fmt: skip


def test_space_size_is_number_of_variants_or_none(root: Path) -> None:
    assert build().size == 3
    assert build().feasible_share() == 1
    tree = presets.read_yaml(root / "search_spaces/blur.yaml")
    searched = build_space(parse(SpaceConfig, {key: tree[key] for key in ("base", "vary", "derive")}), BASE, SHAPE)
    assert searched.size is None


def changed(**sections: object) -> dict:
    return copy.deepcopy(BASE) | sections


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ({"a": {"degradation.T": 5}}, r"variants\.a: .*T = 5"),
        ({"a": {"nonsense": {}}}, r"variants\.a: nonsense: unknown section"),
        ({"a": {"sampler.algorithm": "ddim"}}, r"variants\.a: sampler\.algorithm = 'ddim'"),
        ({"a": {"sampler.draw": "estimated"}}, r"variants\.a: sampler\.draw = 'estimated': this blur is deterministic"),
        ({"a": {"degradation.steps.first": 5}}, r"variants\.a: degradation\.steps\.first: steps is a value"),
        ({"a": {"degradation.kernel_size": 35}}, r"variants\.a: .*kernel_size = 35"),
        ({"a": {}, "b": {"protocol.num_images": 300}}, r"variants\.b: changes the protocol"),
        ({"a": {"data.image_size": 32}}, r"variants\.a: changes data\.image_size"),
        ({"a": {"data.name": "mnist"}}, r"variants\.a: changes data\.name"),
        ({"a": {"prior": {"kind": "gmm"}}}, r"variants\.a: changes whether images are restored or generated"),
    ],
)
def test_variants_wrong_config_is_refused(variants: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(variants)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, r"needs vary \(keys to search\), variants"),
        ({"variants": {}, "vary": {}}, r"needs vary \(keys to search\), variants"),
        (
            {"variants": {"a": {}}, "derive": {"degradation.sigma.start": {"hold": "leftover"}}},
            "derive, constrain and first need vary",
        ),
    ],
)
def test_space_config_without_vary_or_variants_is_refused(parts: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(SpaceConfig, {"base": "digits-quick", **parts})


KINDS = {
    "blur": {},
    "noise": {"degradation": {"kind": "noise", "steps": 20}},
    "mask": {"degradation": {"kind": "mask", "steps": 20, "beta": {"start": 0.5, "step": 0.1}}},
}


def searched(**parts: object) -> Space:
    tree = {
        "base": "x",
        "variants": KINDS,
        "vary": {
            "degradation.steps": {"low": 10, "high": 30},
            "degradation.beta.step": {"low": 0.05, "high": 0.2, "when": {"variant": "mask"}},
            "sampler.draw": {"choices": ["fixed", "estimated"], "when": {"degradation.kind": "noise"}},
        },
        **parts,
    }
    return build_space(parse(SpaceConfig, tree), BASE, SHAPE)


def test_variants_beside_vary_are_one_more_choice() -> None:
    space = searched()
    assert space.size is None
    assert space.first == {"variant": "blur", "T": 20}
    rng = random.Random(0)
    points = [space.sample(rng) for _ in range(60)]
    assert {frozenset(point) for point in points} == {
        frozenset({"variant", "T"}),
        frozenset({"variant", "T", "beta_step"}),
        frozenset({"variant", "T", "draw"}),
    }
    for point in points:
        trial = space.resolve(point)
        assert trial.degradation["kind"] == point["variant"]
        assert trial.degradation["steps"] == point["T"]
        if point["variant"] == "mask":
            assert trial.degradation["beta"] == {"start": 0.5, "step": point["beta_step"]}


def test_vary_key_of_one_variant_without_condition_is_refused() -> None:
    """Without a condition, the key would also be set in variants that do not have it."""
    with pytest.raises(ValueError, match=r"degradation\.beta\.step = None: .* the base lies outside"):
        searched(vary={"degradation.beta.step": {"low": 0.05, "high": 0.2}})
    with pytest.raises(ValueError, match=r"not valid \(variant = 'noise', .*sigma"):
        searched(vary={"degradation.sigma.rate": {"low": 0.01, "high": 0.2}})
    with pytest.raises(ValueError, match=r"vary\.degradation\.threshold\.start: the base has no such key"):
        searched(vary={"degradation.threshold.start": {"low": 0.05, "high": 0.2}})


def test_vary_key_of_other_variants_stays_as_written() -> None:
    space = searched(vary={"degradation.steps": {"low": 10, "high": 30, "when": {"variant": ["blur", "noise"]}}})
    assert space.resolve({"variant": "mask"}).degradation["steps"] == 20
    assert space.resolve({"variant": "noise", "T": 12}).degradation["steps"] == 12
