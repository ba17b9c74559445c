"""The live view: progress, rate, ETA and the best so far, in a terminal and in a log."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from coldtune.stages.trial import parse_trial
from coldtune.studies.progress import terminal
from coldtune.studies.progress.overhead import WallTime
from coldtune.studies.progress.terminal import View
from coldtune.studies.storage.outcome import Rung, StoredStage, TrialOutcome
from coldtune.studies.trials.ledger import TrialRequest


def view(console: Console, **changes) -> View:
    return View(console=console, name="study", total=4, ended=0, metric="fid", minimize=True, **changes)


def asked(number: int, again: bool = False) -> TrialRequest:
    from coldtune import presets

    return TrialRequest(number, {"T": 20, "rate": 0.05}, parse_trial(presets.load("digits-quick")), again)


def training(step: int) -> dict:
    return {"stage": "train", "step": step, "steps": 100, "loss": 0.25, "images_per_s": 800.0}


def at_rung(step: int, kid: float) -> dict:
    stages = (StoredStage("train_50", "k/50", False, 3.0), StoredStage("train_20", "k/20", True, 9.0))
    rung = Rung(step, 100, "kid", {"kid": kid}, stages)
    return {"stage": "rung", "step": step, "steps": 100, "rung": rung.to_json()}


def test_a_trial_that_is_pruned_ends_with_what_it_was_worth() -> None:
    console = Console(file=io.StringIO(), width=200)
    with view(console) as made:
        made.asked(asked(0))
        made.progressed(0, training(50))
        made.progressed(0, {"stage": "sample_50", "step": 50, "steps": 100, "share": 0.5})
        assert made.progress.trials[0].share == 0.45, "judging on the way is no progress"
        assert made.running[0].text == "sampling at step 50 / 100, to be judged there"
        made.progressed(0, at_rung(50, 0.3))
        made.pruned(0, 50)
    assert made.progress.ended == 1
    assert made.best is None
    assert "trial   0  pruned at step 50 of 100: KID 0.3   T 20, rate 0.05" in text_of(console)


def test_what_a_pruned_trial_computed_is_work() -> None:
    spent = WallTime(1, time.monotonic())
    spent.progressed(0, training(50))
    spent.progressed(0, at_rung(50, 0.3))
    spent.pruned(0, 50)
    assert (spent.work, spent.trials) == (3.0, 1), "what was found in the store was not computed"


def test_what_was_not_work_since_the_command_began_is_overhead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two slots for 100 s, in which two trials worked 60 s each, found a stage of 50 s and one failed: 40 %."""
    monkeypatch.setattr(time, "monotonic", lambda: 1100.0)
    spent = WallTime(2, 1000.0)
    for number in (0, 1):
        rows = [("train", "k", False, 55.0), ("sample", "k", True, 50.0), ("measure", "k", False, 5.0)]
        spent.completed(number, TrialOutcome(stages=tuple(StoredStage(*row) for row in rows)))
    spent.failed(2, "boom")
    assert spent.overhead_percent() == pytest.approx(40.0)
    assert "2 trials in 1:40, 2 at once: 60 % training" in str(spent)


def text_of(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_log_gets_a_line_for_what_happens_and_one_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_LOG_SECONDS", 0.0)
    console = Console(file=io.StringIO(), width=200)
    with view(console) as made:
        made.asked(asked(0))
        made.progressed(0, {"stage": "waiting", "step": 0, "steps": 100, "for": "another trial's work"})
        made.tick()
        made.progressed(0, training(50))
        made.tick()
        made.completed(0, TrialOutcome({"fid": 1.5}))
        made.asked(asked(1, again=True))
        made.failed(1, "OSError: [Errno 5] boom\nand more")
    text = text_of(console)
    assert "trial 0 starts: T 20, rate 0.05" in text
    assert "trial 0 waiting for another trial's work" in text
    assert "training     50 / 100  loss 0.2500" in text
    assert "800 images/s" in text
    assert "trial   0  FID 1.5" in text
    assert "trial 1 goes on" in text
    assert "failed: OSError: [Errno 5] boom" in text, "brackets are not markup"
    assert "and more" not in text


def test_a_terminal_is_redrawn_in_place_and_left_clean() -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    with view(console, best=(0.9, 7)) as made:
        made.asked(asked(0))
        made.progressed(0, training(40))
        made._live.refresh()
        text = text_of(console)
    assert "0 of 4 trials, best FID 0.9 (trial 7), 800 images/s" in text
    assert "training     40 / 100" in text
    bar = next(line for line in text.splitlines() if "━" in line and "training" not in line)
    assert "trial" not in bar, "the bar of the whole has a line of its own"


def test_the_best_is_the_smallest_fid_and_the_largest_ssim() -> None:
    console = Console(file=io.StringIO())
    made = view(console)
    for number, fid in enumerate((2.0, 1.0, 3.0)):
        made.asked(asked(number))
        made.completed(number, TrialOutcome({"fid": fid}))
    assert made.best == (1.0, 1)
    made = View(console=console, name="s", total=4, ended=0, metric="ssim", minimize=False)
    for number, ssim in enumerate((0.2, 0.9, 0.5)):
        made.asked(asked(number))
        made.completed(number, TrialOutcome({"ssim": ssim}))
    assert made.best == (0.9, 1)


def test_the_eta_counts_only_what_this_run_did(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    made = view(Console(file=io.StringIO()))
    made.asked(asked(0, again=True))
    made.progressed(0, training(50))  # half of it was done before
    clock[0] = 10.0
    made.progressed(0, training(100))
    # 10 s for .45 of a trial; .1 of this one and three whole ones are left.
    assert made.progress.seconds_left() == pytest.approx(10 * 3.1 / 0.45)


def test_the_eta_of_trials_that_find_their_training_counts_them_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    made = view(Console(file=io.StringIO()))
    for number in (0, 1):
        made.asked(asked(number))
        made.progressed(number, {"stage": "sample", "step": 100, "steps": 100, "share": 0.0})
        clock[0] += 5.0
        made.completed(number, TrialOutcome({"fid": 1.0}))
    # Two trials of four in 10 s; those to come may find theirs too.
    assert made.progress.seconds_left() == pytest.approx(10.0)


def test_a_resumed_study_with_nothing_reported_has_no_eta(tmp_path: Path) -> None:
    made = view(Console(file=io.StringIO()))
    made.asked(asked(0))
    assert made.progress.seconds_left() is None
