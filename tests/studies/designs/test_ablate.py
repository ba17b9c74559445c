"""The spec of an ablation: its changes, its arms, their order, and the searches that cannot be ablated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coldtune.diffusion import leftover_of
from coldtune.studies.designs.ablate import build_ablation
from coldtune.studies.designs.describe import describe_design
from coldtune.studies.preflight.checks import check_study
from coldtune.studies.preflight.options import RunOptions
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space, check_seeds
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import Ledger, open_ledger

SHAPE = (1, 16, 16)
BLUR = """
base: digits-quick
vary:
  degradation.sigma.schedule: {choices: [constant, linear, exponential]}
  degradation.sigma.rate: {choices: [0.02, 0.05], when: {degradation.sigma.schedule: [linear, exponential]}}
  degradation.steps: {low: 10, high: 40, step: 10}
  sampler.algorithm: {choices: [naive, tacos]}
derive:
  degradation.sigma.start: {hold: leftover, at: base}
"""
LINEAR = (
    "{degradation.sigma.schedule: linear, degradation.sigma.rate: 0.02, degradation.steps: 30, "
    "sampler.algorithm: naive}"
)
CONSTANT = "{degradation.sigma.schedule: constant, degradation.steps: 30}"
COSTS = """
base: digits-quick
vary:
  degradation.steps: {low: 20, high: 40, step: 10}
  sampler.num_steps: {choices: [null, 10, 5]}
  training.loss: {choices: [l1, l2]}
constrain:
  nfe: {max: 20}
"""
VARIANTS = """
base: digits-quick
variants:
  blur: {}
  noise:
    degradation: {kind: noise, steps: 20}
vary:
  degradation.kernel_size: {choices: [5, 7], when: {variant: blur}}
  sampler.draw: {choices: [fixed, estimated], when: {variant: noise}}
  training.loss: {choices: [l1, l2]}
"""


class Search:
    """A search whose trials were told without running: the base, and the point that is the best."""

    def __init__(self, folder: Path, space: str, best: str, trials: int = 2) -> None:
        (folder / "space.yaml").write_text(f"{space}first:\n  - {best}\n")
        self.spec = build_spec("search", folder / "space.yaml", settings=["training.checkpoint_every=50"])
        self.spec = self.spec.model_copy(update={"threads": 1})
        self.folder = StudyFolder(folder / "home", "search")
        self.folder.save(self.spec, {"trials": trials, "fingerprint": "x", "command": "python search.py"})
        self.reader: Ledger = open_ledger(
            "search", self.spec, Space(self.spec.space, self.spec.base, SHAPE), open_storage(self.folder.path)
        )
        for fid in (5.0, 1.0):
            self.reader.complete(self.reader.ask().number, TrialOutcome({"fid": fid, "nfe": 20.0}))

    def ablate(self, **more: Any) -> StudySpec:
        spec = build_ablation(self.reader, self.folder, **more)
        build_space(spec.space, spec.base, SHAPE)  # every arm is valid
        return spec


def keys(spec: StudySpec) -> dict[str, tuple[str, ...]]:
    assert spec.ablation is not None
    return {name: change.keys for name, change in spec.ablation.changes.items()}


def path(spec: StudySpec) -> list[tuple[str, ...]]:
    assert spec.ablation is not None
    return [step.changes for step in spec.ablation.path]


def test_ablation_changes_are_those_of_the_space_in_its_order(tmp_path):
    spec = Search(tmp_path, BLUR, LINEAR).ablate()
    assert list(keys(spec).values()) == [
        ("degradation.sigma.schedule", "degradation.sigma.rate"),
        ("degradation.steps",),
        ("sampler.algorithm",),
    ]
    assert path(spec) == [("schedule+rate",), ("T",), ("sampler",)]


SEEDS = """
base: digits-quick
vary:
  training.seed: {low: 0, high: 9}
  training.loss: {choices: [l1, l2]}
"""


def test_ablation_with_replicates_leaves_the_seed_of_a_search_over_seeds_out(tmp_path):
    search = Search(tmp_path, SEEDS, "{training.seed: 4, training.loss: l2}")
    assert list(keys(search.ablate()).values()) == [("training.seed",), ("training.loss",)]
    with pytest.warns(UserWarning, match=r"training\.seed: the search varied it, but with replicates .* chooses"):
        spec = search.ablate(replicated=True)
    assert list(keys(spec).values()) == [("training.loss",)]
    check_seeds(Space(spec.space, spec.base, SHAPE), 3)


def test_ablation_with_replicates_of_seeds_alone_is_refused_with_a_way_out(tmp_path):
    search = Search(tmp_path, SEEDS, "{training.seed: 4}")
    with pytest.raises(ValueError, match=r"in training\.seed alone.*Leave --replicates out"):
        search.ablate(replicated=True)
    spec, options = search.ablate(), RunOptions(home=tmp_path / "home", command="", replicates=3)
    with pytest.raises(ValueError, match=r"--replicates 3: this ablation takes training\.seed back.*ablate search"):
        check_study(spec, options, runs=False)


def test_ablation_arms_are_the_path_and_each_change_alone(tmp_path):
    spec = Search(tmp_path, BLUR, LINEAR).ablate()
    assert list(spec.space.variants) == [
        "base", "best (trial 1)", "base with schedule+rate", "base with T", "base with sampler",
        "best without schedule+rate",
    ]  # fmt: skip
    assert spec.ablation is not None
    assert [step.arm for step in spec.ablation.path] == ["best without schedule+rate", "base with sampler", "base"]


def test_ablation_base_and_best_are_the_trials_of_the_search(tmp_path):
    search = Search(tmp_path, BLUR, LINEAR)
    spec = search.ablate()
    arms = Space(spec.space, spec.base, SHAPE)
    base, best = (search.reader.space.resolve(trial.params) for trial in search.reader.trials())
    assert arms.resolve({"variant": "base"}) == base
    assert arms.resolve({"variant": "best (trial 1)"}) == best
    assert spec.threads == search.spec.threads, "the trainings of the search are found in the store"


def test_ablation_derives_keys_anew_in_every_arm(tmp_path):
    search = Search(tmp_path, BLUR, LINEAR)
    spec = search.ablate()
    arms = Space(spec.space, spec.base, SHAPE)
    held = leftover_of(spec.base["degradation"], SHAPE)
    starts = set()
    for name in spec.space.variants:
        degradation = arms.resolve({"variant": name}).degradation
        assert leftover_of(degradation, SHAPE) == pytest.approx(held, rel=1e-3)
        starts.add(degradation["sigma"]["start"])
    assert len(starts) == 4, "for each pair of a path and a number of steps"
    assert "degradation.sigma.start" not in [key for group in keys(spec).values() for key in group]


def test_ablation_key_without_effect_in_the_best_setting_changes_with_its_parent(tmp_path):
    spec = Search(tmp_path, BLUR, CONSTANT).ablate()
    assert spec.ablation is not None
    change = spec.ablation.changes["schedule+rate"]
    assert change.after == {"degradation.sigma.schedule": "constant"}
    assert change.before == {"degradation.sigma.schedule": "exponential", "degradation.sigma.rate": 0.05}


def test_ablation_of_a_variant_changes_its_keys_with_it(tmp_path):
    best = "{variant: noise, sampler.draw: estimated, training.loss: l2}"
    spec = Search(tmp_path, VARIANTS, best).ablate()
    assert list(keys(spec).values()) == [
        ("variant", "degradation.kernel_size", "sampler.draw"), ("training.loss",)
    ]  # fmt: skip
    assert list(spec.space.variants) == [
        "base", "best (trial 1)", "base with variant+kernel+draw", "base with loss"
    ]  # fmt: skip


def test_ablation_order_puts_keys_first(tmp_path):
    search = Search(tmp_path, BLUR, LINEAR)
    spec = search.ablate(order=["sampler.algorithm", "rate"])
    assert path(spec) == [("sampler",), ("schedule+rate",), ("T",)]
    assert spec.name != search.ablate().name, "another order is another study"


def test_ablation_step_that_cannot_exist_is_taken_back_with_the_next(tmp_path):
    spec = Search(tmp_path, COSTS, "{degradation.steps: 40, sampler.num_steps: 10, training.loss: l2}").ablate(
        order=["num_steps"]
    )
    assert path(spec) == [("num_steps", "T"), ("loss",)]
    assert spec.ablation is not None
    assert "nfe = 40" in spec.ablation.path[0].skipped["num_steps"]
    assert spec.ablation.changes["T"].alone is None
    assert "nfe = 40" in spec.ablation.changes["T"].why_not
    said = [text for head, text in describe_design(spec) if head == "skips"]
    assert len(said) == 2
    assert all("constrain.nfe is at most 20" in text for text in said)


def test_ablation_settings_change_every_arm(tmp_path):
    spec = Search(tmp_path, BLUR, LINEAR).ablate(settings=["protocol.split=test", "training.loss=l2"])
    arms = Space(spec.space, spec.base, SHAPE)
    trials = [arms.resolve({"variant": name}) for name in spec.space.variants]
    assert {(trial.protocol.split, trial.training.loss) for trial in trials} == {("test", "l2")}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"order": ["training.lr"]}, "--order training.lr: is no key in which the two settings differ"),
        ({"order": ["T", "degradation.steps"]}, "--order degradation.steps: is there twice"),
        ({"order": ["schedule", "rate"]}, "--order rate: is there twice, or changes together"),
        ({"trial": 7}, "--trial 7: no trial of this number has completed; completed: 0, 1"),
        ({"trial": 0}, "trial 0 has the settings of the base"),
        ({"settings": ["degradation.steps=30"]}, "--set degradation.steps=30: the search varies this key"),
        ({"settings": ["degradation.sigma.start=1"]}, "--set degradation.sigma.start=1: the search derives this key"),
        ({"settings": ["search.startup=3"]}, "--set search.startup=3: an ablation searches"),
    ],
)
def test_ablation_with_a_wrong_option_is_refused(tmp_path, more, says):
    search = Search(tmp_path, BLUR, LINEAR)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        search.ablate(**more)
    assert says in str(caught.value)


def test_ablation_of_an_unfinished_search_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"2 of 5 trials have ended\. Finish the search first: `.*study resume"):
        Search(tmp_path, BLUR, LINEAR, trials=5).ablate()


def test_ablation_of_several_objectives_needs_a_trial(tmp_path):
    two = BLUR + "objective: [{metric: fid}, {metric: nfe}]\n"
    search = Search(tmp_path, two, LINEAR)
    with pytest.raises(ValueError, match=r"2 objectives, so no trial is the best\. Choose one with --trial"):
        search.ablate()
    assert path(search.ablate(trial=1))


def test_ablation_of_a_list_of_variants_is_refused(tmp_path):
    search = Search(tmp_path, BLUR, LINEAR)
    (tmp_path / "space.yaml").write_text("base: digits-quick\nvariants: {a: {}, b: {training.loss: l2}}\n")
    search.reader.spec = build_spec("list", tmp_path / "space.yaml")
    with pytest.raises(ValueError, match="its trials are a list, so it searched nothing"):
        search.ablate()
