"""The records of a study and its trials: the attributes that earlier versions stored, and defaults for missing ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from coldtune.studies.storage.outcome import Effort, Rung, StoredStage, TrialOutcome
from coldtune.studies.storage.record import (
    Decision,
    Origin,
    StoppedTraining,
    StudyRecord,
    TestResult,
    TrialRecord,
    attributes_of_import,
    imported,
    promoted_from,
    write_decisions,
    write_outcome,
    write_pruned,
    write_rung,
    write_study,
)

PROTOCOL = {
    "extractor": "digits", "extractor_sha256": "0" * 64, "extractor_input": "bilinear antialias to 16x16", "dim": 64,
    "dataset": "digits", "dataset_fingerprint": "1" * 64, "image_shape": [1, 16, 16], "resize": "bilinear",
    "split": "validation", "task": "restored", "num_images": 363, "reference_images": 363, "seed": 0,
    "rounding": "uint8, to nearest", "moments": "float64, n - 1", "tf32": False, "version": 1,
}  # fmt: skip
# The user attributes of a completed trial, in the form and order in which they are found in journals.
COMPLETED = {
    "metrics": {"fid": 0.71, "ssim": 0.91, "fid_degraded": 147.1},
    "protocol": PROTOCOL,
    "stages": [["train", "ab/300", False, 15.1], ["measure_degraded", "cd", True, 0.2]],
    "images": {"degraded": "/store/sample/d7", "sampled": "/store/sample/5f"},
    "measured": {"degraded": "/store/measure/26", "sampled": "/store/measure/6f"},
    "checkpoint": "/store/train/ab/00000300",
    "rungs": {"100": {"kid": 0.5, "nfe": 20.0}},
    "found": {"measure": 1},
    "trained": None,
    "saved": 0.25,
    "seconds": 21.3,
}
OUTCOME = TrialOutcome(
    metrics={"fid": 0.71, "ssim": 0.91, "fid_degraded": 147.1},
    protocol=PROTOCOL,
    stages=(StoredStage("train", "ab/300", False, 15.1), StoredStage("measure_degraded", "cd", True, 0.2)),
    images={"degraded": "/store/sample/d7", "sampled": "/store/sample/5f"},
    measured={"degraded": "/store/measure/26", "sampled": "/store/measure/6f"},
    checkpoint="/store/train/ab/00000300",
    rungs={100: {"kid": 0.5, "nfe": 20.0}},
    effort=Effort(found={"measure": 1}, trained=None, saved=0.25, seconds=21.3),
)
RUNG = Rung(100, 400, "kid", {"kid": 0.5}, (StoredStage("train_100", "ab/100", False, 2.0),), Effort(seconds=3.0), 2.0)


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def trial_with(**attributes: Any) -> FrozenTrial:
    return create_trial(state=TrialState.RUNNING, user_attrs=attributes)


def test_trial_record_of_a_completed_trial_has_all_fields() -> None:
    record = TrialRecord.of(trial_with(**COMPLETED))
    for name in ("metrics", "protocol", "stages", "images", "measured", "checkpoint", "rungs", "effort"):
        assert getattr(record, name) == getattr(OUTCOME, name), name
    assert record.judged_under.num_images == 363
    assert record.stages[0].key == "ab/300"


def test_trial_record_without_attributes_has_defaults() -> None:
    record = TrialRecord.of(trial_with())
    assert record == TrialRecord()
    assert (record.metrics, record.stages, record.rungs, record.reason) == ({}, (), {}, "")
    assert record.judged_under is None
    assert record.effort == Effort(found={}, trained=None, saved=None, seconds=None)


def test_trial_outcome_is_stored_as_before(study: optuna.Study) -> None:
    write_outcome(study.ask(), OUTCOME)
    stored = study.trials[0].user_attrs
    assert stored == COMPLETED
    assert list(stored) == list(COMPLETED)


def test_trial_outcome_stores_how_and_where_it_was_computed(study: optuna.Study) -> None:
    computed, environment = {"device": "cpu", "threads": 1}, {"torch": "2.15.0", "software": "abc"}
    trial = study.ask()
    write_outcome(trial, replace(OUTCOME, computed=computed, environment=environment))
    assert study.trials[0].user_attrs == {**COMPLETED, "computed": computed, "environment": environment}
    record = TrialRecord.of(study.trials[0])
    assert (record.computed, record.environment) == (computed, environment)


def test_trial_outcome_returns_from_json_unchanged() -> None:
    assert TrialOutcome.from_json(OUTCOME.to_json()) == OUTCOME


def test_trial_outcome_with_further_draws_returns_from_json_and_from_the_storage(study: optuna.Study) -> None:
    drawn = replace(OUTCOME, draws={1: {"fid": 0.7}, 2: {"fid": 0.75}})
    assert TrialOutcome.from_json(drawn.to_json()) == drawn
    write_outcome(study.ask(), drawn)
    assert TrialRecord.of(study.trials[0]).draws == drawn.draws


def test_rung_returns_from_json_unchanged() -> None:
    assert Rung.from_json(RUNG.to_json()) == RUNG


def test_pruned_trial_is_stored_as_before(study: optuna.Study) -> None:
    trial = study.ask()
    write_rung(trial, RUNG)
    write_decisions(trial, {100: Decision(True, {"completed_rung_0": 0.5})})
    write_pruned(trial, RUNG)
    assert study.trials[0].user_attrs == {
        "rungs": {"100": {"kid": 0.5}},
        "stages": [["train_100", "ab/100", False, 2.0]],
        "pruning": {"100": {"prune": True, "notes": {"completed_rung_0": 0.5}}},
        "reason": "at step 100 of 400: KID 0.5",
        "found": {},
        "trained": None,
        "saved": None,
        "seconds": 3.0,
        "training": {"step": 100, "steps": 400, "seconds": 2.0},
    }
    record = TrialRecord.of(study.trials[0])
    assert record.training == StoppedTraining(step=100, steps=400, seconds=2.0)
    assert record.decisions == {100: Decision(True, {"completed_rung_0": 0.5})}
    assert record.rungs == {100: {"kid": 0.5}}


def test_later_rung_keeps_the_values_of_earlier_rungs(study: optuna.Study) -> None:
    trial = study.ask()
    write_rung(trial, RUNG)
    write_rung(trial, Rung(200, 400, "kid", {"kid": 0.25}))
    assert study.trials[0].user_attrs["rungs"] == {"100": {"kid": 0.5}, "200": {"kid": 0.25}}


def test_promoted_and_imported_trials_are_recognised() -> None:
    promoted = trial_with(promoted_from=7)
    copied = trial_with(imported_from={"study": "wide", "trial": 3})
    assert (promoted_from(promoted), promoted_from(copied)) == (7, None)
    assert TrialRecord.of(promoted).promoted_from == 7
    assert TrialRecord.of(copied).imported_from == Origin("wide", 3)
    assert imported([promoted, copied]) == [copied]


@pytest.mark.parametrize("comparable", [True, False])
def test_import_keeps_the_measurement_and_drops_the_savings(comparable: bool) -> None:
    kept = attributes_of_import(trial_with(**COMPLETED, why="the base"), "wide", comparable_rungs=comparable)
    assert kept.pop("imported_from") == {"study": "wide", "trial": -1}
    dropped = {"found", "saved"} if comparable else {"found", "saved", "rungs"}
    assert kept == {key: value for key, value in COMPLETED.items() if key not in dropped}


def test_import_of_an_imported_trial_keeps_its_first_origin() -> None:
    origin = {"study": "first", "trial": 1}
    assert attributes_of_import(trial_with(imported_from=origin), "second", True) == {"imported_from": origin}


def test_study_record_is_stored_as_before(study: optuna.Study) -> None:
    assert StudyRecord.of(study) == StudyRecord()
    write_study(study, spec={"job": "s", "base": {"b": 1, "a": 2}}, fingerprint="f")
    write_study(study, imported={"wide": "1 of 2 trials fit"}, ready=True)
    write_study(study, trials=12, test=TestResult(3, {"fid": 0.5}, PROTOCOL))
    assert study.user_attrs == {
        "spec": '{"job": "s", "base": {"b": 1, "a": 2}}',
        "fingerprint": "f",
        "imported": {"wide": "1 of 2 trials fit"},
        "ready": True,
        "trials": 12,
        "test": {"trial": 3, "metrics": {"fid": 0.5}, "protocol": PROTOCOL, "each": {}},
    }
    record = StudyRecord.of(study)
    assert list(record.spec["base"]) == ["b", "a"], "a space is walked in the order of its file"
    assert record.test.judged_under.split == "validation"
    assert (record.ready, record.trials, record.imported) == (True, 12, {"wide": "1 of 2 trials fit"})
