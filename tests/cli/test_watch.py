"""`coldtune watch`: the changes of a study that another process runs, the time left, and the end."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from coldtune import cli
from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.studies.designs.confirm import build_confirmation
from coldtune.studies.drivers.election import DriverLease, driver_lease
from coldtune.studies.drivers.registry import FolderRegistry
from coldtune.studies.progress import watching
from coldtune.studies.progress.watching import WatchedStudy
from coldtune.studies.space.space import Space
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.trials.reading import read_study
from coldtune.tracking import Tracker
from finished_study import Finished

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(finished: Finished, tmp_path: Path) -> StudyFolder:
    """The folder of a study of four trials, two of which have finished and one failed."""
    for part in ("data", "studies"):
        shutil.copytree(finished.home / part, tmp_path / "home" / part)
    return StudyFolder(tmp_path / "home", finished.study)


@pytest.fixture
def driver(folder: StudyFolder) -> Iterator[ExitStack]:
    """A driver of the study in this process. Its context ends the driver."""
    with ExitStack() as stack:
        stack.enter_context(driver_lease(FolderRegistry(folder.path / "drivers"), folder.name, join=False))
        yield stack


def ledger_of(folder: StudyFolder, lease: DriverLease) -> Ledger:
    spec, dataset = folder.spec(), Dataset.open(prepared(folder.home, "digits")[0])
    space = Space(spec.space, spec.base, dataset.image_shape)
    return open_ledger(folder.name, spec, space, open_storage(folder.path), lease=lease)


def files(home: Path) -> dict[str, tuple[int, int]]:
    """Return the size and the time of the last change of all files."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(home.rglob("*"))}


@pytest.fixture
def watch(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["watch", folder.name, "--home", str(folder.home), *arguments])
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


def test_watch_stopped_study_prints_its_table_and_how_to_resume(folder: StudyFolder, watch: Command) -> None:
    before = files(folder.home)
    code, out, error = watch()
    assert (code, error) == (3, "")
    assert " interrupted " in out
    assert f"study resume {folder.name}" in out
    assert files(folder.home) == before


def test_watch_finished_study_prints_its_table_and_names_its_confirmation(
    folder: StudyFolder, finished: Finished, watch: Command, without_uv: None
) -> None:
    with driver_lease(FolderRegistry(folder.path / "drivers"), folder.name, join=False) as lease:
        ledger = ledger_of(folder, lease)
        ledger.ownership.take_over()
        number = ledger.ask().number
        ledger.complete(number, TrialOutcome({"fid": 2.0}, plain(finished.outcomes[0].protocol)))
    code, out, error = watch()
    assert (code, error) == (0, "")
    assert "★3  finished" in out
    assert "missing" not in out
    assert "confirmation" not in out

    start = json.loads((folder.path / "start.json").read_text())
    (folder.path / "start.json").write_text(json.dumps({**start, "confirm": 2}))
    code, out, error = watch()
    assert (code, error) == (0, "")
    confirmation = build_confirmation(read_study(folder), 2)
    assert confirmation is not None
    assert f"confirmation   coldtune watch {confirmation.name} --home {folder.home}" in out


def test_watch_interrupted_by_ctrl_c_exits_130(
    folder: StudyFolder, driver: ExitStack, watch: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupt)
    code, out, error = watch("--every", "1s")
    assert (code, error) == (130, "")
    assert out.endswith(f"stopped watching; {folder.name} goes on\n")
    assert "3 of 4 trials ended; run by process " in out


def test_watch_running_study_shows_each_change_once(
    folder: StudyFolder, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), width=200)
    clock = itertools.count(10.0, 10.0)
    with ExitStack() as stack:
        registry = FolderRegistry(folder.path / "drivers")
        lease = stack.enter_context(driver_lease(registry, folder.name, join=False))
        ledger = ledger_of(folder, lease)
        ledger.ownership.take_over()
        asked = ledger.ask()
        assert asked.number == 3, "the trial that was interrupted"
        tracker = stack.enter_context(Tracker(folder.spool, folder.name, 3))
        watched = WatchedStudy(read_study(folder), folder, console)
        monkeypatch.setattr("coldtune.studies.progress.eta.time.monotonic", lambda: next(clock))
        with watched.view as view:
            before = files(folder.home)
            assert watched.look()
            assert files(folder.home) == before
            tracker.metrics({"loss": 0.5, "images_per_s": 800.0}, 2)
            assert watched.look()
            assert (view.running[3].text, view.progress.images_per_s()) == ("training      2 / 4  loss 0.5000", 800.0)
            assert view.progress.share() == pytest.approx((3 + 0.9 / 2) / 4)
            left = view.progress.seconds_left()
            assert left is not None
            assert left > 0
            tracker.metrics({"train/loss": 0.25, "train/images_per_s": 700.0}, 4)
            watched.look()
            assert view.running[3].text == "sampling and measuring"
            ledger.complete(3, TrialOutcome({"fid": 2.0}, plain(finished.outcomes[0].protocol)))
            watched.look()
            watched.look()
            assert (view.running, view.progress.ended) == ({}, 4)
        assert watched.is_done()
    assert not watched.look(), "the driver has ended"
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("trial 3 goes on: num_steps") == 1
    assert text.count("trial   3  FID 2 ") == 1
    assert "trial 0" not in text, "it had ended before"


def test_watch_shows_failed_pruned_and_interrupted_trials(folder: StudyFolder) -> None:
    console = Console(file=io.StringIO(), width=200)
    registry = FolderRegistry(folder.path / "drivers")
    with driver_lease(registry, folder.name, join=False) as lease:
        ledger = ledger_of(folder, lease)
        ledger.ownership.take_over()
        numbers = [ledger.ask().number]
        watched = WatchedStudy(read_study(folder), folder, console)
        with watched.view as view:
            watched.look()
            ledger.fail(numbers[0], "RuntimeError: late")
            numbers += [ledger.ask().number]
            ledger.prune(numbers[1], Rung(2, 4, "kid", {"kid": 0.3}))
            numbers += [ledger.ask().number]
            watched.look()
            assert list(view.running) == [numbers[2]]
    assert not watched.look()
    assert view.running == {}
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "failed: RuntimeError: late" in text
    assert f"trial {numbers[1]} starts" in text, "it began and ended between two looks"
    assert "pruned at step 2 of 4: KID 0.3" in text
    assert f"trial {numbers[2]}: interrupted, because its driver is gone" in text
