"""Importance of functions whose shares are known, its refusals, and its cache."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from made_up_facts import SPACE, facts_of

from coldtune.stages.trial import short_name
from coldtune.studies.insight import study_importance
from coldtune.studies.insight.importance import FANOVA, PED_ANOVA, Importance, ImportanceRow
from coldtune.studies.insight.study_importance import LEAST_SETTINGS, importance_of, sample_of
from coldtune.studies.progress.report.insight import show_importance
from coldtune.studies.search.objective import Objective
from coldtune.studies.space.space import Space

MakeSpace = Callable[..., Space]


def additive(point: Mapping[str, Any]) -> float:
    """Return 8 u + 3 v + w for u, v and w uniform on [0, 1]: their shares are about 0.85, 0.12 and 0.04."""
    u = (point["num_steps"] - 1) / 19
    v = (math.log10(point["lr"]) + 4) / 2
    return 8 * u + 3 * v + point["clamp"]


def noise() -> Callable[[Mapping[str, Any]], float]:
    rng = random.Random(1)
    return lambda _: rng.gauss(0, 1)


def test_importance_additive_function_is_ranked_by_its_variances(make_space: MakeSpace) -> None:
    space = make_space()
    found = importance_of(facts_of(space, additive, 50), space)
    assert (found.evaluator, found.refusal, found.settings) == (FANOVA, None, 50)
    assert found.rows[0].key == "num_steps"
    shares = {row.key: row.share for row in found.rows}
    assert shares["num_steps"] > 0.6 > shares["lr"] > shares["clamp"]
    assert found.r2 is not None
    assert found.r2 > 0.5
    assert {row.key: row.stage for row in found.rows}["lr"] == "training"
    stages = {each.stage: each.share for each in found.by_stage}
    assert list(stages) == ["training", "sampling"]
    assert stages["sampling"] == pytest.approx(shares["num_steps"] + shares["clamp"])


def test_importance_intervals_contain_their_shares(make_space: MakeSpace) -> None:
    space = make_space()
    found = importance_of(facts_of(space, additive, 30, trainings=2), space)
    for row in (*found.rows, *found.by_stage):
        assert row.low is not None
        assert row.high is not None
        assert 0 <= row.low <= row.share <= row.high <= 1


@pytest.mark.parametrize(("low", "said"), [(0.5, "`a` is the most important key."), (0.3, "may not be the most")])
def test_importance_overlapping_intervals_leave_the_order_open(low: float, said: str) -> None:
    rows = (ImportanceRow("a", 0.6, low, 0.9, "training"), ImportanceRow("b", 0.2, 0.1, 0.4, "sampling"))
    assert said in " ".join(Importance(FANOVA, "fid", rows, r2=0.8, settings=30).sentences())


def test_importance_overlapping_intervals_say_how_often_the_first_key_is_first() -> None:
    rows = (
        ImportanceRow("a", 0.6, 0.3, 0.9, "training", rank_held=0.93),
        ImportanceRow("b", 0.2, 0.1, 0.4, "sampling"),
    )
    made = Importance(FANOVA, "fid", rows, r2=0.8, settings=30)
    assert "`a` is first in 93 % of the resamples." in made.sentences()
    shown = show_importance(made)
    assert shown is not None
    [forest] = shown.figures
    assert [row.text for row in forest.rows] == ["60 % [30, 90], held 93 %", "20 % [10, 40]"]
    assert "A rank is held" in forest.note


def test_importance_of_sampling_alone_says_that_nothing_needs_retraining(make_space: MakeSpace) -> None:
    space = make_space()
    text = " ".join(importance_of(facts_of(space, lambda point: 5.0 * point["num_steps"]), space).sentences())
    assert "nothing needs retraining" in text


def test_importance_of_noise_is_refused(make_space: MakeSpace) -> None:
    space = make_space()
    found = importance_of(facts_of(space, noise(), 40), space)
    assert found.rows == ()
    assert found.refusal is not None
    assert found.refusal.startswith("No key can be ranked.")
    assert found.sentences()[0] == found.refusal


@pytest.mark.parametrize("count", [0, LEAST_SETTINGS - 1])
def test_importance_of_few_settings_is_refused(make_space: MakeSpace, count: int) -> None:
    space = make_space()
    refusal = importance_of(facts_of(space, additive, count), space).refusal or ""
    assert refusal.startswith(f"Importance needs at least {LEAST_SETTINGS} finished settings, and there are {count}.")


def test_importance_of_equal_values_is_refused(make_space: MakeSpace) -> None:
    space = make_space()
    assert "the same value" in (importance_of(facts_of(space, lambda _: 2.0), space).refusal or "")


def test_importance_of_a_single_key_is_refused(make_space: MakeSpace) -> None:
    space = make_space("base: digits-quick\nvary: {training.lr: {low: 1.0e-4, high: 1.0e-2}}\n")
    assert "Only `lr` takes several values" in (importance_of(facts_of(space, lambda p: p["lr"]), space).refusal or "")


def test_importance_of_listed_variants_refers_to_exact_effects(make_space: MakeSpace) -> None:
    space = make_space("base: digits-quick\nvariants: {a: {}, b: {training.lr: 1.0e-2}}\n")
    facts = facts_of(space, lambda point: float(point["variant"] == "a"))
    refusal = importance_of(facts, space).refusal or ""
    assert "effects are exact" in refusal
    assert "study show" in refusal


def test_importance_of_conditional_keys_is_ped_anovas(make_space: MakeSpace) -> None:
    space = make_space(f"{SPACE}  training.batch_size: {{low: 16, high: 64, when: {{sampler.clamp: true}}}}\n")
    found = importance_of(facts_of(space, additive, 60), space)
    assert found.evaluator == PED_ANOVA
    assert found.rows[0].key == "num_steps"
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert found.r2 is None
    assert {row.rank_held for row in found.rows} == {None}
    assert "no share of variance" in " ".join(found.sentences())
    assert "hint" not in " ".join(found.sentences())  # the points are random
    searched = importance_of(facts_of(space, additive, 60, adaptive=True), space)
    assert "the order as a hint" in " ".join(searched.sentences())


def test_importance_of_several_objectives_is_ped_anovas(make_space: MakeSpace) -> None:
    space = make_space()
    facts = facts_of(space, additive, 60, objectives=(Objective(metric="fid"), Objective(metric="nfe")))
    both = [dataclasses.replace(s, values=((s.values[0][0], s.values[0][0]),)) for s in facts.settings]
    found = importance_of(dataclasses.replace(facts, settings=tuple(both)), space)
    assert (found.evaluator, found.objective) == (PED_ANOVA, "fid and nfe")
    assert found.rows[0].key == "num_steps"


def test_sample_varied_training_seed_counts_trainings_and_no_key(make_space: MakeSpace) -> None:
    space = make_space(f"{SPACE}  training.seed: {{low: 0, high: 1}}\n")
    facts, key = facts_of(space, additive, 10), short_name("training.seed")
    twice = [
        dataclasses.replace(each, number=2 * each.number + seed, point={**each.point, key: seed})
        for each in facts.settings
        for seed in (0, 1)
    ]
    sample = sample_of(dataclasses.replace(facts, settings=tuple(twice)))
    assert len(sample.points) == 10
    assert {len(values) for values in sample.values} == {2}
    assert set(sample.distributions) == {"lr", "num_steps", "clamp"}


def test_sample_values_that_are_not_finite_are_left_out(make_space: MakeSpace) -> None:
    space = make_space()
    facts = facts_of(space, additive, 5)
    broken = dataclasses.replace(facts.settings[0], values=((math.inf,),))
    assert len(sample_of(dataclasses.replace(facts, settings=(broken, *facts.settings[1:]))).points) == 4


class TestCache:
    @pytest.fixture
    def estimated(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The evaluators of all estimations, which still happen."""
        calls: list[str] = []
        estimate = study_importance._estimate

        def counted(made: Importance, *arguments: Any) -> Importance:
            calls.append(made.evaluator)
            return estimate(made, *arguments)

        monkeypatch.setattr(study_importance, "_estimate", counted)
        return calls

    def test_importance_of_the_same_input_is_computed_once(
        self, make_space: MakeSpace, tmp_path: Path, estimated: list[str]
    ) -> None:
        space = make_space()
        facts = facts_of(space, additive)
        first = importance_of(facts, space, tmp_path)
        assert importance_of(facts, space, tmp_path) == first
        assert estimated == [FANOVA]

    def test_importance_of_a_changed_value_is_computed_again_and_replaces_the_file(
        self, make_space: MakeSpace, tmp_path: Path, estimated: list[str]
    ) -> None:
        space = make_space()
        importance_of(facts_of(space, additive), space, tmp_path)
        importance_of(facts_of(space, lambda point: additive(point) + 1), space, tmp_path)
        assert len(estimated) == 2
        assert len(list((tmp_path / "importance").iterdir())) == 1

    @pytest.mark.parametrize("content", ["{", '{"evaluator": "fANOVA"}'])
    def test_importance_damaged_file_is_computed_again(
        self, make_space: MakeSpace, tmp_path: Path, estimated: list[str], content: str
    ) -> None:
        space = make_space()
        facts = facts_of(space, additive, 20)
        first = importance_of(facts, space, tmp_path)
        [file] = (tmp_path / "importance").iterdir()
        file.write_text(content)
        assert importance_of(facts, space, tmp_path) == first
        assert len(estimated) == 2
        assert json.loads(file.read_text())["evaluator"] == FANOVA

    def test_importance_folder_that_cannot_be_written_is_no_error(self, make_space: MakeSpace, tmp_path: Path) -> None:
        space = make_space()
        (tmp_path / "importance").write_text("a file where the folder must be")
        assert importance_of(facts_of(space, additive), space, tmp_path).rows
