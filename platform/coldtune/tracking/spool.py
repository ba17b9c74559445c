"""One run's journal on disk: what is to reach the tracking server, in order, whatever becomes of us or of the server.

A spool is two files. `trial-0003.jsonl` holds one JSON record a line and is only ever appended to; `trial-0003.state`
says up to which byte it has been delivered, to whom, and as which run. Losing the state only costs a replay, which
the server's idempotence makes harmless; the journal is the whole history of the run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from coldtune.files import lock_open_file, write_file

STUDY = "study"
SUFFIX = ".jsonl"
_TAIL = 2**16
_LOG = logging.getLogger("coldtune.tracking")

Record = dict[str, Any]


def now() -> int:
    """Milliseconds since the epoch: the time stamp of every record, taken when it happened and not when it was sent."""
    return time.time_ns() // 1_000_000


def run_file(trial: int | None) -> str:
    """The spool's name for a trial; None is the study's own (parent) run."""
    return STUDY if trial is None else f"trial-{trial:04d}"


@dataclass(frozen=True)
class State:
    """How far a spool was delivered. `target` names the server and experiment that `run_id` and `offset` hold for."""

    target: str = ""
    run_id: str | None = None
    offset: int = 0
    attempts: int = 0  # failed tries at the record at `offset`, counted only while the server itself answers


class Spool:
    """The journal and delivery state of one run, shared by any number of processes.

    Appending needs no lock (one `write` per record to a file opened for appending); delivering does: `lock`.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.path = directory / f"{name}{SUFFIX}"
        self.state_path = directory / f"{name}.state"
        self.rejected_path = directory / f"{name}.rejected"
        self._file: int | None = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record. It outlives this process from here on (a SIGKILL, not a power cut).

        Raises OSError where the disk refuses it.
        """
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if self._file is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                line = b"\n" + line  # a writer died in mid-line: close its line, so that ours stays whole
        os.write(self._file, line)

    def close(self) -> None:
        """Give the file handle back; a later `append` opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def size(self) -> int:
        """Bytes in the journal; 0 where there is none."""
        try:
            return self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def read(self, offset: int = 0, limit: int = 500) -> tuple[list[tuple[Record, int]], int]:
        """Up to `limit` records from byte `offset`, each with the offset behind it, and the offset behind them all.

        A line that a dying writer left torn is skipped; a line still being written is left for the next time.
        """
        records: list[tuple[Record, int]] = []
        try:
            file = self.path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return [], offset
        with file:
            file.seek(offset)
            while len(records) < limit:
                line = file.readline()
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                if (record := _parse(line, self.path)) is not None:
                    records.append((record, offset))
        return records, offset

    def status(self) -> str | None:
        """How the run stands by its last word about that: "running", or how it ended; None where there is no journal.

        Looks at the end of the journal first: the cost does not grow with what was recorded.
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
        """Close a line that a killed writer left torn, so that it does not wait for its end; False where there is none.

        For a journal that nobody writes to.
        """
        try:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
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
        """The lines from byte `begin` to byte `end`."""
        if begin >= end:
            return 0
        with self.path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin).count(b"\n")

    def sync(self) -> None:
        """Force the journal to the disk: a power cut must not take back what the server was told."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def state(self, target: str | None = None) -> State:
        """The delivery state. With `target`: a fresh state where the stored one holds for another server."""
        try:
            state = State(**json.loads(self.state_path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            state = State()
        if target is not None and (state.target != target or state.offset > self.size()):
            return State(target=target)
        return state

    def save(self, state: State) -> State:
        """Replace the delivery state (atomically); only for the holder of `lock`."""
        write_file(self.state_path, json.dumps(asdict(state)))
        return state

    @contextmanager
    def lock(self, wait: float = 0.0) -> Iterator[bool]:
        """Hold the right to deliver this spool while the block runs.

        The journal itself is locked, not a file beside it: thousands of trials would leave thousands of lock files.
        A killed holder loses the lock at once.

        Args:
            wait: Seconds to wait for another process that delivers the spool.

        Yields:
            False if another process is still delivering after `wait` seconds, or if there is no journal.
        """
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            yield False
            return
        try:
            yield lock_open_file(file, wait)
        finally:
            os.close(file)

    def keep(self, path: Path) -> str:
        """Copy a file beside the journal until it is delivered; gives its place relative to `directory`."""
        place = self.directory / f"{self.name}.files" / str(time.time_ns())
        place.mkdir(parents=True)
        shutil.copyfile(path, place / path.name)
        return str((place / path.name).relative_to(self.directory))

    def discard(self, kept: str) -> None:
        """Remove a delivered file that `keep` copied, and the folders that it leaves empty."""
        path = self.directory / kept
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            try:
                folder.rmdir()
            except OSError:
                return

    def sweep(self, known: Collection[str]) -> None:
        """Remove the copies of a writer that was killed before it could record them; `known` are those recorded."""
        for path in (self.directory / f"{self.name}.files").glob("*/*"):
            if (kept := str(path.relative_to(self.directory))) not in known:
                self.discard(kept)

    def reject(self, record: Record, reason: str) -> None:
        """Set aside a record that the server will never take, so that those behind it can pass."""
        _LOG.warning("%s: the tracking server refuses a record (kept in %s): %s", self.name, self.rejected_path, reason)
        with self.rejected_path.open("a") as file:
            file.write(json.dumps({"reason": reason, "record": record}) + "\n")


def sizes(directory: Path) -> dict[str, int]:
    """The journals of a directory by name and their size in bytes; the study's last.

    Last, because its trials may have to make its run anew, which starts its delivery again. One pass over the
    directory: cheap enough to be repeated every second for thousands of trials.
    """
    try:
        with os.scandir(directory) as entries:
            found = {e.name.removesuffix(SUFFIX): e.stat().st_size for e in entries if e.name.endswith(SUFFIX)}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name: found[name] for name in sorted(found, key=lambda name: (name == STUDY, name))}


def advanced(state: State, offset: int) -> State:
    """`state` after everything before `offset` was delivered."""
    return replace(state, offset=offset, attempts=0)


def _parse(line: bytes, path: Path) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or "op" not in record:
        if line.strip():
            _LOG.warning("%s: skipped a torn line of %d bytes", path, len(line))
        return None
    return record


def _status(line: bytes) -> str | None:
    """What a record says about how its run stands: nothing, for most."""
    if not any(op in line for op in (b'"end"', b'"resume"', b'"create"')):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if record["op"] == "end":
        return str(record["status"])
    return "running" if record["op"] in ("resume", "create") else None
