"""The journal file that keeps a study's trials, safe against killed writers."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

_GRACE_S = 3  # after which a lock file that no process of ours can hold is removed; the least that Optuna allows


class Journal(JournalFileBackend):
    """Optuna's journal file, which a killed writer can neither block nor spoil.

    Optuna's own lock is a file: a killed holder leaves it behind, and the next writer waits 30 s. And a line that a
    kill or a full disk cut off would be continued by the next one, after which nobody could read the journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._shared = JournalFileSymlinkLock(str(path), _GRACE_S)  # that other tools (optuna-dashboard) take

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records behind the last whole one."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._locked(), self._path.open("r+b") as file:
            file.truncate(_whole(file.fileno()))
            file.seek(0, os.SEEK_END)
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The kernel's lock, which dies with its holder, then the one of other tools."""
        with self._path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._shared.acquire()
            try:
                yield
            finally:
                self._shared.release()


def _whole(file: int) -> int:
    """How many bytes of a journal are whole lines."""
    size = os.fstat(file).st_size
    end = size
    while end:
        start = max(0, end - 2**16)
        if (found := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
