"""Errors and exit codes of every command: one line that names a place, whatever the file system or the locale say."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from coldtune.cli import entry, main
from coldtune.errors import describe_obstacle, describe_os_error
from coldtune.files import write_file
from coldtune.places import check_folder, check_output

ROOT = Path(__file__).parents[2]


def fail(error: BaseException) -> NoReturn:
    raise error


def test_run_error_of_the_user_is_one_line_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(lambda: fail(ValueError("--x 3: allowed: 1 [or 2]"))) == 2
    assert capsys.readouterr().err == "error: --x 3: allowed: 1 [or 2]\n"
    assert entry.run(lambda: len(os.listdir("/no/such/folder"))) == 2
    assert "error: /no/such/folder: does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    "call",
    [lambda: int("x"), lambda: json.loads("{"), lambda: len(b"\xff".decode("utf-8")), lambda: len("★".encode("ascii"))],
)
def test_run_value_error_of_a_library_is_not_passed_off_as_the_users(
    call: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(call) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert "Error" in line.split()[1]
    assert "COLDTUNE_DEBUG=1 shows the traceback" in line


def test_run_debug_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDTUNE_DEBUG", "1")
    with pytest.raises(ValueError, match="allowed: 1"):
        entry.run(lambda: fail(ValueError("allowed: 1")))


def test_run_error_of_coldtune_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        entry.run(lambda: fail(KeyError("x")))


def test_run_interrupted_command_has_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.parametrize("columns", ["", "x", "-5", "0", "9" * 30, "²"])
def test_make_console_odd_columns_are_ignored(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    assert entry.make_console().width == 160


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENAMETOOLONG, "name is too long"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "disk is full"),
        (errno.EISDIR, "a folder is where a file must be"),
        (errno.ENOENT, "no such file or folder"),
        (errno.EMFILE, "too many open files"),
        (errno.ELOOP, "in a circle"),
    ],
)
def test_describe_os_error_names_path_and_what_to_do(code: int, says: str, tmp_path: Path) -> None:
    text = describe_os_error(OSError(code, os.strerror(code), str(tmp_path / "x")))
    assert text.startswith(f"{tmp_path / 'x'}: ")
    assert says in text
    assert ". " in text, "what is wrong, and then what to do"
    assert "Errno" not in text


def test_describe_os_error_file_above_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(OSError, match="f") as error:
        (tmp_path / "f" / "a" / "b").mkdir(parents=True)
    assert f"{tmp_path / 'f'} is a file, and a folder must be there" in describe_os_error(error.value)


def test_describe_obstacle_link_that_leads_nowhere_is_called_a_link(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"^--home: .*symbolic links lead in a circle"):
        check_folder(tmp_path / "loop" / "home", "--home")
    for name in ("loop", "gone"):
        assert describe_obstacle(tmp_path / name).startswith(f"{tmp_path / name} is a link that leads nowhere")


def test_write_file_full_disk_names_the_file() -> None:
    with pytest.raises(OSError, match="No space left") as error, open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert error.value.filename is None
    assert entry.describe(error.value) == os.strerror(errno.ENOSPC)
    with pytest.raises(FileNotFoundError) as missing:
        write_file(Path("/proc/coldtune/x.json"), "x")
    assert missing.value.filename == "/proc/coldtune/x.json", "and not the scratch file"


def test_check_output_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for path in (Path("/proc/x.json"), Path("/dev/full"), tmp_path, tmp_path / "no" / "x.json", tmp_path / ("x" * 300)):
        with pytest.raises(ValueError, match=f"^--output:? {str(path)[:80]}"):
            check_output(path, "--output")
    check_output(tmp_path / "x.json", "--output")
    check_output(Path("/dev/stdout"), "--output")
    assert list(tmp_path.iterdir()) == []


def test_check_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for path in (Path("/dev/null"), tmp_path / "f", tmp_path / "f" / "g", tmp_path / ("x" * 300)):
        for write in (False, True):
            with pytest.raises(ValueError, match=f"^--home: {str(path)[:80]}"):
                check_folder(path, "--home", write)
    with pytest.raises(ValueError, match=r"^--home: /proc/x: "):
        check_folder(Path("/proc/x"), "--home")
    check_folder(tmp_path / "a" / "b", "--home", write=False)
    assert [path.name for path in tmp_path.iterdir()] == ["f"], "a look leaves nothing behind"
    check_folder(tmp_path / "a" / "b", "--home")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_check_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for write in (False, True):
        with pytest.raises(ValueError, match="no permission"):
            check_folder(tmp_path / "home", "--home", write)


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_command_in_a_locale_without_the_letters_prints_question_marks(
    environment: dict[str, str], tmp_path: Path
) -> None:
    script = (
        "from coldtune.cli import entry\n"
        "from rich.table import Table\n"
        "console = entry.make_console()\n"
        "table = Table('★', 'größe'); table.add_row('λ', '±')\n"
        "console.print(table); print('★')\n"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    run = {**os.environ, "PYTHONPATH": str(ROOT / "platform"), **environment}
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, env=run, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?" in done.stdout


def test_data_prepare_home_below_a_file_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f").touch()
    for line in (["data", "prepare", "digits"], ["study", "list"], ["store", "ls"], ["tracking", "sync"]):
        with pytest.raises(SystemExit, match="2"):
            main([*line, "--home", str(tmp_path / "f" / "home")])
        assert f"{tmp_path / 'f'} is a file, and a folder must be there" in capsys.readouterr().err
