"""A fault of the machine that also hides the results of a study is told once."""

from __future__ import annotations

import errno
import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from coldtune.studies import run
from coldtune.studies.execution.stopping import STOPPED


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a session of a study whose disk is full when its trials run."""

    def fails(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    def prints(text: str) -> Any:
        return lambda console, *_: console.print(text)

    monkeypatch.setattr(run, "is_complete", fails)
    monkeypatch.setattr(run, "print_opening", lambda *_: None)
    monkeypatch.setattr(run, "print_machine_fault", lambda console, _, fault: console.print(f"FAULT {fault}"))
    monkeypatch.setattr(run, "print_resume", prints("RESUME"))
    return SimpleNamespace(checked=None, ledger=None, target=SimpleNamespace(uri=""))


def test_run_fault_with_lost_results_is_told_once(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "journal.log")

    monkeypatch.setattr(run, "print_closing", lost)
    monkeypatch.setattr(run, "_machine_fault", lambda error: str(error) if isinstance(error, OSError) else None)
    out = io.StringIO()
    assert run._run(session, None, Console(file=out)) == STOPPED  # type: ignore[arg-type]
    assert out.getvalue().count("FAULT") == 1
    assert out.getvalue().count("RESUME") == 1


def test_run_fault_with_another_error_at_the_end_is_not_hidden(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AssertionError("our mistake")

    monkeypatch.setattr(run, "print_closing", broken)
    with pytest.raises(AssertionError, match="our mistake"):
        run._run(session, None, Console(file=io.StringIO()))  # type: ignore[arg-type]
