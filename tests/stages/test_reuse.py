"""The division of a trial's work into its own and that of others: sums that can be done by hand."""

from __future__ import annotations

from coldtune.stages.reuse import Reuse, StageRecord, describe_saved_work

ME, OTHER = "study/3", "study/0"


def test_reuse_found_stages_save_their_seconds() -> None:
    records = [
        StageRecord("train", "k/300", True, 13.0, by=OTHER),
        StageRecord("sample_direct", "a", True, 0.5, by=OTHER),
        StageRecord("sample", "b", False, 2.0),
        StageRecord("measure", "c", False, 1.0),
    ]
    reuse = Reuse.of(records)
    assert reuse.own == {"sample": 2.0, "measure": 1.0}
    assert reuse.found == {"train": 1, "sample": 1}
    assert (reuse.saved, reuse.before) == (13.5, 0.0)
    assert reuse.describe() == "training found; sampling 2.0 s (1 found); measurement 1.0 s. Saved: 13.5 s."


def test_reuse_training_from_a_checkpoint_of_others_saves_the_part_before_it() -> None:
    reuse = Reuse.of([StageRecord("train", "k/400", False, 5.0, earlier=13.0, by=OTHER)])
    assert (reuse.own, reuse.found, reuse.saved) == ({"train": 5.0}, {}, 13.0)


def test_reuse_own_work_of_a_resumed_trial_saves_nothing() -> None:
    records = [
        StageRecord("train", "k/300", False, 5.0, earlier=8.0, by=ME),
        StageRecord("sample_direct", "a", True, 0.5, by=ME),
        StageRecord("sample_naive", "a", True, 0.25, by=OTHER),
    ]
    reuse = Reuse.of(records, me=ME)
    assert reuse.own == {"train": 13.0, "sample": 0.5}
    assert (reuse.found, reuse.saved, reuse.before) == ({"sample": 1}, 0.25, 8.5)
    assert Reuse.of(records).saved == 8.75, "a trial that was not interrupted counts everything that it found"


def test_reuse_rungs_count_as_parts_of_their_stage() -> None:
    records = [
        StageRecord("train_100", "k/100", True, 4.0, by=OTHER),
        StageRecord("train", "k/300", False, 9.0),
        StageRecord("measure_100", "m", False, 0.5),
    ]
    reuse = Reuse.of(records)
    assert (reuse.own, reuse.found, reuse.saved) == ({"train": 9.0, "measure": 0.5}, {"train": 1}, 4.0)


def test_describe_saved_work_adds_up_all_trials() -> None:
    trials = [({"train": 1, "sample": 3}, 40.4), ({"train": 1}, 20.0), ({}, 0.0)]
    sentence = "Found in the store, not done again: 2 trainings, 3 samplings, 0:01:00 of work"
    assert describe_saved_work(trials) == sentence
    assert describe_saved_work([({}, 0.0), ({}, 0.0)]) == ""
    assert describe_saved_work([({}, 9.0)]).endswith("parts of trainings, 0:00:09 of work")
