"""What a trial did itself and what it found: sums that can be done by hand."""

from __future__ import annotations

from coldtune.stages.chain import StageRecord
from coldtune.stages.reuse import saved, share

ME, OTHER = "study/3", "study/0"


def test_what_was_found_saves_its_seconds() -> None:
    records = [
        StageRecord("train", "k/300", True, 13.0, by=OTHER),
        StageRecord("sample_direct", "a", True, 0.5, by=OTHER),
        StageRecord("sample", "b", False, 2.0),
        StageRecord("measure", "c", False, 1.0),
    ]
    parts = share(records)
    assert parts.own == {"sample": 2.0, "measure": 1.0}
    assert parts.found == {"train": 1, "sample": 1}
    assert (parts.saved, parts.before) == (13.5, 0.0)
    assert parts.describe() == "training found; sampling 2.0 s (1 found); measurement 1.0 s. Saved: 13.5 s."


def test_a_training_that_goes_on_from_anothers_checkpoint_is_saved_that_part() -> None:
    parts = share([StageRecord("train", "k/400", False, 5.0, earlier=13.0, by=OTHER)])
    assert (parts.own, parts.found, parts.saved) == ({"train": 5.0}, {}, 13.0)


def test_its_own_work_taken_up_again_saves_nothing_and_counts_as_its_own() -> None:
    records = [
        StageRecord("train", "k/300", False, 5.0, earlier=8.0, by=ME),
        StageRecord("sample_direct", "a", True, 0.5, by=ME),
        StageRecord("sample_naive", "a", True, 0.25, by=OTHER),
    ]
    parts = share(records, me=ME)
    assert parts.own == {"train": 13.0, "sample": 0.5}
    assert (parts.found, parts.saved, parts.before) == ({"sample": 1}, 0.25, 8.5)
    assert share(records).saved == 8.75, "the first time, all that is found counts, whoever made it"


def test_rungs_are_parts_of_the_stage() -> None:
    records = [
        StageRecord("train_100", "k/100", True, 4.0, by=OTHER),
        StageRecord("train", "k/300", False, 9.0),
        StageRecord("measure_100", "m", False, 0.5),
    ]
    parts = share(records)
    assert (parts.own, parts.found, parts.saved) == ({"train": 9.0, "measure": 0.5}, {"train": 1}, 4.0)


def test_the_sentence_adds_up() -> None:
    trials = [({"train": 1, "sample": 3}, 40.4), ({"train": 1}, 20.0), ({}, 0.0)]
    assert saved(trials) == "Found in the store, not done again: 2 trainings, 3 samplings, 0:01:00 of work"
    assert saved([({}, 0.0), ({}, 0.0)]) == ""
    assert saved([({}, 9.0)]).endswith("parts of trainings, 0:00:09 of work")
