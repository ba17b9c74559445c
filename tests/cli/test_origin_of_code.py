"""An extractor that a file from elsewhere names is not imported, unless the user says so."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

import coldtune.cli
from finished_study import Finished

MODULE = "raise SystemExit('the module was imported')\n"


@pytest.fixture
def home(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home from elsewhere, whose study names code that is on this machine's path."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "code_from_elsewhere.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delenv("COLDTUNE_ALLOW_CODE", raising=False)
    home = Path(shutil.copytree(finished.home, tmp_path / "home", symlinks=True))
    spec = home / "studies" / finished.study / "spec.yaml"
    text = spec.read_text()
    assert "extractor: digits" in text
    spec.write_text(text.replace("extractor: digits", "extractor: code_from_elsewhere:run"))
    journal = spec.with_name("journal.log")
    stored = journal.read_text()
    key = '\\"extractor\\": \\"'
    assert f"{key}digits" in stored
    journal.write_text(stored.replace(f"{key}digits", f"{key}code_from_elsewhere:run"))
    return home


@pytest.mark.parametrize("line", ["study resume {}", "evaluate {}"])
def test_command_on_a_study_from_elsewhere_does_not_import_its_extractor(
    line: str, home: Path, finished: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        coldtune.cli.main([*line.format(finished.study).split(), "--home", str(home)])
    assert ended.value.code == 2
    assert "would run code of the module code_from_elsewhere" in capfd.readouterr().err
    assert "code_from_elsewhere" not in sys.modules


def test_command_with_the_users_word_imports_the_extractor(
    home: Path, finished: Finished, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDTUNE_ALLOW_CODE", "1")
    with pytest.raises(SystemExit) as ended:
        coldtune.cli.main(["evaluate", finished.study, "--home", str(home)])
    assert ended.value.code == 2
    assert "cannot be imported: SystemExit: the module was imported" in capfd.readouterr().err
