"""A study in a locale without UTF-8 that then loses its files one after the other. Each message's way out works."""

from __future__ import annotations

import pytest
from e2e_lab import Lab, Runs, flags, study_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.slow]
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_study_that_loses_its_files_goes_on_as_the_messages_say(lab: Lab) -> None:
    home = lab.path / "home"
    folder = home / "studies" / "s"
    lab.env |= C_LOCALE

    def run(trials: int) -> tuple[int, str]:
        started = lab.sweep(home, "--study", "s", "--trials", str(trials), *flags())
        return started.wait(), started.text

    code, text = run(1)
    assert (code, "?0 |finished" in text) == (0, True), text
    assert "95 % ±" in (folder / "table.md").read_text(encoding="utf-8")

    (folder / "start.json").write_bytes(b"")  # as after a power cut
    code, text = run(1)
    assert (code, f"{folder / 'start.json'}: is empty" in text) == (2, True), text
    for name in ("start.json", "spec.yaml"):
        (folder / name).unlink()
    (home / "mlflow.db").unlink()
    code, text = run(2)
    assert code == 0, text
    assert len(study_of(home).trials) == 2
    assert sorted(Runs(home).trials) == [0, 1], "the run from before the loss came back"

    journal = (folder / "journal.log").read_bytes()
    (folder / "journal.log").unlink()
    code, text = run(2)
    assert (code, "there is no such file, although the study was started" in text) == (2, True), text
    (folder / "journal.log").write_bytes(journal + bytes(4096))
    assert run(2)[0] == 0
