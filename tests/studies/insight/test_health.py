"""Each health check fires on a made-up study, and is silent on the same study without the fault."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from made_up_facts import facts_of
from scipy import stats

from coldtune.metrics import Protocol
from coldtune.studies.insight.checks.edge_of_range import check_edges
from coldtune.studies.insight.checks.failed_trials import check_failures
from coldtune.studies.insight.checks.few_images import check_images
from coldtune.studies.insight.checks.metrics_disagree import check_metrics_agree
from coldtune.studies.insight.checks.restorer_strength import check_restorer
from coldtune.studies.insight.checks.rung_ranking import check_rungs, rank_correlation
from coldtune.studies.insight.checks.settled_search import check_settled
from coldtune.studies.insight.checks.uneven_trainings import check_trainings
from coldtune.studies.insight.facts import SettingFacts, StudyFacts
from coldtune.studies.insight.health import CHECKS, examine
from coldtune.studies.search.objective import Objective
from coldtune.studies.space.space import Space

MakeSpace = Callable[..., Space]

PROTOCOL = Protocol(
    extractor="digits", extractor_sha256="ab" * 32, extractor_input="as given", dim=64, dataset="digits",
    dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="validation", num_images=256,
    reference_images=256, seed=0,
)  # fmt: skip


def with_metrics(facts: StudyFacts, metrics: Callable[[SettingFacts], Mapping[str, float]]) -> StudyFacts:
    """Return the facts with these metrics in every training of a setting."""
    settings = tuple(
        dataclasses.replace(each, metrics=tuple({"fid": value[0], **metrics(each)} for value in each.values))
        for each in facts.settings
    )
    return dataclasses.replace(facts, settings=settings)


def in_order(facts: StudyFacts, values: Sequence[float]) -> StudyFacts:
    """Return facts whose settings have these values, in the order in which they were asked."""
    settings = [dataclasses.replace(s, values=((v,),)) for s, v in zip(facts.settings, values, strict=True)]
    return dataclasses.replace(facts, settings=tuple(settings))


@pytest.fixture
def healthy(make_space: MakeSpace) -> StudyFacts:
    """A study whose best `num_steps` is in the middle of its range, and whose rungs rank as its values do."""
    facts = facts_of(make_space(), lambda point: abs(point["num_steps"] - 10.5) + 1, steps=(200,), ended=30)
    made = with_metrics(
        dataclasses.replace(facts, protocol=PROTOCOL),
        lambda each: {
            "kid": each.mean() / 100, "kid_low": each.mean() / 100 - 1e-4, "kid_high": each.mean() / 100 + 1e-4,
            "fid_low": each.mean() - 1e-3, "fid_high": each.mean() + 1e-3, "fid_degraded": 90.0, "fid_direct": 40.0,
        },
    )  # fmt: skip
    rungs = tuple(
        dataclasses.replace(each, rungs=tuple({200: {"kid": 3 * value[0]}} for value in each.values))
        for each in made.settings
    )
    # The last settings still improve the best value by more than the noise.
    return dataclasses.replace(made, settings=tuple(sorted(rungs, key=lambda each: -each.mean())))


def test_health_healthy_study_has_no_finding(healthy: StudyFacts) -> None:
    assert examine(healthy) == ()


def test_health_study_without_settings_has_no_finding(healthy: StudyFacts) -> None:
    assert examine(dataclasses.replace(healthy, settings=(), protocol=None, ended=0)) == ()


def test_health_findings_are_sentences_with_advice(healthy: StudyFacts) -> None:
    assert len(CHECKS) == 8
    for finding in examine(dataclasses.replace(healthy, failures=("RuntimeError: boom",) * 5)):
        assert finding.sentence.endswith((".", "boom"))
        assert finding.advice.endswith(".")


def test_health_values_of_different_protocols_are_the_only_finding(healthy: StudyFacts) -> None:
    [finding] = examine(dataclasses.replace(healthy, mixed="values of different protocols", failures=("boom",) * 9))
    assert finding.sentence == "Values of different protocols."


@pytest.mark.parametrize(("best", "side"), [(20, "upper"), (1, "lower")])
def test_check_edges_best_values_at_an_end_are_named(make_space: MakeSpace, best: int, side: str) -> None:
    facts = facts_of(make_space(), lambda point: float(abs(point["num_steps"] - best)), 60)
    [finding] = check_edges(facts)
    assert f"`num_steps` near the {side} end of its range, {best}" in finding.sentence
    assert "Widen `sampler.num_steps`" in finding.advice


def test_check_edges_maximized_objective_has_its_best_at_the_other_end(make_space: MakeSpace) -> None:
    best_is_large = (Objective(metric="recall", direction="maximize"),)
    [finding] = check_edges(facts_of(make_space(), lambda p: float(p["num_steps"]), 60, objectives=best_is_large))
    assert "upper end" in finding.sentence


def test_health_checks_judge_images_if_the_cost_is_the_first_objective(make_space: MakeSpace) -> None:
    """FID is best at the upper end, and rungs rank as FID does. NFE is best at the lower end."""
    objectives = (Objective(metric="nfe"), Objective(metric="fid"))
    made = facts_of(make_space(), lambda point: float(point["num_steps"]), 60, objectives=objectives, steps=(200,))
    settings = tuple(
        dataclasses.replace(each, values=((nfe, 30 - nfe),), rungs=({200: {"kid": 30 - nfe}},))
        for each in made.settings
        for ((nfe,),) in [each.values]
    )
    facts = dataclasses.replace(made, settings=settings)
    [finding] = check_edges(facts)
    assert finding.sentence.startswith("Most of the best settings by FID have `num_steps` near the upper end")
    assert list(check_rungs(facts)) == []
    degraded = with_metrics(facts, lambda each: {"fid": 9.0, "fid_degraded": 9.0})
    [weak] = check_restorer(degraded)
    assert "no better than the degraded images by FID" in weak.sentence


def test_check_edges_single_best_point_at_an_end_is_no_finding(make_space: MakeSpace) -> None:
    facts = facts_of(
        make_space(), lambda point: 0.0 if point["num_steps"] == 20 else abs(point["num_steps"] - 10.0), 60
    )
    ends = [each for each in facts.settings if each.point["num_steps"] == 20]
    once = [each for each in facts.settings if each not in ends[1:]]
    assert list(check_edges(dataclasses.replace(facts, settings=tuple(once)))) == []


def test_check_edges_noise_has_few_false_findings(make_space: MakeSpace) -> None:
    rng, space = random.Random(2), make_space()
    found = sum(bool(list(check_edges(facts_of(space, lambda _: rng.random(), 40)))) for _ in range(40))
    assert found <= 2


def test_check_rungs_other_order_is_reported_with_a_random_sample_of_the_pruned(healthy: StudyFacts) -> None:
    rng = random.Random(0)
    shuffled = tuple(dataclasses.replace(each, rungs=({200: {"kid": rng.random()}},)) for each in healthy.settings)
    facts = dataclasses.replace(healthy, settings=shuffled, pruned=(31, 32, 33, 34, 35))
    [finding] = check_rungs(facts)
    assert "5 pruned trials are missing" in finding.sentence
    assert "95 % CI [" in finding.sentence
    assert finding.advice.count("study promote study ") == 3
    [unpruned] = check_rungs(dataclasses.replace(facts, pruned=()))
    assert "promote" not in unpruned.advice


def test_check_rungs_too_few_finished_trials_say_nothing(healthy: StudyFacts) -> None:
    backwards = [dataclasses.replace(s, rungs=({200: {"kid": -s.mean()}},)) for s in healthy.settings]
    assert list(check_rungs(dataclasses.replace(healthy, settings=tuple(backwards[:4])))) == []
    assert list(check_rungs(dataclasses.replace(healthy, settings=tuple(backwards))))


def test_rank_correlation_equals_spearmans() -> None:
    pairs = np.random.default_rng(0).normal(size=(40, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    rho, low, high = rank_correlation(pairs)
    assert rho == pytest.approx(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
    assert -1 <= low < rho < high <= 1


def test_check_settled_no_gain_beyond_noise_is_reported(healthy: StudyFacts) -> None:
    flat = in_order(healthy, [9.0] * 5 + [1.0] * 12 + [5.0] * 13)
    [finding] = check_settled(flat)
    assert "did not improve the best FID" in finding.sentence
    assert "--confirm 5" in finding.advice
    assert list(check_settled(in_order(healthy, [9.0 - 0.1 * i for i in range(30)]))) == []


def test_check_settled_of_an_ended_search_does_not_end_it_again(healthy: StudyFacts) -> None:
    flat = dataclasses.replace(healthy, settings=tuple(reversed(healthy.settings)))
    noisy = with_metrics(flat, lambda _: {"fid_low": 0.0, "fid_high": 40.0})
    [ended] = check_settled(noisy)
    [running] = check_settled(dataclasses.replace(noisy, running=True))
    assert ended.advice.startswith("Confirm its best settings: `")
    assert running.advice.startswith("End the search, and confirm its best settings: `")


def test_noise_intervals_that_are_not_known_are_left_out(healthy: StudyFacts) -> None:
    unknown = with_metrics(healthy, lambda each: {"fid_low": 0.0, "fid_high": None if each.number else 3.92})  # type: ignore[dict-item]
    assert unknown.noise() == (pytest.approx(1.0), "over images")


def test_check_settled_single_lucky_value_is_no_finding(healthy: StudyFacts) -> None:
    assert list(check_settled(in_order(healthy, [9.0] * 5 + [1.0] + [5.0] * 24))) == []


def test_check_settled_needs_a_search_and_enough_settings(healthy: StudyFacts) -> None:
    flat = in_order(healthy, [1.0] * 30)
    assert list(check_settled(flat))
    assert list(check_settled(dataclasses.replace(flat, searched=False))) == []
    assert list(check_settled(dataclasses.replace(flat, settings=flat.settings[:29]))) == []


def test_noise_of_trainings_is_the_pooled_sd_of_a_mean(make_space: MakeSpace) -> None:
    facts = facts_of(make_space(), lambda _: 0.0, 2)
    values = (((1.0,), (3.0,)), ((5.0,), (9.0,)))  # variances 2 and 8, so 5 when pooled and 2.5 for a mean of two
    settings = [dataclasses.replace(s, values=v) for s, v in zip(facts.settings, values, strict=True)]
    sd, source = dataclasses.replace(facts, settings=tuple(settings)).noise() or (0.0, "")
    assert sd == pytest.approx(2.5**0.5)
    assert source == "between trainings"


@pytest.mark.parametrize(("gap", "findings"), [(0.02, 1), (0.0001, 0)])
def test_check_metrics_agree_kid_that_prefers_the_second_by_more_than_noise(
    healthy: StudyFacts, gap: float, findings: int
) -> None:
    best = healthy.ranked()[0].number

    def metrics(each: SettingFacts) -> dict[str, float]:
        kid = 0.1 + gap * (each.number == best)
        return {"kid": kid, "kid_low": kid - 0.001, "kid_high": kid + 0.001}

    found = list(check_metrics_agree(with_metrics(healthy, metrics)))
    assert len(found) == findings
    assert all(f"FID ranks the networks of trial {best} before" in each.sentence for each in found)
    assert all("says nothing about other trainings" in each.sentence for each in found)


def test_check_metrics_agree_of_three_trainings_speaks_of_settings(healthy: StudyFacts) -> None:
    settings = tuple(dataclasses.replace(each, values=each.values * 3) for each in healthy.settings)
    several = dataclasses.replace(healthy, settings=settings)
    best = several.ranked()[0].number
    (found,) = check_metrics_agree(with_metrics(several, lambda each: {"kid": 0.1 + 0.02 * (each.number == best)}))
    assert f"FID prefers trial {best} to trial" in found.sentence


def test_check_images_fewer_than_4_d_name_fid_only(healthy: StudyFacts) -> None:
    few = dataclasses.replace(healthy, protocol=PROTOCOL.model_copy(update={"num_images": 255}))
    [finding] = check_images(few)
    assert finding.sentence.startswith("Only N = 255 images were judged, fewer than 4 d = 256 (d = 64). So FID can")
    small = PROTOCOL.model_copy(update={"num_images": 1000, "reference_images": 100})
    [finding] = check_images(dataclasses.replace(healthy, protocol=small))
    assert finding.sentence.startswith("Only 100 reference images were there to compare with, fewer than 4 d = 256")
    assert "Compare with at least 256 images (`protocol.reference=train` may have more)" in finding.advice
    unmeasured = [dataclasses.replace(each, metrics=({"kid": 1.0},)) for each in few.settings]
    assert list(check_images(dataclasses.replace(few, settings=tuple(unmeasured)))) == []


@pytest.mark.parametrize(("failed", "ended", "findings"), [(3, 30, 1), (2, 30, 0), (1, 2, 0), (0, 30, 0)])
def test_check_failures_share_of_a_tenth(healthy: StudyFacts, failed: int, ended: int, findings: int) -> None:
    found = list(check_failures(dataclasses.replace(healthy, failures=("boom",) * failed, ended=ended)))
    assert len(found) == findings
    assert all("--retry-failed" in each.advice for each in found)


def test_check_restorer_no_better_than_degraded_is_weak(healthy: StudyFacts) -> None:
    [finding] = check_restorer(with_metrics(healthy, lambda each: {"fid_degraded": each.mean() - 0.1}))
    assert finding.name == "weak restorer"


def test_check_restorer_direct_better_than_samplers_is_strong(healthy: StudyFacts) -> None:
    strong = with_metrics(healthy, lambda each: {"fid_degraded": 90.0, "fid_direct": each.mean() - 0.1})
    [finding] = check_restorer(strong)
    assert finding.name == "strong restorer"
    by_chance = with_metrics(strong, lambda each: {"fid_direct": each.mean() + (0.1 if each.number % 2 else -0.1)})
    assert list(check_restorer(by_chance)) == []


def test_check_restorer_direct_sampler_is_not_compared_with_itself(healthy: StudyFacts) -> None:
    facts = with_metrics(healthy, lambda each: {"fid_direct": each.mean() - 0.1})
    paths = {**facts.paths, "algorithm": "sampler.algorithm"}
    direct = [dataclasses.replace(s, point={**s.point, "algorithm": "direct"}) for s in facts.settings]
    assert list(check_restorer(dataclasses.replace(facts, settings=tuple(direct), paths=paths))) == []


def test_check_trainings_unequal_numbers_are_counted_at_the_end(make_space: MakeSpace) -> None:
    facts = facts_of(make_space(), lambda _: 1.0, 4, trainings=3)
    assert list(check_trainings(facts)) == []
    first = dataclasses.replace(facts.settings[0], values=((1.0,),))
    uneven: Any = dataclasses.replace(facts, settings=(first, *facts.settings[1:]))
    [finding] = check_trainings(uneven)
    assert "1 with 1 and 3 with 3" in finding.sentence
    assert "--replicates 3" in finding.advice
    assert "--retry-failed" not in finding.advice
    [finding] = check_trainings(dataclasses.replace(uneven, failures=("boom",)))
    assert "--retry-failed" in finding.advice, "a larger number alone asks no failed training again"
    assert list(check_trainings(dataclasses.replace(uneven, running=True))) == []
    assert list(check_trainings(dataclasses.replace(uneven, race=True))) == []
