"""What a study, a trial or any other process calls to have something recorded. Cheap, and never in the way."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from coldtune.tracking.drain import Drainer
from coldtune.tracking.runs import STATUSES
from coldtune.tracking.server import Target
from coldtune.tracking.spool import Record, Spool, now, run_file

Status = Literal["finished", "pruned", "failed", "interrupted"]

_LOG = logging.getLogger("coldtune.tracking")
_NAME = re.compile(r"[\w\-. :]+(/[\w\-. :]+)*")
_MAX_NAME = 250
_MAX_TAG = 8000


class Tracker:
    """The run of one (study, trial), written to `spool`/trial-0003.jsonl (or study.jsonl) and delivered from there.

    Every call appends a line to that file and returns: no network, no database, and no exception for a full disk
    (a warning, once). With a `target` a background thread of this process delivers; without one, whoever runs a
    `Drainer` over the directory does (the driver, for all trials of a study whose home it shares).

    Opened again for the same run, after a crash or for a resume, it continues that run: metrics at steps that the
    journal already holds are dropped (a training that goes on from its last checkpoint passes them again), and so
    are parameters. `running=False` opens a run only to end it, from another process.

    Raises ValueError for a study name with quotes, and for metric, parameter and tag names MLflow would refuse.
    """

    def __init__(
        self,
        spool: Path,
        study: str,
        trial: int | None = None,
        *,
        name: str = "",
        tags: Mapping[str, object] | None = None,
        target: Target | None = None,
        running: bool = True,
    ) -> None:
        if not study or re.search(r"['\"`\\]", study):
            raise ValueError(f"study = {study!r}: allowed: a name without quotes and backslashes")
        self.study, self.trial = study, trial
        self._spool = Spool(spool, run_file(trial))
        self._params: dict[str, str] = {}
        self._steps: dict[str, set[int]] = {}
        self._kept: set[str] = set()
        self._broken = False
        self._target = target
        last = self._recall()
        if last is None:
            name = name or (study if trial is None else f"trial {trial}")
            texts = {_checked(key): _text(value)[:_MAX_TAG] for key, value in (tags or {}).items()}
            self._append({"op": "create", "study": study, "trial": trial, "name": name, "tags": texts})
        elif running:
            self._spool.sweep(self._kept)
            self._append({"op": "resume"})
            if tags:
                self.tags(tags)
        self._drainer = None if target is None else Drainer(spool, target, name=run_file(trial))

    def params(self, values: Mapping[str, object]) -> None:
        """Record parameters; strings as they are, everything else as JSON. The first value of a name stays."""
        texts = {_checked(key): _text(value) for key, value in values.items()}
        changed = [key for key, text in texts.items() if self._params.get(key, text) != text]
        if changed:
            _LOG.warning("%s: parameters keep the values they were first given: %s", self._spool.name, changed)
        new = {key: text for key, text in texts.items() if key not in self._params}
        if new:
            self._params |= new
            self._append({"op": "params", "values": new})

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Record metrics at a step (NaN and infinities included; None is skipped)."""
        known = self._steps
        kept = {_checked(key): value for key, value in values.items() if value is not None}
        new = {key: _number(value) for key, value in kept.items() if step not in known.get(key, ())}
        if new:
            self._append({"op": "metrics", "step": int(step), "values": new})

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags; a later value replaces an earlier one."""
        self._append({"op": "tags", "values": {_checked(k): _text(v)[:_MAX_TAG] for k, v in values.items()}})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file under its own name in a folder of the run's artifacts. It is copied at once.

        Raises ValueError where `path` is not a file.
        """
        if not path.is_file():
            raise ValueError(f"artifact = {str(path)!r}: not a file")
        try:
            kept = self._spool.keep(path)
        except OSError as error:
            self._warn(error)
        else:
            self._append({"op": "artifact", "path": kept, "folder": folder})

    def end(self, status: Status, reason: str | None = None) -> None:
        """Record how the run ended, and since when; the reason becomes a tag and the run's description.

        "interrupted" is a run that may be taken up again (MLflow shows KILLED); a pruned one counts as finished.
        """
        if status not in STATUSES:
            raise ValueError(f"status = {status!r}: allowed: {', '.join(STATUSES)}")
        record = {"op": "end", "status": status}
        self._append(record if reason is None else {**record, "reason": reason[: _MAX_TAG - 100]})

    def run_id(self, timeout: float = 0.0) -> str | None:
        """MLflow's id of the run; None where it is not known after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            state = self._spool.state(self._target.key if self._target else None)
            if state.run_id is not None or time.monotonic() >= deadline:
                return state.run_id
            time.sleep(0.05)

    def flush(self, timeout: float) -> bool:
        """Wait until everything so far is delivered, by whichever process does it; False after `timeout` seconds."""
        if self._drainer is not None:
            return self._drainer.flush(timeout)
        deadline = time.monotonic() + timeout
        size = self._spool.size()
        while self._spool.state().offset < size:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

    def close(self, timeout: float = 10.0) -> None:
        """Stop the background thread, giving it up to `timeout` seconds for the rest (none in an outage)."""
        if self._drainer is not None:
            self._drainer.close(timeout)
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recall(self) -> Record | None:
        """Learn from the journal what was recorded before; gives its last record."""
        last, offset = None, 0
        while True:
            try:
                records, offset = self._spool.read(offset)
            except OSError as error:
                self._warn(error)
                return last
            if not records:
                return last
            for record, _ in records:
                last = record
                if record["op"] == "params":
                    self._params |= record["values"]
                elif record["op"] == "artifact":
                    self._kept.add(record["path"])
                elif record["op"] == "metrics":
                    for key in record["values"]:
                        self._steps.setdefault(key, set()).add(record["step"])

    def _append(self, record: Record) -> None:
        try:
            self._spool.append({**record, "time": now()})
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._broken:
            _LOG.warning("%s: cannot be used, so what follows may not be recorded: %s", self._spool.path, error)
        self._broken = True


def _checked(name: str) -> str:
    parts = name.split("/")
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME or "." in parts or ".." in parts:
        allowed = "letters, digits, and _ - . : space, in parts separated by single slashes, at most 250 characters"
        raise ValueError(f"name = {name!r}: cannot be a metric, parameter or tag; allowed: {allowed}")
    return name


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float) -> float | str:
    """A float for JSON, which has no NaN: those travel as text."""
    number = float(value)
    return number if math.isfinite(number) else str(number)
