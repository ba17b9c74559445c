"""The settings that a search has chosen, the seeds of their new trainings, and the verdicts on them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from coldtune.config import plain
from coldtune.data import Dataset
from coldtune.data.prepare import prepared
from coldtune.metrics import Judgement, Protocol, Value
from coldtune.stages.trial import parse_trial
from coldtune.studies.designs.confirm import build_confirmation, describe_earlier, first_seed
from coldtune.studies.designs.describe import describe_design
from coldtune.studies.progress.report.answer import describe_answer
from coldtune.studies.progress.report.content import StudyContent
from coldtune.studies.progress.report.provenance import list_commands
from coldtune.studies.progress.results import describe_confirmed
from coldtune.studies.progress.verdicts import judge_settings
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space, check_seeds
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.confirmation_checks import check_confirm
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import Effort, Rung, TrialOutcome
from coldtune.studies.storage.record import write_study
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.trials.reading import read_study

SHAPE = (1, 16, 16)
STEPS = "base: digits-quick\nvary: {degradation.steps: {low: 10, high: 60, step: 10}}\n"
FIRST = "first: [{degradation.steps: 10}, {degradation.steps: 30}, {degradation.steps: 40}, {degradation.steps: 50}]\n"
T = (20, 10, 30, 40, 50)  # of the base, which is the first trial, and of the others
PROTOCOL = Protocol(
    extractor="digits", extractor_sha256="ab" * 32, extractor_input="as given", dim=4, dataset="digits",
    dataset_fingerprint="cd" * 32, image_shape=SHAPE, resize="bilinear", split="test", num_images=50,
    reference_images=50, seed=0,
)  # fmt: skip


def search(folder: Path, text: str = STEPS + FIRST, replicates: int = 1, **more: Any) -> Ledger:
    (folder / "space.yaml").write_text(text)
    spec = build_spec("search", folder / "space.yaml", **more)
    return opened(folder, "search", spec, replicates)


def opened(folder: Path, name: str, spec: StudySpec, replicates: int) -> Ledger:
    path = StudyFolder(folder / "home", name)
    data = [Dataset.open(each).fingerprint for each in prepared(path.home, "digits")]
    path.save(
        spec,
        {"trials": len(spec.space.variants) or 5, "fingerprint": (data or ["x"])[0], "command": "python search.py"},
    )
    ledger = open_ledger(
        name, spec, Space(spec.space, spec.base, SHAPE), open_storage(path.path), replicates=replicates
    )
    write_study(ledger.study, replicates=[replicates])
    return ledger


def tell(ledger: Ledger, *fids: float | str) -> Ledger:
    """Tell a search its next trials: a FID each, `failed` or `pruned`."""
    for fid in fids:
        request = ledger.ask()
        assert request is not None
        if fid == "failed":
            ledger.fail(request.number, "no reason")
        elif fid == "pruned":
            ledger.prune(request.number, Rung(100, 0, "kid", {"kid": 0.0}))
        else:
            ledger.complete(request.number, TrialOutcome({"fid": float(fid), "nfe": 20.0}))
    return ledger


def confirmed(ledger: Ledger, replicates: int = 3) -> StudySpec:
    spec = build_confirmation(ledger, replicates)
    assert spec is not None
    space = build_space(spec.space, spec.base, SHAPE)
    check_seeds(space, replicates)
    return spec


def steps(spec: StudySpec) -> dict[str, int]:
    space = Space(spec.space, spec.base, SHAPE)
    return {name: space.resolve({"variant": name}).degradation["steps"] for name in spec.space.variants}


def test_confirmation_has_the_winner_the_next_two_and_the_base(tmp_path):
    spec = confirmed(tell(search(tmp_path), 5.0, 3.0, 1.0, 2.0, 4.0))
    assert steps(spec) == {"base": 20, "winner (trial 2)": 30, "trial 3": 40, "trial 1": 10}
    assert spec.confirmation is not None
    assert spec.confirmation.winner == "winner (trial 2)"
    assert spec.confirmation.numbers == {"base": 0, "winner (trial 2)": 2, "trial 3": 3, "trial 1": 1}
    assert spec.replicates == 3
    assert spec.base["protocol"]["split"] == "test"
    assert spec.comparisons.family == ("base",)


def test_confirmation_of_equal_values_takes_the_earlier_trial(tmp_path):
    assert list(steps(confirmed(tell(search(tmp_path), 5.0, 1.0, 1.0, 1.0, 1.0)))) == [
        "base", "winner (trial 1)", "trial 2", "trial 3",
    ]  # fmt: skip


def test_confirmation_takes_settings_with_the_same_images_once(tmp_path):
    ledger = search(tmp_path)
    for fid in (5.0, 1.0, 1.0, 2.0, 4.0):  # of one network, and trials 1 and 2 with equal metrics
        request = ledger.ask()
        assert request is not None
        ledger.complete(request.number, TrialOutcome({"fid": fid, "nfe": 20.0}, checkpoint="train/network/00000300"))
    assert list(steps(confirmed(ledger))) == ["base", "winner (trial 1)", "trial 3", "trial 4"]


def test_confirmation_of_a_larger_objective_takes_the_largest(tmp_path):
    text = f"{STEPS}{FIRST}objective: {{metric: ssim, direction: maximize}}\n"
    ledger = search(tmp_path, text)
    for ssim in (0.5, 0.1, 0.7, 0.2, 0.3):
        request = ledger.ask()
        assert request is not None
        ledger.complete(request.number, TrialOutcome({"fid": 1.0, "nfe": 20.0, "ssim": ssim}))
    assert list(steps(confirmed(ledger))) == ["base", "winner (trial 2)", "trial 4", "trial 3"]


def test_confirmation_of_a_base_that_won_has_the_base_and_the_next_two(tmp_path):
    spec = confirmed(tell(search(tmp_path), 1.0, 3.0, 5.0, 2.0, 4.0))
    assert steps(spec) == {"base": 20, "trial 3": 40, "trial 1": 10}
    assert spec.confirmation is not None
    assert spec.confirmation.winner == "base"
    said = dict(describe_design(spec))
    assert said["confirms"].startswith("its base (trial 0), which won, then trial 3, trial 1")


def test_confirmation_leaves_out_failed_and_pruned_trials(tmp_path):
    rungs = "rungs: {steps: [100]}\npruning: {kind: median}\n"
    spec = confirmed(tell(search(tmp_path, STEPS + FIRST + rungs), "failed", 3.0, "pruned", 2.0, "failed"))
    assert list(steps(spec)) == ["base", "winner (trial 3)", "trial 1"]
    assert spec.confirmation is not None
    assert spec.confirmation.numbers["base"] is None, "the search has no value of its base"
    assert not parse_trial(spec.base).rungs.steps


def test_confirmation_of_a_search_without_values_does_not_exist(tmp_path):
    assert build_confirmation(tell(search(tmp_path), "failed", "failed"), 3) is None


def test_confirmation_of_one_finished_trial_has_its_setting_alone(tmp_path):
    assert list(steps(confirmed(tell(search(tmp_path), 5.0)))) == ["base"]


def test_confirmation_takes_settings_that_mean_the_same_once(tmp_path):
    text = "base: digits-quick\nvary: {sampler.num_steps: {choices: [null, 20, 10, 5, 4]}}\n" + (
        "first: [{sampler.num_steps: 20}, {sampler.num_steps: 5}, {sampler.num_steps: 10}, {sampler.num_steps: 4}]\n"
    )
    spec = confirmed(tell(search(tmp_path, text), 3.0, 1.0, 2.0, 4.0, 5.0))
    assert list(steps(spec)) == ["base", "trial 2", "trial 3"], "null and T = 20 are the same number of steps"
    assert spec.confirmation is not None
    assert spec.confirmation.numbers["base"] == 1


def test_confirmation_of_replicates_ranks_settings_by_their_means(tmp_path):
    ledger = tell(search(tmp_path, STEPS + FIRST, replicates=2), 3.0, 3.0, 1.0, 4.0, 2.0, 2.0)
    spec = confirmed(ledger)
    assert list(steps(spec)) == ["base", "winner (setting 2)", "setting 1"]


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_confirmation_seeds_are_none_of_the_search_with_any_replicates(tmp_path, seed):
    ledger = tell(search(tmp_path, seed=seed), 5.0, 3.0)
    spec = confirmed(ledger, 1000)
    new = spec.base["training"]["seed"]
    used = {ledger.config(trial).training.seed for trial in ledger.trials() if trial.params}
    assert used == {seed}
    assert not set(range(new, new + 1000)) & set(range(seed, seed + 1000))


def test_confirmation_seeds_end_below_the_largest_seed(tmp_path):
    largest = 2**63 - 1001
    ledger = tell(search(tmp_path, settings=[f"training.seed={largest}"]), 5.0, 3.0)
    assert first_seed(ledger) == largest - 1000


def test_confirmation_of_a_search_over_seeds_takes_settings_without_their_seeds(tmp_path):
    text = (
        "base: digits-quick\nvary: {degradation.steps: {low: 10, high: 60, step: 10}, training.seed: {low: 0, high: 9}}"
        "\nfirst: [{degradation.steps: 30, training.seed: 4}, {degradation.steps: 30, training.seed: 5}]\n"
    )
    ledger = tell(search(tmp_path, text), 5.0, 1.0, 2.0)
    assert steps(confirmed(ledger)) == {"base": 20, "winner (trial 1)": 30}
    assert first_seed(ledger) > 9


def test_confirmation_name_changes_with_the_winner_and_not_with_the_trainings(tmp_path):
    ledger = tell(search(tmp_path), 5.0, 3.0, 2.0)
    before = confirmed(ledger)
    assert before.name.startswith("search-confirm-")
    assert confirmed(ledger, 5).name == before.name
    later = confirmed(tell(ledger, 1.0))
    assert later.name != before.name
    folder = StudyFolder(tmp_path / "home", "search")
    assert list(describe_earlier(folder, later)) == []
    opened(tmp_path, before.name, before, 3)
    (said,) = describe_earlier(folder, later)
    assert said.startswith(f"{before.name} is another confirmation of this search, of its winner (trial 2), then")
    assert list(describe_earlier(folder, before)) == []


def run(
    folder: Path, spec: StudySpec, means: dict[str, float], spread: float = 0.02, effort: Effort | None = None
) -> Ledger:
    """Run a confirmation of 3 trainings whose values lie around `means`."""
    ledger = opened(folder, spec.name, spec, 3)
    while (request := ledger.ask(len(spec.space.variants))) is not None:
        where = folder / f"judgement-{request.number}"
        where.mkdir()
        fid = means[str(request.point["variant"])] + spread * (request.replicate - 1)
        influence = 1e-3 * torch.randn(50, generator=torch.Generator().manual_seed(request.number), dtype=torch.float64)
        Judgement(PROTOCOL, {"fid": Value("fid", fid, 50, PROTOCOL)}, {"fid": influence - influence.mean()}).save(where)
        done = TrialOutcome(
            {"fid": fid, "nfe": 20.0},
            plain(PROTOCOL),
            measured={"sampled": str(where)},
            checkpoint=str(request.number),
            effort=effort or Effort(),
        )
        ledger.complete(request.number, done)
        if len(ledger.trials()) == 3 * len(spec.space.variants) and ledger.is_done(len(spec.space.variants)):
            break
    return ledger


def test_confirmation_tests_the_winner_first_at_the_full_error(tmp_path):
    spec = confirmed(tell(search(tmp_path), 5.0, 3.0, 1.0, 2.0, 4.0))
    ledger = run(tmp_path, spec, {"base": 2.0, "winner (trial 2)": 1.0, "trial 3": 0.9, "trial 1": 2.0})
    sentences = judge_settings(ledger).sentences
    assert sentences[0].startswith("winner (trial 2) is better than base: FID -1")
    assert "adjusted" not in sentences[0], "the winner was fixed before, so it shares its error with nothing"
    assert sentences[1].startswith("trial 3 is better than base")
    assert "adjusted for 2 comparisons" in sentences[1]
    assert spec.confirmation is not None
    assert describe_confirmed(ledger, spec.confirmation) == (
        "The search search chose trial 2. On test, with trainings that chose nothing, it has FID 1.000 ± 0.020 (3 "
        "trainings), its base FID 2.000 ± 0.020 (3 trainings)."
    )


def test_report_of_a_confirmed_search_begins_with_the_confirmation(tmp_path, digits_home):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "data").symlink_to(digits_home / "data")
    ledger = tell(search(tmp_path), 5.0, 3.0, 1.0, 2.0, 4.0)
    folder = StudyFolder(tmp_path / "home", "search")
    spec = confirmed(ledger)
    opened(tmp_path, spec.name, spec, 3)
    content = StudyContent(read_study(folder), folder, folder.start())
    begun = list(describe_answer(content))
    assert begun[0].startswith(f"The study {spec.name} trains the best settings anew and judges them on test: 0 of 4")
    assert re.match(r"Trial 2 \(.+\) has the best FID", begun[1])
    run(tmp_path, spec, {"base": 2.0, "winner (trial 2)": 1.0, "trial 3": 0.9, "trial 1": 2.0})
    ended = list(describe_answer(content))
    assert ended[0].startswith("The search search chose trial 2. On test")
    assert ended[1].startswith("winner (trial 2) is better than base: FID -1")
    assert ended[2] == f"The report of {spec.name} has all settings that were confirmed."
    assert ended[3:] == begun[1:]
    commands = {fact.head: fact.text for fact in list_commands(content)}
    assert "decide" not in commands
    assert spec.name in commands["its confirmation"]


def test_report_of_an_undecided_confirmation_ends_with_the_cost_of_deciding(tmp_path, digits_home):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "data").symlink_to(digits_home / "data")
    ledger = tell(search(tmp_path), 5.0, 3.0, 1.0, 2.0, 4.0)
    folder, spec = StudyFolder(tmp_path / "home", "search"), confirmed(ledger)
    effort = Effort(seconds=30.0)
    run(tmp_path, spec, dict.fromkeys(spec.space.variants, 2.0), spread=0.5, effort=effort)
    content = StudyContent(read_study(folder), folder, folder.start())
    *_, last = describe_answer(content)
    # A further training of the winner and of the base takes 30 s each.
    assert last == (
        f"In {spec.name}, 2 settings are undecided. A further training of each needs 2 trainings, about 60 s of work."
    )


def test_confirmation_of_an_undecided_winner_says_nothing_about_the_others(tmp_path):
    spec = confirmed(tell(search(tmp_path), 5.0, 3.0, 1.0, 2.0, 4.0))
    ledger = run(tmp_path, spec, {"base": 2.0, "winner (trial 2)": 2.0, "trial 3": 0.9, "trial 1": 2.0})
    first, second, *_ = judge_settings(ledger).sentences
    assert first.startswith("winner (trial 2) and base cannot be told apart")
    assert second.startswith("trial 3 and base get no verdict, because winner (trial 2) was tested first")


def test_confirm_check_allows_a_search_with_one_objective(tmp_path):
    spec = search(tmp_path).spec
    for confirm in (0, 3, 1000):
        check_confirm(spec, confirm)
