"""Asking failed trials again: their numbers, their place in a list of points, and what counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from coldtune.config import plain
from coldtune.metrics.protocol import Protocol
from coldtune.studies.progress.table import build_table
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.storage.record import TrialRecord, retry_of
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.trials.promotion import promote
from coldtune.studies.trials.retrying import failed_by_machine, retry_failed

PROTOCOL = plain(
    Protocol(
        extractor="digits", extractor_sha256="4c", extractor_input="16x16", dim=64, dataset="digits",
        dataset_fingerprint="1d", image_shape=(1, 16, 16), resize="bilinear", split="validation", num_images=363,
        reference_images=363, seed=0,
    )
)  # fmt: skip
FULL = "OSError: [Errno 28] No space left on device"
GRID = """
base: digits-quick
vary:
  sampler.num_steps: {choices: [null, 2, 3, 5]}
"""
VARIANTS = """
base: digits-quick
variants:
  slow: {degradation.steps: 30}
  fast: {degradation.steps: 10}
  direct: {sampler.algorithm: direct}
"""


def make_ledger(folder: Path, space: str, *settings: str) -> Ledger:
    (folder / "space.yaml").write_text(space)
    spec: StudySpec = build_spec("study", folder / "space.yaml", settings=list(settings))
    return open_ledger("study", spec, Space(spec.space, spec.base, (1, 16, 16)), open_storage(folder))


def complete(ledger: Ledger, number: int) -> None:
    ledger.complete(number, TrialOutcome({"fid": 1.0 + number, "ssim": 0.5}, PROTOCOL))


def run(ledger: Ledger, trials: int, failing: dict[int, str]) -> list[int]:
    """Ask and end trials until `trials` have ended, and return the numbers that were asked."""
    asked = []
    while ledger.wanted(trials) > 0 and (request := ledger.ask(trials)) is not None:
        asked.append(request.number)
        if request.number in failing:
            ledger.fail(request.number, failing[request.number])
        else:
            complete(ledger, request.number)
    return asked


@pytest.mark.parametrize(("space", "settings"), [(GRID, ["search.algorithm=grid"]), (VARIANTS, [])])
def test_retry_failed_cell_of_a_list_completes_the_list(tmp_path: Path, space: str, settings: list[str]) -> None:
    ledger = make_ledger(tmp_path, space, *settings)
    points = ledger.points
    assert points is not None
    assert run(ledger, points, {1: FULL}) == list(range(points))
    again = make_ledger(tmp_path, space, *settings)
    assert [trial.number for trial in retry_failed(again, False)] == [1]
    assert again.max_trials() == points
    assert again.finished() == points - 1
    assert run(again, points, {}) == [points]
    new, failed = again.trials()[points], again.trials()[1]
    assert new.params == failed.params
    assert (new.state, failed.state) == (TrialState.COMPLETE, TrialState.FAIL)
    complete_points = {tuple(t.params.items()) for t in again.trials() if t.state == TrialState.COMPLETE}
    assert len(complete_points) == points
    assert again.finished() == points
    assert again.failed() == []


def test_retry_failed_only_trials_of_the_machine_unless_all_are_asked(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, GRID)
    run(ledger, 4, {0: FULL, 2: "DivergedError: the loss is nan"})
    assert [trial.number for trial in ledger.failed()] == [0, 2]
    assert [failed_by_machine(trial) for trial in ledger.failed()] == [True, False]
    assert [trial.number for trial in retry_failed(ledger, False)] == [0]
    assert retry_failed(ledger, False) == [], "a trial is asked again once"
    assert [trial.number for trial in ledger.failed()] == [2]
    assert [trial.number for trial in retry_failed(ledger, True)] == [2]
    assert ledger.retried() == {0: 4, 2: 5}
    assert run(ledger, 4, {5: "DivergedError: the loss is nan"}) == [4, 5]
    assert [trial.number for trial in retry_failed(ledger, True)] == [5], "a retry that failed is asked again, too"
    assert run(ledger, 4, {}) == [6]
    assert ledger.finished() == 4


def test_retry_failed_before_a_longer_search_counts_neither_twice_nor_short(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, "base: digits-quick\nvary:\n  training.lr: {low: 0.0001, high: 0.01, log: true}\n")
    run(ledger, 3, {1: FULL})
    retry_failed(ledger, False)
    assert run(ledger, 5, {}) == [3, 4, 5]
    assert ledger.finished() == 5
    assert sum(trial.state == TrialState.COMPLETE for trial in ledger.trials()) == 5
    assert ledger.trials()[3].params == ledger.trials()[1].params
    assert ledger.trials()[4].params != ledger.trials()[1].params


def test_retry_failed_of_a_promoted_trial_is_not_pruned_and_takes_no_new_place(tmp_path: Path) -> None:
    settings = ["training.steps=80", "rungs.steps=[40]", "pruning.kind=median", "search.algorithm=grid"]
    ledger = make_ledger(tmp_path, GRID, *settings)
    ledger.prune(ledger.ask().number, Rung(40, 80, "kid", {"kid": 0.5}))
    number = promote(ledger, 0)
    assert ledger.ask().number == number
    ledger.fail(number, FULL)
    assert ledger.max_trials() == 5
    retry_failed(ledger, False)
    request = ledger.ask()
    assert request is not None
    assert request.promoted_from == 0
    assert retry_of(ledger.trials()[request.number]) == number
    assert ledger.max_trials() == 5


def test_table_failed_trial_names_the_trial_in_its_place(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, GRID)
    run(ledger, 2, {1: "DivergedError: the loss is nan"})
    retry_failed(ledger, True)
    run(ledger, 2, {})
    text = build_table(ledger).files["table.md"]
    assert "asked again as trial 2" in text
    assert "trial 1 again" in text


def test_promote_failed_trial_says_how_it_is_asked_again(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, GRID)
    run(ledger, 2, {1: "DivergedError: the loss is nan"})
    with pytest.raises(
        ValueError,
        match=r"^trial 1: failed \(DivergedError: .*`coldtune study resume STUDY --retry-failed` asks it again",
    ):
        promote(ledger, 1)
    retry_failed(ledger, True)
    with pytest.raises(ValueError, match="asked again already, as trial 2"):
        promote(ledger, 1)


def test_ledger_trial_whose_end_cannot_be_stored_stays_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make_ledger(tmp_path, GRID)
    request = ledger.ask()
    assert request is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("coldtune.studies.storage.journal.Journal.append_logs", full)
        with pytest.raises(OSError, match="No space"):
            complete(ledger, request.number)
    assert ledger.running() == [request.number]
    resumed = make_ledger(tmp_path, GRID)
    again = resumed.ask()
    assert again is not None
    assert (again.number, again.again) == (request.number, True)
    complete(resumed, again.number)
    assert TrialRecord.of(resumed.trials()[0]).metrics["fid"] == 1.0
