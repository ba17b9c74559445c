"""Races in a study: which trainings are asked, killed races, failures, several drivers, and what is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coldtune.studies.designs.effect_report import report_effects
from coldtune.studies.drivers.sole import SoleDriver
from coldtune.studies.progress.table import build_table, setting_rows
from coldtune.studies.progress.verdicts import judge_settings
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.record import write_study
from coldtune.studies.trials.ledger import Ledger, TrialRequest, open_ledger
from coldtune.studies.trials.retrying import retry_failed
from judged_trials import outcome, run

RACE = (
    "base: digits-quick\nvariants: {a: {}, b: {training.lr: 2.0e-3}, c: {training.lr: 3.0e-3}}\n"
    "replicates: {first: 2, most: 6}\n"
)
LUCK = [0.0, 0.2, 0.1, 0.3, 0.05, 0.15]
MEANS = {"a": 1.0, "b": 1.02, "c": 30.0}

Open = Callable[..., Ledger]


@pytest.fixture
def open_race(tmp_path: Path) -> Open:
    def opened(text: str = RACE, folder: Path = tmp_path) -> Ledger:
        (folder / "space.yaml").write_text(text)
        spec = build_spec("job", folder / "space.yaml")
        space = Space(spec.space, spec.base, (1, 16, 16))
        made = open_ledger("study", spec, space, open_storage(folder), replicates=spec.replicates)
        write_study(made.study, replicates=[spec.replicates])
        return made

    return opened


def fid_of(asked: TrialRequest) -> float:
    return MEANS[asked.point["variant"]] + LUCK[(asked.replicate + asked.setting) % len(LUCK)]


def counts(made: Ledger) -> dict[str, int]:
    return {str(setting.point["variant"]): len(setting.finished) for setting in made.settings()}


def test_race_drops_the_far_worse_setting_and_goes_to_most_with_the_others(open_race: Open, tmp_path: Path) -> None:
    made = open_race()
    names = run(made, tmp_path / "judged", fid_of)
    assert names[:9] == ["0", "1", "2", "0.1", "1.1", "2.1", "0.2", "1.2", "2.2"]
    left = counts(made)
    assert left["a"] == left["b"] == 6
    assert 3 <= left["c"] <= 4
    assert made.is_done(3)
    assert made.finished() == 3
    assert made.trainings(3) == made.ended() == sum(left.values())
    assert made.best_setting().number in (0, 1)
    assert made.ask(3) is None
    assert len(made.trials()) == sum(left.values()), "nothing waits that the race does not want"


def test_race_resumed_at_any_point_asks_the_same_trainings(open_race: Open, tmp_path: Path) -> None:
    whole = run(open_race(), tmp_path / "judged", fid_of)
    for stop in (4, 9):
        folder = tmp_path / str(stop)
        folder.mkdir()
        before = run(open_race(folder=folder), folder / "judged", fid_of, most=stop)
        killed = open_race(folder=folder)
        asked = killed.ask(3)
        assert asked is not None
        assert before == whole[:stop]
        resumed = open_race(folder=folder)
        assert resumed.interrupted() == [asked.number]
        assert [*before, *run(resumed, folder / "judged", fid_of)] == whole


def test_race_looks_do_not_count_how_often_it_is_shown(open_race: Open, tmp_path: Path) -> None:
    made, names = open_race(), []
    while made.wanted(3) > 0:
        names += run(made, tmp_path / "judged", fid_of, most=4)
        judge_settings(made)
        judge_settings(open_race())
    other = tmp_path / "other"
    other.mkdir()
    assert names == run(open_race(folder=other), other / "judged", fid_of)


def test_race_with_several_trials_at_once_trains_the_same_settings(open_race: Open, tmp_path: Path) -> None:
    one = open_race()
    run(one, tmp_path / "judged", fid_of)
    other = tmp_path / "other"
    other.mkdir()
    made = open_race(folder=other)
    running: list[TrialRequest] = []
    while made.wanted(3) > 0 or running:
        if made.wanted(3) > 0 and (asked := made.ask(3)) is not None:
            running.append(asked)
            continue
        done = running.pop()
        made.complete(done.number, outcome(fid_of(done), other / "judged" / done.label, done.number))
    assert counts(made) == counts(one)


def test_race_failed_training_is_replaced_by_the_next_seed(open_race: Open, tmp_path: Path) -> None:
    made = open_race()
    while made.wanted(3) > 0:
        asked = made.ask(3)
        assert asked is not None
        if asked.label == "1.1":
            made.fail(asked.number, "RuntimeError: boom")
        else:
            made.complete(asked.number, outcome(fid_of(asked), tmp_path / "judged" / asked.label, asked.number))
    assert counts(made) == {"a": 5, "b": 5, "c": 3}, "the last look needs six trainings of both"
    assert max(made.settings()[1].trials) == 5, "no setting has more than six trainings, failed ones included"
    assert "failed trainings included" in judge_settings(made).sentences[-1]
    again = open_race()
    assert [again.label(trial.number) for trial in retry_failed(again, whatever_failed=True)] == ["1.1"]
    assert run(again, tmp_path / "again", fid_of) == ["1.1", "0.5"]
    assert counts(again) == {"a": 6, "b": 6, "c": 3}


def test_race_goes_on_without_a_setting_whose_trainings_fail(open_race: Open, tmp_path: Path) -> None:
    made = open_race(RACE.replace("c: {", "d: {restorer.size: tiny}, c: {"))
    while made.wanted(4) > 0:
        asked = made.ask(4)
        assert asked is not None
        if asked.point["variant"] == "d" and asked.replicate:
            made.fail(asked.number, "RuntimeError: boom")
            continue
        fid = 1.0 if asked.point["variant"] == "d" else fid_of(asked)
        made.complete(asked.number, outcome(fid, tmp_path / "judged" / asked.label, asked.number))
    assert counts(made) == {"a": 6, "b": 6, "d": 1, "c": 3}
    assert made.is_done(4)
    assert {row.params["variant"]: row.state for row in setting_rows(made)} == {
        "a": "undecided (6 of 6)",
        "b": "undecided (6 of 6)",
        "d": "undecided (1 of 6)",
        "c": "decided (3 of 6)",
    }


def test_race_whose_base_fails_ends_without_verdict(open_race: Open, tmp_path: Path) -> None:
    made = open_race()
    while made.wanted(3) > 0:
        asked = made.ask(3)
        assert asked is not None
        if asked.setting == 0:
            made.fail(asked.number, "RuntimeError: boom")
        else:
            made.complete(asked.number, outcome(fid_of(asked), tmp_path / "judged" / asked.label, asked.number))
    assert counts(made)["b"] <= 4, "b is better than c, and nothing else can be decided"
    rows = {row.number: row.state for row in setting_rows(made)}
    assert rows[0] == "failed (1 of 6)"
    assert rows[1].startswith("decided")
    assert "every comparison of settings with a mean is decided" in judge_settings(made).sentences[-1]


def test_race_of_two_drivers_asks_each_training_once(open_race: Open, tmp_path: Path) -> None:
    first, second = open_race(), open_race()
    names = []
    while first.wanted(3) > 0 or second.wanted(3) > 0:
        for driver in (first, second):
            if driver.wanted(3) > 0 and (asked := driver.ask(3)) is not None:
                names.append(asked.label)
                driver.complete(asked.number, outcome(fid_of(asked), tmp_path / "judged" / asked.label, asked.number))
    assert len(names) == len(set(names))
    other = tmp_path / "other"
    other.mkdir()
    assert sorted(names) == sorted(run(open_race(folder=other), other / "judged", fid_of))


def test_race_tells_what_is_decided_and_why_it_stopped(open_race: Open, tmp_path: Path) -> None:
    made = open_race()
    run(made, tmp_path / "judged", fid_of, most=8)
    early = judge_settings(made).sentences
    assert early == [
        "b and a: 3 of up to 6 trainings, not decided yet.",
        "c and a: 2 of up to 6 trainings, not decided yet.",
        "The race goes on after 8 of at most 18 trainings. Not decided yet: a, b, c.",
    ]
    assert [row.state for row in setting_rows(made)] == ["3 of up to 6 trainings"] * 2 + ["2 of up to 6 trainings"]

    run(made, tmp_path / "judged", fid_of, most=5)
    middle = judge_settings(made)
    assert any("c is worse than a: FID" in text for text in middle.sentences)
    undecided = [text for text in middle.sentences if text.startswith("b and a")]
    assert undecided[0].endswith("of up to 6 trainings, not decided yet.")
    assert any("Still in the race for the best:" in text for text in middle.sentences)
    assert middle.rivals == []
    states = [row.state for row in setting_rows(made)]
    assert states[2].startswith("decided (")
    assert states[0].endswith("of up to 6 trainings")

    run(made, tmp_path / "judged", fid_of)
    end = judge_settings(made)
    assert any("b and a cannot be told apart" in text for text in end.sentences)
    assert any("Worse than the best setting: c after" in text for text in end.sentences)
    assert end.sentences[-1].endswith("because no setting gets more than 6 trainings. Not decided: a, b.")
    assert sorted(end.rivals) == [0, 1]
    assert [row.state.split(" (")[0] for row in setting_rows(made)] == ["undecided", "undecided", "decided"]
    text = str(build_table(made).files["table.md"])
    assert "undecided (6 of 6)" in text
    assert end.sentences[-1] in text


def test_race_with_a_clear_winner_ends_early_and_names_it(open_race: Open, tmp_path: Path) -> None:
    means = {"a": 5.0, "b": 1.0, "c": 30.0}
    made = open_race()
    run(made, tmp_path / "judged", lambda asked: means[asked.point["variant"]] + LUCK[asked.replicate] / 10)
    assert max(counts(made).values()) < 6
    said = judge_settings(made)
    assert said.rivals == [1]
    assert "b is better than every other setting that has a mean." in said.sentences
    assert said.sentences[-1].endswith("because every comparison of settings with a mean is decided.")
    assert made.best_setting().number == 1


def test_race_without_its_judgements_stops_and_says_so(open_race: Open, tmp_path: Path) -> None:
    run(open_race(), tmp_path / "judged", fid_of, most=7)
    shutil.rmtree(tmp_path / "judged" / "1")
    made = open_race()
    with pytest.raises((ValueError, OSError), match="judged/1"):
        made.wanted(3)
    assert "The race cannot be judged" in judge_settings(made).sentences[0]
    assert setting_rows(made)[0].state == "3 of up to 6 trainings"


def test_race_of_a_grid_is_decided_like_variants(open_race: Open, tmp_path: Path) -> None:
    grid = (
        "base: digits-quick\nvary: {sampler.num_steps: {choices: [null, 2, 3]}}\nsearch: {algorithm: grid}\n"
        "replicates: {first: 3, most: 5}\n"
    )
    made = open_race(grid)
    names = run(made, tmp_path / "judged", lambda asked: 10.0 * asked.setting + LUCK[asked.replicate])
    assert len([name for name in names if "." not in name]) == 3
    assert all(3 <= len(setting.finished) <= 5 for setting in made.settings())
    assert any(text.startswith("Setting 1 is worse than setting 0") for text in judge_settings(made).sentences)


def test_race_of_a_design_has_effects_without_intervals(open_race: Open, tmp_path: Path) -> None:
    """The race stops by the comparisons of arms, so an interval of an effect would be too narrow."""
    design = "base: digits-quick\ndesign: {kind: one_factor}\nfactors: {training.loss: [l1, l2]}\n"
    made = open_race(design + "replicates: {first: 2, most: 4}\n")
    loss = {"l1": 1.0, "l2": 1.1}
    run(made, tmp_path / "judged", lambda asked: loss[asked.config.training.loss] + LUCK[asked.replicate], trials=2)
    report = report_effects(made)
    assert report is not None
    (row,) = report.rows
    assert row.difference is not None
    assert row.interval is None
    assert "replicates: 4" in report.notes[-1]


class Follower(SoleDriver):
    """The lease of a driver that another driver leads."""

    def leads(self) -> bool:
        return False


def test_race_driver_that_does_not_lead_waits_for_the_next_look(open_race: Open, tmp_path: Path) -> None:
    """Only the leading driver enqueues the trainings of a look. The other driver must not leave the study meanwhile."""
    leader = open_race()
    run(leader, tmp_path / "judged", fid_of, most=6)
    spec = leader.spec
    other = open_ledger("study", spec, leader.space, open_storage(tmp_path), lease=Follower(), replicates=6)
    assert other.wanted(3) == 0
    assert other.goes_on(3)
    assert leader.wanted(3) == 3
    asked = leader.ask(3)
    assert asked is not None
    assert other.wanted(3) == 2, "the leader has enqueued the look"
    leader.complete(asked.number, outcome(fid_of(asked), tmp_path / "judged" / asked.label, asked.number))
    run(leader, tmp_path / "judged", fid_of)
    assert not other.goes_on(3)
