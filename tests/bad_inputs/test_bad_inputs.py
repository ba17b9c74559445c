"""Every bad input is refused before anything is spent: exit code 2, and one line that says what is wrong.

The rows are in the files `rows_*.py`. `bad_row.py` explains how a row is written.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import NoReturn

import pytest
import ray
from bad_row import Place, Row

import coldtune.cli
from coldtune.cli import job, paper_table
from coldtune.data import prepare as _prepare  # noqa: F401 - the module below must be loaded
from coldtune.data.dataset import Dataset
from finished_study import Finished

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLES = sorted(path.stem for path in HERE.glob("rows_*.py"))
ROWS: list[Row] = [entry for table in TABLES for entry in importlib.import_module(table).ROWS]
LONGEST_LINE = 2_000


class TouchedError(BaseException):
    """Something was spent. It is no Exception, so that no handler hides it."""


def _param(entry: Row) -> object:
    for_users = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
    marks = [for_users] if entry.needs_user else []
    return pytest.param(entry, id=entry.name, marks=marks)


@pytest.mark.timeout(60)  # for inputs that are read for ever
@pytest.mark.parametrize("entry", [_param(entry) for entry in ROWS])
def test_bad_input_is_refused_in_one_line(
    entry: Row,
    tmp_path: Path,
    digits_home: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    place = _place(entry, tmp_path, digits_home, request)
    for name, content in entry.files.items():
        path = place.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    if entry.prepare:
        entry.prepare(place)
    before = _listing(place.home, entry)
    _forbid_spending(monkeypatch, entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLDTUNE_HOME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in entry.env.items():
        monkeypatch.setenv(name, place.fill(value))

    code = _run(entry, place, monkeypatch)

    out, err = capfd.readouterr()
    assert code == 2, f"exit code {code}\n{out}{err}"
    lines = err.splitlines()
    assert len(lines) == 1, f"{len(lines)} lines on stderr:\n{err}"
    assert lines[0].startswith("error: "), err
    assert "Traceback" not in out
    for fragment in entry.says:
        assert place.fill(fragment) in lines[0]
    assert len(lines[0]) < LONGEST_LINE
    assert _listing(place.home, entry) == before


def test_table_of_bad_inputs_has_each_name_once_and_says_something() -> None:
    assert [name for name, count in Counter(entry.name for entry in ROWS).items() if count > 1] == []
    assert [entry.name for entry in ROWS if not entry.says or not all(entry.says)] == []


def _place(entry: Row, tmp_path: Path, digits_home: Path, request: pytest.FixtureRequest) -> Place:
    (scratch := tmp_path / "dir").mkdir()
    home, study = tmp_path / "home", ""
    if entry.home == "study":
        finished: Finished = request.getfixturevalue("finished")
        shutil.copytree(finished.home, home, symlinks=True)
        study = finished.study
    elif entry.home == "digits":
        shutil.copytree(digits_home / "data", home / "data")
    elif entry.home == "empty":
        home.mkdir()
    else:
        assert entry.home == "none", entry.home
    return Place(scratch, home, study)


def _listing(home: Path, entry: Row) -> dict[str, tuple[int, int]]:
    """Return the size and the time of everything in a home. Folders change when a file in them does."""
    found = {} if not home.exists() else {"": (0, home.stat().st_mtime_ns)}
    for folder, folders, files in os.walk(home, onerror=lambda _: None):
        if entry.data and Path(folder) == home:
            found.pop("")
            folders[:] = [name for name in folders if name != "data"]
        for name in [*folders, *files]:
            path = Path(folder, name)
            stat = path.lstat()
            found[str(path.relative_to(home))] = (stat.st_size, stat.st_mtime_ns)
    return found


def _forbid_spending(monkeypatch: pytest.MonkeyPatch, entry: Row) -> None:
    def touched(what: str) -> NoReturn:
        raise TouchedError(what)

    monkeypatch.setattr(ray, "init", lambda *_, **__: touched("Ray was started"))
    if not entry.data:
        monkeypatch.setattr(
            sys.modules["coldtune.data.prepare"], "source", lambda name: touched(f"dataset {name} was looked for")
        )
        if entry.home != "study":  # a study is compared with its dataset
            monkeypatch.setattr(Dataset, "open", lambda path: touched(f"{path} was opened"))


def _run(entry: Row, place: Place, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run the command line in this process, and return the exit code."""
    arguments = [place.fill(word) for word in entry.arguments]
    if not entry.own_home:
        arguments += ["--home", str(place.home)]
    monkeypatch.setattr(sys, "argv", [entry.program, *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SystemExit) as ended:
            _call(entry.program, place, arguments)
    return ended.value.code


def _call(program: str, place: Place, arguments: list[str]) -> None:
    if program == "coldtune":
        coldtune.cli.main(arguments)
    elif program == "paper_table":
        paper_table.main("A table.", arguments)
    else:
        space = place.dir / "space.yaml" if program == "space" else _space_of(program)
        job.main(program, space, "A question.", arguments=arguments)


def _space_of(program: str) -> Path:
    """Return the space of a shipped job, as its file names it."""
    text = (ROOT / "jobs" / f"{program}.py").read_text()
    name = re.search(r"\"search_spaces\".*?\"(\w[\w-]*\.yaml)\"|spaces / \"([\w-]+\.yaml)\"", text)
    assert name, program
    return ROOT / "search_spaces" / (name[1] or name[2])
