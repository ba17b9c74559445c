"""The spool of a run, a journal on disk of everything that has to reach the tracking server, in order.

Its records survive if this process is killed or the server is away. A spool consists of two files:

- `trial-0003.jsonl` is the journal, with a JSON record per line. It is only appended to, and is the whole history of
  the run.
- `trial-0003.state` says up to which byte the journal is delivered, to which server, and as which run. If it is lost,
  the journal is delivered again, which is harmless because delivery is idempotent.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter

from coldtune.files import lock_open_file, write_file
from coldtune.readback import read_json

STUDY = "study"
SUFFIX = ".jsonl"
_TAIL = 2**16
_LONGEST_LINE = 2**24
# A journal is never a link, because whoever can plant a link could make us write into another file.
_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_LOG = logging.getLogger("coldtune.tracking")

Record = dict[str, Any]

# What each kind of record must hold so that it can be delivered.
_FIELDS: dict[str, dict[str, Any]] = {
    "create": {"study": str, "trial": int | None, "name": str, "tags": dict, "time": int},
    "params": {"values": dict},
    "metrics": {"values": dict, "step": int, "time": int},
    "tags": {"values": dict},
    "artifact": {"path": str, "folder": str},
    "model": {"path": str, "name": str},
    "dataset": {"name": str, "digest": str, "source_type": str, "source": str, "profile": str, "context": str},
    "end": {"status": str, "time": int},
}


def now() -> int:
    """Return the milliseconds since the epoch, the time stamp of a record when it is written (not when it is sent)."""
    return time.time_ns() // 1_000_000


def find_trial_of_run(directory: Path, run_id: str) -> int | None:
    """Return the number of the trial whose MLflow run has an id, from the delivery states of a study's spool."""
    for path in directory.glob("trial-*.state"):
        with suppress(OSError, ValueError):  # a state that cannot be read counts as lost
            if _STATE.validate_python(read_json(path)).run_id == run_id:
                return int(path.stem.partition("-")[2])
    return None


def run_file(trial: int | None) -> str:
    """Return the name of a trial's spool. None is the study's own run, the parent of its trials' runs."""
    return STUDY if trial is None else f"trial-{trial:04d}"


@dataclass(frozen=True)
class State:
    """How far a spool is delivered.

    Attributes:
        target: The server and experiment (`Target.key`) to which `run_id` and `offset` belong.
        born: When that experiment was made (`Target.born`). 0 if an older version of coldtune wrote the state.
        offset: The number of bytes of the journal that are delivered.
    """

    target: str = ""
    run_id: str | None = None
    offset: int = 0
    attempts: int = 0  # to deliver the record at `offset`, counted only while the server itself answers
    born: int = 0


_STATE = TypeAdapter(State)


class Spool:
    """The journal and delivery state of a run, shared by any number of processes.

    Appending needs no lock, because a record is a single `write` to a file that is opened for appending. Delivering
    needs `lock`.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.path = directory / f"{name}{SUFFIX}"
        self.state_path = directory / f"{name}.state"
        self.rejected_path = directory / f"{name}.rejected"
        self._file: int | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record. When this returns, the record survives a SIGKILL of this process, but not a power cut.

        Raises:
            OSError: If the disk refuses it.
        """
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if self._file is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, _OPEN | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                line = b"\n" + line  # ends the line of a writer that died in the middle of it
        if os.write(self._file, line) < len(line):  # the disk took a part of it
            self.close()  # the next record then begins after the torn line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        """Close the journal. A later `append` opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def size(self) -> int:
        """Return the number of bytes in the journal, 0 if there is none."""
        try:
            return self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def read(self, offset: int = 0, limit: int = 500) -> tuple[list[tuple[Record, int]], int]:
        """Read up to `limit` records from byte `offset` on.

        A torn line of a writer that died is skipped. A line that is still being written is left for the next call.

        Returns:
            Each record with the offset after it, and the offset at which the next call continues.
        """
        records: list[tuple[Record, int]] = []
        try:
            file = self.path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return [], offset
        with file:
            file.seek(offset)
            while len(records) < limit:
                line = file.readline(_LONGEST_LINE)
                if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                    break
                offset += len(line)
                if (record := _parse(line, self.path)) is not None:
                    records.append((record, offset))
        return records, offset

    def status(self) -> str | None:
        """Return the run's last recorded status, "running" or that with which it ended. None if there is no journal.

        The end of the journal is searched first, so that the cost does not grow with the journal.
        """
        try:
            file = self.path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        with file:
            size = os.fstat(file.fileno()).st_size
            for start in (size - _TAIL, 0):
                file.seek(max(0, start))
                whole = file.read().split(b"\n")[1 if start > 0 else 0 : -1]
                if (status := next(filter(None, map(_status, reversed(whole))), None)) is not None:
                    return status
        return None

    def mend(self) -> bool:
        """End a torn line of a killed writer, so that readers do not wait for the rest of it.

        Call this only if no process is writing to the journal.

        Returns:
            True if there was such a line.
        """
        try:
            file = os.open(self.path, _OPEN | os.O_APPEND)
        except FileNotFoundError:
            return False
        try:
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
            if torn:
                os.write(file, b"\n")
            return torn
        finally:
            os.close(file)

    def count(self, begin: int, end: int) -> int:
        """Count the lines from byte `begin` to byte `end`."""
        if begin >= end:
            return 0
        with self.path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin).count(b"\n")

    def sync(self) -> None:
        """Force the journal to the disk, so that after a power cut it still has all records that the server has."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def state(self, target: str | None = None, born: int = 0) -> State:
        """Return the delivery state. With `target`, return a new state if the stored state is for another server.

        A state that cannot be read counts as lost.

        Args:
            target: The key of a server and an experiment.
            born: When that experiment was made, if it is known. A later time than that of the stored state means that
                the server's database was replaced.
        """
        try:
            state = _STATE.validate_python(read_json(self.state_path))
        except (FileNotFoundError, ValueError):
            state = State()
        if target is None:
            return state
        # A state of an older version knows no time, but a state that was written before the experiment was made is not
        # the state of this experiment.
        replaced = born and (born != state.born if state.born else self._written() < born)
        if state.target != target or replaced or not 0 <= state.offset <= self.size():
            return State(target=target, born=born)
        return replace(state, born=born or state.born)

    def _written(self) -> float:
        """Return when the delivery state was written, in milliseconds since the epoch."""
        try:
            return self.state_path.stat().st_mtime * 1000
        except OSError:
            return math.inf

    def save(self, state: State) -> State:
        """Replace the delivery state atomically, and return it. Call this only while holding `lock`."""
        write_file(self.state_path, json.dumps(asdict(state)))
        return state

    @contextmanager
    def lock(self, wait: float = 0.0) -> Iterator[bool]:
        """Lock the spool for delivery while the block runs. A killed holder loses the lock at once.

        The journal itself is locked, because separate lock files would double the files of a study with thousands of
        trials.

        Args:
            wait: Seconds to wait for another process that delivers the spool.

        Yields:
            False if another process is still delivering after `wait` seconds, or if there is no journal.
        """
        try:
            file = os.open(self.path, _OPEN)
        except FileNotFoundError:
            yield False
            return
        try:
            yield lock_open_file(file, wait)
        finally:
            os.close(file)

    def add_file(self, path: Path) -> str:
        """Copy a file beside the journal until it is delivered. Return the copy's path relative to `directory`."""
        files = self.directory / f"{self.name}.files"
        if files.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(files))
        folder = files / str(time.time_ns())
        folder.mkdir(parents=True)
        shutil.copyfile(path, folder / path.name)
        return str((folder / path.name).relative_to(self.directory))

    def copied_file(self, copy: object) -> Path | None:
        """Return the path of a copy that `add_file` made, or None if it is no longer there.

        Raises:
            ValueError: If `copy` is anything but a regular file in this spool's own folder of copies. Links are not
                followed, because a record or a link may come from someone else.
        """
        parts = PurePosixPath(copy).parts if isinstance(copy, str) and "\0" not in copy else ()
        if len(parts) != 3 or parts[0] != f"{self.name}.files" or ".." in parts:
            raise ValueError(f"artifact = {copy!r}: not a copy in {self.name}.files")
        path = self.directory
        try:
            for part in parts[:-1]:
                path /= part
                if not stat.S_ISDIR(path.lstat().st_mode):
                    raise ValueError(f"artifact = {copy!r}: {part} is no folder")
            path /= parts[-1]
            if not stat.S_ISREG(path.lstat().st_mode):
                raise ValueError(f"artifact = {copy!r}: not a regular file")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return path

    def remove_file(self, copy: str) -> None:
        """Remove a copy that `add_file` made, and the folders that are then empty."""
        path = self.copied_file(copy)
        if path is None:
            return
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            try:
                folder.rmdir()
            except OSError:
                return

    def remove_unrecorded_files(self, recorded: Collection[str]) -> None:
        """Remove the copies that are not `recorded`, because their writer was killed before it could record them."""
        for path in (self.directory / f"{self.name}.files").glob("*/*"):
            if (copy := str(path.relative_to(self.directory))) not in recorded:
                with suppress(ValueError):  # something else than a copy of ours stays
                    self.remove_file(copy)

    def reject(self, record: Record, reason: str) -> None:
        """Set aside a record that the server will never accept, so that the records after it can be delivered."""
        _LOG.warning("%s: the tracking server refuses a record (kept in %s): %s", self.name, self.rejected_path, reason)
        line = json.dumps({"reason": reason, "record": record}) + "\n"
        file = os.open(self.rejected_path, _OPEN | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


def sizes(directory: Path) -> dict[str, int]:
    """Return {name of the spool: size of its journal in bytes} for a directory, with the study last.

    The study is last because its trials may have to make the study's run again, after which the study's spool is
    delivered from the start. This is a single pass over the directory, which is cheap enough to be repeated every
    second for thousands of trials.
    """
    try:
        with os.scandir(directory) as entries:
            journals = {e.name.removesuffix(SUFFIX): e.stat().st_size for e in entries if e.name.endswith(SUFFIX)}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name: journals[name] for name in sorted(journals, key=lambda name: (name == STUDY, name))}


def check_folder(folder: object) -> str:
    """Return the folder of an artifact. ValueError if it could lead out of the run's artifacts."""
    if not isinstance(folder, str) or folder.startswith("/") or ".." in folder.split("/") or "\\" in folder:
        raise ValueError(f"folder = {folder!r}: not a folder of a run's artifacts")
    return folder


def advanced(state: State, offset: int) -> State:
    """Return `state` after everything before `offset` was delivered."""
    return replace(state, offset=offset, attempts=0)


def _parse(line: bytes, path: Path) -> Record | None:
    """Return the record of a line, or None if the line is torn or damaged.

    Zero bytes before a record are the rest of a line that a power cut has lost.
    """
    record = _decode(line)
    if record is None and line.strip():
        _LOG.warning("%s: skipped a torn line of %d bytes", path, len(line))
    return record


def _decode(line: bytes) -> Record | None:
    try:
        record = json.loads(line.lstrip(b"\0"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("op"), str) else None


def has_form(record: Record) -> bool:
    """Return whether a record holds everything that its delivery needs. A damaged or edited journal may not."""
    types = _FIELDS.get(record["op"], {})
    if not all(isinstance(record.get(name), kind) for name, kind in types.items()):
        return False
    if record["op"] == "metrics":
        return all(map(_is_number, record["values"].values()))
    return record["op"] not in ("params", "tags") or all(isinstance(text, str) for text in record["values"].values())


def _is_number(value: object) -> bool:
    """Return whether a value of a record is a number. NaN and infinities are recorded as text."""
    return isinstance(value, int | float) or value in ("nan", "inf", "-inf")


def _status(line: bytes) -> str | None:
    """Return the status of the run that a record sets, or None for the many records that set no status."""
    if not any(op in line for op in (b'"end"', b'"resume"', b'"create"')):
        return None
    record = _decode(line)
    if record is None:
        return None
    if record["op"] == "end":
        return str(record.get("status"))
    return "running" if record["op"] in ("resume", "create") else None
