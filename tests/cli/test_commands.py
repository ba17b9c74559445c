"""The command line itself: quick help, errors in a line, and interruption."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from coldtune import cli, presets
from coldtune.cli.job import parser
from coldtune.store.store import Store

SLOW = {"torch", "numpy", "ray", "mlflow", "optuna", "pydantic"}


def test_cli_help_and_wrong_flag_load_no_slow_library():
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


def test_cli_help_lists_every_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert re.search(rf"\n    {command.__name__.rpartition('.')[2]}\s", shown)


def test_study_show_unknown_study_is_refused_with_the_known_studies(tmp_path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["study", "show", "nowhere", "--home", str(tmp_path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error == f"error: study nowhere: not in {tmp_path} (there are: none)"


def test_job_parser_has_generate_flag_only_if_asked():
    assert parser("", 12, generate=True).parse_args(["--generate"]).generate
    with pytest.raises(SystemExit):
        parser("", 12).parse_args(["--generate"])


def test_cli_interrupted_command_exits_130_without_traceback(monkeypatch, capsys: pytest.CaptureFixture[str]):
    def interrupt() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(presets, "names", interrupt)
    with pytest.raises(SystemExit) as ended:
        cli.main(["presets"])
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_store_show_entry_with_damaged_manifest_reports_the_problem(tmp_path, capsys: pytest.CaptureFixture[str]):
    store = Store(tmp_path / "store")

    def write(folder: Path) -> None:
        (folder / "values").write_text("1")

    store.put("measure", "abc", write)
    (tmp_path / "store" / "measure" / "abc" / "manifest.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        cli.main(["store", "show", "measure/abc", "--home", str(tmp_path)])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert ended.value.code == 0
    assert shown["entry"] == "measure/abc"
    assert shown["problem"]
    assert shown["files"] == {}
