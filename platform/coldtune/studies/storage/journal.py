"""The journal file that stores a study, safe against killed writers."""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import Study

from coldtune.files import lock_open_file, naming
from coldtune.readback import UnreadableError, unreadable
from coldtune.studies.storage.optuna_private import DURABLE_OPERATIONS, journal_of, storage_of

_STALE_LOCK_S = 3  # age at which a lock file of another tool is removed; Optuna allows no shorter time
_LONGEST_LINE = 64 * 2**20
_BLOCK = 2**16


class Journal(JournalFileBackend):
    """Optuna's journal file, which a killed writer can neither block nor damage.

    Optuna's own lock is a file. A killed writer leaves it behind, and the next writer waits 30 s. Optuna also appends
    to a line that a kill or a full disk has cut off, and then nobody can read the journal.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal, which need not exist yet.

        Raises:
            UnreadableError: If a folder or another thing that is not a regular file has its name.
        """
        if path.exists() and not path.is_file():
            what = "a folder is where a file must be" if path.is_dir() else "is not a regular file"
            raise unreadable(path, what, "Restore the journal from a copy.")
        super().__init__(str(path))
        self._path = path
        self._next = (0, 0)  # the number of the first record that was not read yet, and its offset in bytes
        self._in_batch = False
        self._last_values: dict[str, Any] = {}  # of user attributes that are mappings
        self._lock_of_tools = JournalFileSymlinkLock(str(path), _STALE_LOCK_S)  # optuna-dashboard takes it

    @property
    def lines_read(self) -> int:
        """The number of lines that were read so far."""
        return self._next[0]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records after the last complete record."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with (
            nullcontext() if self._in_batch else self._locked(),
            naming(self._path),
            self._path.open("r+b") as file,
        ):
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
        """Yield the complete records from a number on. Records that were read before are not parsed again.

        Raises:
            UnreadableError: If a line is not a record. The message names the line. A torn line at the end, and zero
                bytes that a power cut left there, are not read.
        """
        number, offset = self._next if self._next[0] <= log_number_from else (0, 0)
        with self._path.open("rb") as file:
            file.seek(offset)
            while line := file.readline(_LONGEST_LINE):
                if not line.endswith(b"\n"):  # another process is writing it
                    if len(line) == _LONGEST_LINE:
                        raise damaged_line(self._path, number + 1, f"is longer than {_LONGEST_LINE:,} bytes")
                    return
                if not line.strip(b"\0\n") and offset >= _complete_bytes(file.fileno()):
                    return
                record = self._parse(line, number + 1) if number >= log_number_from else None
                number, offset = number + 1, offset + len(line)
                self._next = number, offset
                if record is not None:
                    yield record

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            what = "contains zero bytes" if b"\0" in line else "is not complete JSON"
            raise damaged_line(self._path, number, what) from None
        if not isinstance(record, dict):
            raise damaged_line(self._path, number, "is not a record of Optuna")
        values = [record.get("value"), *(record.get("values") or ())]
        if not all(value is None or (isinstance(value, int | float) and math.isfinite(value)) for value in values):
            raise damaged_line(self._path, number, f"has values {values[1:]} that are not finite numbers")
        self._share(record)
        return record

    def _share(self, record: dict[str, Any]) -> None:
        """Let a record use the names of earlier records, and equal values. Optuna keeps all of them in memory.

        Most of a trial's memory would be names of metrics, and its protocol is that of the trial before.
        """
        if isinstance(name := record.get("param_name"), str):
            record["param_name"] = sys.intern(name)
        if isinstance(attributes := record.get("user_attr"), dict):
            record["user_attr"] = {
                sys.intern(name): self._shared_value(name, each) for name, each in attributes.items()
            }

    def _shared_value(self, name: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        last = self._last_values.get(name)
        # Equal is not enough: 1, 1.0 and true are equal in Python.
        if last != value or json.dumps(last) != json.dumps(value):
            self._last_values[name] = _with_shared_names(value)
        return self._last_values[name]

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


def open_journal(path: Path) -> JournalStorage:
    """Open the storage of a journal.

    Raises:
        UnreadableError: If it is not a journal. The message names the line that Optuna does not understand.
    """
    journal = Journal(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return JournalStorage(journal)
    except UnreadableError:
        raise
    except (AssertionError, AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        what = "is not a record that this version of coldtune and Optuna knows"
        raise damaged_line(path, journal.lines_read, f"{what} ({type(error).__name__}: {error})") from None


def damaged_line(path: Path, number: int, what: str) -> UnreadableError:
    """Return the error for the line `number` of a journal, counted from 1."""
    before = f", or keep the lines before it (`head -n {number - 1}`)" if number > 1 else ", or remove it and spec.yaml"
    return unreadable(
        f"{path}, line {number}",
        what,
        f"Restore the journal from a copy{before}. Trials that are then missing are asked again, and their finished "
        "work is found in the store.",
    )


def _with_shared_names(value: Any) -> Any:
    """Return a value of JSON in which equal names of mappings are the same string in all values."""
    if not isinstance(value, dict):
        return value
    return {sys.intern(name): _with_shared_names(each) for name, each in value.items()}


def _complete_bytes(file: int) -> int:
    """Return how many bytes of a journal are complete lines.

    A killed writer leaves a line without its end. A power cut leaves zero bytes at the end of the file.
    """
    end = os.fstat(file).st_size
    if end and (tail := os.pread(file, 2, max(0, end - 2)))[-1:] == b"\n" and tail[0] not in b"\0\n":
        return end
    content = _last_content(file, end)
    if content < end and os.pread(file, 1, content) == b"\n":
        return content + 1
    while content:
        start = max(0, content - _BLOCK)
        if (newline := os.pread(file, content - start, start).rfind(b"\n")) >= 0:
            return start + newline + 1
        content = start
    return 0


def _last_content(file: int, end: int) -> int:
    """Return the offset after the last byte that is neither zero nor the end of a line."""
    while end:
        start = max(0, end - _BLOCK)
        if kept := len(os.pread(file, end - start, start).rstrip(b"\0\n")):
            return start + kept
        end = start
    return 0
