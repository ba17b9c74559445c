"""The command line itself: help that answers at once, one line for an error, and studies named by mistake."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coldtune import cli, presets
from coldtune.cli.job import parser

SLOW = {"torch", "numpy", "ray", "mlflow", "optuna", "pydantic"}


def test_help_and_wrong_flags_load_nothing_slow():
    script = (
        "import sys\nfrom coldtune import cli\n"
        "for arguments in (['--help'], ['study', 'list', '--no-such-flag']):\n"
        "    try: cli.main(arguments)\n"
        "    except SystemExit: pass\n"
        "print('loaded', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "rich" in loaded
    assert not loaded & SLOW


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert f"\n    {command.__name__.rpartition('.')[2]} " in shown


def test_a_study_that_is_not_there_is_one_line_naming_those_that_are(tmp_path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["study", "show", "nowhere", "--home", str(tmp_path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error == f"error: study nowhere: not in {tmp_path} (there are: none)"


def test_job_parser_has_generate_flag_only_if_asked():
    assert parser("", 12, generate=True).parse_args(["--generate"]).generate
    with pytest.raises(SystemExit):
        parser("", 12).parse_args(["--generate"])


def test_an_interrupted_command_says_so_without_a_traceback(monkeypatch, capsys: pytest.CaptureFixture[str]):
    def interrupt() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(presets, "names", interrupt)
    with pytest.raises(SystemExit) as ended:
        cli.main(["presets"])
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == "interrupted"
