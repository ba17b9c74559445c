"""A command that several files test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coldtune import cli
from coldtune.studies.spec.folder import StudyFolder
from page_checks import check_page


@pytest.fixture
def report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], without_uv: None
) -> Callable[..., str]:
    """Return a function that runs the command in an empty folder. It returns the file, or raises the error."""
    monkeypatch.chdir(tmp_path)

    def run(folder: StudyFolder, kind: str = "html", *arguments: object) -> str:
        words = ["report", folder.name, "--home", str(folder.home), "--format", kind, "--overwrite"]
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, *map(str, arguments)])
        printed = capsys.readouterr()
        if ended.value.code:
            raise ValueError(printed.err.removeprefix("error: ").strip())
        text = (tmp_path / f"report.{kind}").read_text()
        if kind == "html":
            check_page(text)
        return text

    return run
