"""A study whose files are damaged is named, and the commands carry on with the other studies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coldtune.cli import main
from finished_study import Finished

Command = Callable[..., tuple[object, str, str]]


@pytest.fixture
def home(finished: Finished, tmp_path: Path) -> Path:
    """Return a home with a finished study and a second study, `broken`, whose files a test may damage."""
    home = tmp_path / "home"
    shutil.copytree(finished.home, home, symlinks=True)
    shutil.copytree(home / "studies" / finished.study, home / "studies" / "broken")
    journal = home / "studies" / "broken" / "journal.log"
    journal.write_text(journal.read_text(encoding="utf-8").replace(finished.study, "broken"), encoding="utf-8")
    return home


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--home", str(home)])
        return ended.value.code, *capsys.readouterr()

    return run


def empty_start(folder: Path) -> str:
    (folder / "start.json").write_bytes(b"")
    return "start.json"


def lose_start(folder: Path) -> str:
    (folder / "start.json").unlink()
    return "start.json"


def cut_spec(folder: Path) -> str:
    path = folder / "spec.yaml"
    path.write_bytes(path.read_bytes()[:700])
    return "spec.yaml"


def lose_spec(folder: Path) -> str:
    (folder / "spec.yaml").unlink()
    return "spec.yaml"


def lose_journal(folder: Path) -> str:
    (folder / "journal.log").unlink()
    return "journal.log"


def zero_journal(folder: Path) -> str:
    path = folder / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = bytes(len(lines[3]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    return "journal.log, line 4"


def folder_as_journal(folder: Path) -> str:
    (folder / "journal.log").unlink()
    (folder / "journal.log").mkdir()
    return "journal.log"


DAMAGES = [empty_start, lose_start, cut_spec, lose_spec, lose_journal, zero_journal, folder_as_journal]


@pytest.mark.parametrize("damage", DAMAGES)
def test_list_and_store_broken_study_is_named_and_the_others_are_shown(
    damage: Callable[[Path], str], home: Path, finished: Finished, command: Command
) -> None:
    folder = home / "studies" / "broken"
    file = damage(folder)
    code, out, error = command("study", "list")
    (row,) = [line for line in out.splitlines() if finished.study in line]
    assert row.split()[1:4] == ["digits", "3", "4"]
    assert code == 1
    assert error.startswith(f"error: study broken: {folder / file}")
    assert error.count("\n") == 1
    if damage in (cut_spec, lose_spec):
        return  # the store reads the trials alone
    for line in (("store", "ls"), ("store", "gc")):
        code, out, error = command(*line)
        assert code == 1
        assert "in all" in out or "in entries stay" in out
        assert f"study broken: {folder / file}" in error


def test_store_gc_keeps_the_entries_of_a_study_that_cannot_be_read(
    home: Path, finished: Finished, command: Command
) -> None:
    shutil.rmtree(home / "studies" / "broken")
    entries = {path.parent for path in (home / "store").glob("*/**/manifest.json")}
    empty_start(home / "studies" / finished.study)
    code, out, _ = command("store", "gc", "--yes", "--older", "0")
    assert code == 1
    assert "A study cannot be read, so everything made since" in out
    assert {path.parent for path in (home / "store").glob("*/**/manifest.json")} == entries


def test_show_study_that_lost_its_journal_is_no_empty_study(home: Path, command: Command) -> None:
    journal = home / "studies" / "broken" / "journal.log"
    whole = journal.read_bytes()
    for content, says in (
        (b"", "is empty, although the study was started"),
        (bytes(4096), "holds no study broken"),
        (whole.replace(b'"broken"', b'"another"'), "holds no study broken, so it is the journal of another study"),
    ):
        journal.write_bytes(content)
        code, _, error = command("study", "show", "broken")
        assert code == 2
        assert f"error: {journal}: {says}" in error
        assert "To begin again with trial 0, remove spec.yaml and start.json" in error


def test_show_zero_bytes_at_the_end_of_the_journal_are_ignored(home: Path, command: Command) -> None:
    journal = home / "studies" / "broken" / "journal.log"
    before = command("study", "show", "broken")
    journal.write_bytes(journal.read_bytes() + bytes(5000))
    assert command("study", "show", "broken") == before


def test_show_edited_spec_is_told_from_the_spec_of_the_trials(home: Path, command: Command) -> None:
    path = home / "studies" / "broken" / "spec.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("batch_size: 16", "batch_size: 32"), encoding="utf-8")
    code, _, error = command("study", "show", "broken")
    assert code == 2
    assert "spec.yaml: is not the spec of this study's trials. base.training.batch_size: 32, there 16" in error


def test_evaluate_damaged_restorer_is_called_damaged(home: Path, finished: Finished, command: Command) -> None:
    (manifest,) = (home / "store" / "train").glob("*/*/manifest.json")
    tree = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**tree, "about": {**tree["about"], "seconds": None}}), encoding="utf-8")
    for _ in range(2):  # found damaged, and then found set aside
        code, _, error = command("evaluate", finished.study)
        assert code == 2
        assert "damaged" in error
        assert "`coldtune store verify`" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    "about", [None, 5, {}, {"seconds": None}, {"seconds": "x"}, {"seconds": True}], ids=lambda about: str(about)
)
def test_store_manifest_with_wrong_results_is_named(about: object, home: Path, command: Command) -> None:
    (manifest,) = (home / "store" / "train").glob("*/*/manifest.json")
    tree = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**tree, "about": about}), encoding="utf-8")
    code, out, _ = command("store", "verify")
    assert (code, "its manifest cannot be read (manifest.json: has wrong content: about" in out) == (1, True)
    code, out, _ = command("store", "show", "train/")
    assert (code, "its manifest cannot be read" in out) == (0, True)


def test_store_deep_manifest_is_named(home: Path, command: Command) -> None:
    (manifest,) = (home / "store" / "train").glob("*/*/manifest.json")
    manifest.write_text("[" * 100_000, encoding="utf-8")
    code, out, _ = command("store", "verify")
    assert (code, "manifest.json: is nested too deeply" in out) == (1, True)
    assert command("store", "ls")[0] == 0


def test_store_show_ambiguous_prefix_is_one_line(command: Command) -> None:
    code, _, error = command("store", "show", "sample/")
    assert (code, error.count("\n")) == (2, 1)
    assert "error: sample/: " in error
