"""The journal file that stores a study, safe against killed writers."""

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

_STALE_LOCK_S = 3  # age at which a lock file of another tool is removed; Optuna allows no shorter time


class Journal(JournalFileBackend):
    """Optuna's journal file, which a killed writer can neither block nor damage.

    Optuna's own lock is a file. A killed writer leaves it behind, and the next writer waits 30 s. Optuna also appends
    to a line that a kill or a full disk has cut off, and then nobody can read the journal.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal, which need not exist yet."""
        super().__init__(str(path))
        self._path = path
        self._next = (0, 0)  # the number of the first record that was not read yet, and its offset in bytes
        self._in_batch = False
        self._lock_of_tools = JournalFileSymlinkLock(str(path), _STALE_LOCK_S)  # optuna-dashboard takes it

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records after the last complete record."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with nullcontext() if self._in_batch else self._locked(), self._path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if (complete := _complete_bytes(file.fileno())) < end:
                file.truncate(complete)
                file.seek(complete)
            file.write(lines.encode())
            file.flush()
            # A trial's other records can be drawn or measured again. Flushing them too would cost more than all the
            # rest of the trial's bookkeeping.
            if any(log["op_code"] in DURABLE_OPERATIONS for log in logs):
                os.fsync(file.fileno())

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the complete records from a number on. Records that were read before are not parsed again."""
        number, offset = self._next if self._next[0] <= log_number_from else (0, 0)
        with self._path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # another process is writing it
                    return
                number, offset = number + 1, offset + len(line)
                self._next = number, offset
                if number > log_number_from:
                    yield json.loads(line)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Keep the lock during a block of writes of this thread. Taking it costs more than the records of a trial."""
        with self._locked():
            self._in_batch = True
            try:
                yield
            finally:
                self._in_batch = False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the kernel's lock, which is released if this process dies, and then the lock of other tools."""
        with self._path.open("ab") as file:
            lock_open_file(file.fileno())
            self._lock_of_tools.acquire()
            try:
                yield
            finally:
                self._lock_of_tools.release()


def batch(study: Study) -> AbstractContextManager[None]:
    """Write a block of changes to a study without another writer in between.

    Only a journal does that. A database stores every change by itself.
    """
    backend = journal_of(storage_of(study))
    return backend.batch() if isinstance(backend, Journal) else nullcontext()


def _complete_bytes(file: int) -> int:
    """Return how many bytes of a journal are complete lines."""
    end = os.fstat(file).st_size
    if end and os.pread(file, 1, end - 1) == b"\n":
        return end
    while end:
        start = max(0, end - 2**16)
        if (newline := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            return start + newline + 1
        end = start
    return 0
