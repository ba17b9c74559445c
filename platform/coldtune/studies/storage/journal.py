"""The journal file that keeps a study's trials, safe against killed writers."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import Study

from coldtune.files import lock_open_file
from coldtune.studies.storage.optuna_private import DURABLE_OPERATIONS, journal_of, storage_of

_GRACE_S = 3  # after which a lock file that no process of ours can hold is removed; the least that Optuna allows


class Journal(JournalFileBackend):
    """Optuna's journal file, which a killed writer can neither block nor spoil.

    Optuna's own lock is a file: a killed holder leaves it behind, and the next writer waits 30 s. And a line that a
    kill or a full disk cut off would be continued by the next one, after which nobody could read the journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._read = (0, 0)  # the number of the first record that was not read yet, and where it begins
        self._held = False
        self._shared = JournalFileSymlinkLock(str(path), _GRACE_S)  # that other tools (optuna-dashboard) take

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records behind the last whole one."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with nullcontext() if self._held else self._locked(), self._path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if (whole := _whole(file.fileno())) < end:
                file.truncate(whole)
                file.seek(whole)
            file.write(lines.encode())
            file.flush()
            if any(log["op_code"] in DURABLE_OPERATIONS for log in logs):
                os.fsync(file.fileno())

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The whole records from a number on, however many there are before."""
        number, offset = self._read if self._read[0] <= log_number_from else (0, 0)
        with self._path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # being written
                    return
                number, offset = number + 1, offset + len(line)
                self._read = number, offset
                if number > log_number_from:
                    yield json.loads(line)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Keep others from writing until the end: locking costs more than the records of a trial. Of one thread."""
        with self._locked():
            self._held = True
            try:
                yield
            finally:
                self._held = False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The kernel's lock, which dies with its holder, then the one of other tools."""
        with self._path.open("ab") as file:
            lock_open_file(file.fileno())
            self._shared.acquire()
            try:
                yield
            finally:
                self._shared.release()


def batch(study: Study) -> AbstractContextManager[None]:
    """A block of changes to a study that a journal takes at once; a database takes each by itself."""
    backend = journal_of(storage_of(study))
    return backend.batch() if isinstance(backend, Journal) else nullcontext()


def _whole(file: int) -> int:
    """How many bytes of a journal are whole lines."""
    end = os.fstat(file).st_size
    if end and os.pread(file, 1, end - 1) == b"\n":
        return end
    while end:
        start = max(0, end - 2**16)
        if (found := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
