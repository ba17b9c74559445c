"""The progress of a run on the screen: stages, rate, ETA and the best trial, in a terminal and in a log."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from coldtune import presets
from coldtune.stages.trial import parse_trial
from coldtune.studies.progress import terminal
from coldtune.studies.progress.terminal import Best, View
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.trials.ledger import TrialRequest


def make_view(console: Console | None = None, **changes) -> View:
    options = {"name": "study", "total": 4, "ended": 0, "metric": "fid", "minimize": True, **changes}
    return View(console=console or Console(file=io.StringIO()), **options)


def request(number: int, again: bool = False) -> TrialRequest:
    return TrialRequest(number, {"T": 20, "rate": 0.05}, parse_trial(presets.load("digits-quick")), again)


def training_report(step: int) -> dict:
    return {"stage": "train", "step": step, "steps": 100, "loss": 0.25, "images_per_s": 800.0}


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_view_pruned_trial_shows_its_value_at_the_rung() -> None:
    console = Console(file=io.StringIO(), width=200)
    with make_view(console) as view:
        view.asked(request(0))
        view.progressed(0, training_report(50))
        view.progressed(0, {"stage": "sample_50", "step": 50, "steps": 100, "share": 0.5})
        assert view.progress.trials[0].share == 0.45, "sampling at a rung is no progress"
        assert view.running[0].text == "sampling at step 50 / 100, to be judged there"
        rung = Rung(50, 100, "kid", {"kid": 0.3})
        view.progressed(0, {"stage": "rung", "step": 50, "steps": 100, "rung": rung.to_json()})
        view.pruned(0, 50)
    assert view.progress.ended == 1
    assert view.best is None
    assert "trial   0  pruned at step 50 of 100: KID 0.3   T 20, rate 0.05" in printed(console)


def test_view_wait_ends_shows_what_went_on_before() -> None:
    waiting = {"stage": "waiting", "step": 0, "steps": 100, "for": "another trial's work"}
    with make_view(Console(file=io.StringIO(), width=200)) as view:
        view.asked(request(0))
        view.progressed(0, training_report(50))
        for _ in range(2):
            view.progressed(0, waiting)
            assert view.running[0].text == "waiting for another trial's work"
        view.progressed(0, {"stage": "resumed", "step": 0, "steps": 100})
        assert view.running[0].text.startswith("training     50 / 100")
        view.progressed(0, waiting)
        view.progressed(0, {"stage": "sample", "step": 100, "steps": 100, "share": 0.0})
        assert view.running[0].text == "sampling and measuring"


def test_view_log_has_a_line_for_each_event_and_for_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_LOG_S", 0.0)
    console = Console(file=io.StringIO(), width=200)
    with make_view(console) as view:
        view.asked(request(0))
        view.progressed(0, {"stage": "waiting", "step": 0, "steps": 100, "for": "another trial's work"})
        view.tick()
        view.progressed(0, training_report(50))
        view.tick()
        view.completed(0, TrialOutcome({"fid": 1.5}))
        view.asked(request(1, again=True))
        view.failed(1, "OSError: [Errno 5] boom\nand more")
    text = printed(console)
    assert "trial 0 starts: T 20, rate 0.05" in text
    assert "trial 0 waiting for another trial's work" in text
    assert "training     50 / 100  loss 0.2500" in text
    assert "800 images/s" in text
    assert "trial   0  FID 1.5" in text
    assert "trial 1 goes on" in text
    assert "failed: OSError: [Errno 5] boom" in text, "brackets are not markup"
    assert "and more" not in text


def test_view_terminal_shows_the_study_above_its_trials() -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    with make_view(console, best=Best(0.9, 7)) as view:
        view.asked(request(0))
        view.progressed(0, training_report(40))
        view._live.refresh()
        text = printed(console)
    assert "0 of 4 trials, best FID 0.9 (trial 7), 800 images/s" in text
    assert "training     40 / 100" in text
    bar = next(line for line in text.splitlines() if "━" in line and "training" not in line)
    assert "trial" not in bar, "the study's bar has a line of its own"


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 140])
def test_view_terminal_of_any_width_shows_each_trial_in_a_line(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    view = make_view(console)
    for number in (3, 12):
        view.asked(request(number))
        view.progressed(number, training_report(50))
    console.file = io.StringIO()
    console.print(view._rows())
    lines = printed(console).splitlines()
    assert len(lines) == 2, lines
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith(f"trial {number:>3}  ") for number, line in zip((3, 12), lines, strict=True))
    text, rate, point, bar = "training     50 / 100  loss 0.2500", "800 images/s", "T 20, rate 0.05", "━" * 10
    # What is left out first: the rate, the bar, the point, the end of the text.
    whole = [[], [], [text, "T 20"], [text, point], [text, point, bar], [text, point, bar, rate]]
    shown = whole[[30, 40, 60, 80, 100, 140].index(width)]
    assert all(part in line for part in shown for line in lines)
    assert all(("training" in line) and ("…" in line) == (width <= 60) for line in lines)


@pytest.mark.parametrize(
    ("metric", "minimize", "values", "best"),
    [("fid", True, (2.0, 1.0, 3.0), (1.0, 1)), ("ssim", False, (0.2, 0.9, 0.5), (0.9, 1))],
)
def test_view_best_trial_has_the_lowest_fid_or_the_highest_ssim(
    metric: str, minimize: bool, values: tuple[float, ...], best: tuple[float, int]
) -> None:
    view = make_view(metric=metric, minimize=minimize)
    for number, value in enumerate(values):
        view.asked(request(number))
        view.completed(number, TrialOutcome({metric: value}))
    assert view.best == Best(*best)


def test_view_eta_of_a_resumed_trial_ignores_earlier_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    view = make_view()
    view.asked(request(0, again=True))
    view.progressed(0, training_report(50))  # the first half was trained before
    clock[0] = 10.0
    view.progressed(0, training_report(100))
    # 0.45 trials took 10 s. What is left is 0.1 of this trial, and three trials.
    assert view.progress.seconds_left() == pytest.approx(10 * 3.1 / 0.45)


def test_view_eta_trial_with_a_found_training_counts_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    view = make_view()
    for number in (0, 1):
        view.asked(request(number))
        view.progressed(number, {"stage": "sample", "step": 100, "steps": 100, "share": 0.0})
        clock[0] += 5.0
        view.completed(number, TrialOutcome({"fid": 1.0}))
    # Two of four trials took 10 s. The other two may find their trainings as well.
    assert view.progress.seconds_left() == pytest.approx(10.0)


def test_view_eta_is_unknown_before_the_first_report() -> None:
    view = make_view()
    view.asked(request(0))
    assert view.progress.seconds_left() is None
