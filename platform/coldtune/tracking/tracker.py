"""The interface by which a study, a trial or another process records metrics, parameters, tags and artifacts."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from coldtune.addresses import redact
from coldtune.tracking.drain import Drainer
from coldtune.tracking.runs import STATUSES, TAG_IMAGES
from coldtune.tracking.server import Target
from coldtune.tracking.spool import Record, Spool, has_form, now, run_file

Status = Literal["finished", "pruned", "failed", "interrupted"]

_LOG = logging.getLogger("coldtune.tracking")
_NAME = re.compile(r"[\w\-. :]+(/[\w\-. :]+)*")
_MAX_NAME = 250
_MAX_TAG = 8000
_MAX_DIGEST = 36  # characters of a dataset's digest that MLflow allows
# The folder and the file names by which MLflow's image grid finds pictures: KEY+step+STEP+timestamp+TIME+ID.png, and a
# small copy of it. A key's slashes are written as ~.
_IMAGES = "images"
_IMAGE = re.compile(r"(?P<key>[^+]+)\+step\+(?P<step>\d+)\+timestamp\+.+")
_SMALL = 256  # pixels of the longer side of the small copy


class Tracker:
    """The run of a study or trial, written to `spool`/study.jsonl or `spool`/trial-0003.jsonl and delivered from there.

    Every call appends a line to this file and returns. It uses no network and no database. A full disk causes a warning
    at the first failure and no exception.

    A run that is opened again, after a crash or for a resume, is continued. Metrics at steps that are already in the
    journal are dropped, because a training that continues from its last checkpoint repeats these steps. Parameters that
    are already in the journal are dropped, too.

    Args:
        trial: None for the study's own run.
        name: The run's name in MLflow. The default is the study's name or "trial 3".
        target: Deliver the records by a background thread of this process. Without a target, another process must run a
            `Drainer` over the directory. The driver does so for all trials of a study that share its home.
        running: False opens a run of another process only to end it.

    Raises:
        ValueError: If the study's name has quotes. The methods raise it for names of metrics, parameters and tags that
            MLflow would refuse.
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
        self._files: set[str] = set()
        self._tags: dict[str, str] = {}
        self._images: dict[tuple[str, int], str] = {}
        self._datasets: set[tuple[str, str]] = set()
        self._models: set[str] = set()
        self._broken = False
        self._target = target
        last = self._read_journal()
        if last is None:
            name = name or (study if trial is None else f"trial {trial}")
            texts = {_check_name(key): _text(value)[:_MAX_TAG] for key, value in (tags or {}).items()}
            self._append({"op": "create", "study": study, "trial": trial, "name": name, "tags": texts})
        elif running:
            self._spool.remove_unrecorded_files(self._files)
            self._append({"op": "resume"})
            if tags:
                self.tags(tags)
        self._drainer = None if target is None else Drainer(spool, target, name=run_file(trial))

    def params(self, values: Mapping[str, object]) -> None:
        """Record parameters, strings as they are and other values as JSON. A parameter keeps its first value."""
        texts = {_check_name(key): _text(value) for key, value in values.items()}
        changed = [key for key, text in texts.items() if self._params.get(key, text) != text]
        if changed:
            _LOG.warning("%s: parameters keep their first values: %s", self._spool.name, changed)
        new = {key: text for key, text in texts.items() if key not in self._params}
        if new:
            self._params |= new
            self._append({"op": "params", "values": new})

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Record metrics at a step. NaN and infinities are recorded, None is skipped."""
        known = self._steps
        given = {_check_name(key): value for key, value in values.items() if value is not None}
        new = {key: _number(value) for key, value in given.items() if step not in known.get(key, ())}
        if new:
            self._append({"op": "metrics", "step": int(step), "values": new})

    def has_metric(self, name: str) -> bool:
        """Return True if the run has a metric of this name at any step."""
        return name in self._steps

    def next_step(self, name: str) -> int:
        """Return the step after the last one that an earlier process recorded for a metric. 0 if it recorded none."""
        return max(self._steps.get(name, ()), default=-1) + 1

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags. A later value replaces an earlier value."""
        texts = {_check_name(key): _text(value)[:_MAX_TAG] for key, value in values.items()}
        self._tags |= texts
        self._append({"op": "tags", "values": texts})

    def tag(self, name: str) -> str:
        """Return the value of a tag that was set by `tags`, "" if there is none."""
        return self._tags.get(name, "")

    def dataset(self, name: str, fingerprint: str, context: str, path: Path, profile: Mapping[str, object]) -> None:
        """Link a dataset to the run.

        Args:
            fingerprint: The identity of its images. MLflow's digest is its beginning, and the profile has all of it.
            context: What the run uses it for, such as "training" or "evaluation".
            path: The folder in which it is.
            profile: Numbers that describe it.
        """
        if (name, context) not in self._datasets:
            self._datasets.add((name, context))
            self._append({
                "op": "dataset", "name": name, "digest": fingerprint[:_MAX_DIGEST], "context": context,
                "source_type": "local", "source": json.dumps({"uri": str(path)}),
                "profile": json.dumps({**profile, "fingerprint": fingerprint}),
            })  # fmt: skip

    def image(self, path: Path, key: str, step: int = 0) -> None:
        """Record a PNG for MLflow's image grid, which shows the pictures of equal key and step of several runs.

        A picture of a known key and step is recorded once, so a resumed trial does not show it twice.

        Raises:
            ValueError: If `path` is no picture, or MLflow would refuse the key.
        """
        from PIL import Image

        stem = self._images.get((_check_name(key), step))
        if stem is None:
            name = f"{key.replace('/', '~')}+step+{step}+timestamp+{now()}"
            stem = f"{name}+{sha256(name.encode()).hexdigest()[:32]}"
        recorded = {Path(copy).name for copy in self._files}
        with tempfile.TemporaryDirectory() as scratch:
            whole, small = Path(scratch) / f"{stem}.png", Path(scratch) / f"{stem}+compressed.webp"
            shutil.copyfile(path, whole)
            with Image.open(path) as picture:
                picture.thumbnail((_SMALL, _SMALL))
                picture.save(small)
            for file in (whole, small):
                if file.name not in recorded:
                    self.artifact(file, _IMAGES)
        self._images[key, step] = stem
        if not self.tag(TAG_IMAGES):
            self.tags({TAG_IMAGES: "True"})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file under its own name in a folder of the run's artifacts. It is copied at once.

        Raises:
            ValueError: If `path` is not a file.
        """
        if not path.is_file():
            raise ValueError(f"artifact = {str(path)!r}: not a file")
        try:
            copy = self._spool.add_file(path)
        except OSError as error:
            self._warn(error)
        else:
            self._files.add(copy)
            self._append({"op": "artifact", "path": copy, "folder": folder})

    def has_model(self, name: str) -> bool:
        """Return True if the run has a logged model of this name."""
        return name in self._models

    def model(self, folder: Path, name: str) -> None:
        """Record a folder in the layout of an MLflow model as a logged model of the run. A name is recorded once.

        The folder is copied at once, as a ZIP file.
        """
        if self.has_model(name):
            return
        self._models.add(name)
        with tempfile.TemporaryDirectory() as scratch:
            packed = shutil.make_archive(str(Path(scratch) / "model"), "zip", folder)
            try:
                copy = self._spool.add_file(Path(packed))
            except OSError as error:
                self._warn(error)
            else:
                self._append({"op": "model", "path": copy, "name": name})

    def end(self, status: Status, reason: str | None = None) -> None:
        """Record how and when the run ended.

        Args:
            status: An "interrupted" run may be resumed, and MLflow shows KILLED. A pruned run counts as finished.
            reason: Becomes a tag and the run's description.
        """
        if status not in STATUSES:
            raise ValueError(f"status = {status!r}: allowed: {', '.join(STATUSES)}")
        record = {"op": "end", "status": status}
        self._append(record if reason is None else {**record, "reason": redact(reason)[: _MAX_TAG - 100]})

    def run_id(self, timeout: float = 0.0) -> str | None:
        """Return MLflow's id of the run, or None if it is not known after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            state = self._spool.state(self._target.key, self._target.born) if self._target else self._spool.state()
            if state.run_id is not None or time.monotonic() >= deadline:
                return state.run_id
            time.sleep(0.05)

    def flush(self, timeout: float) -> bool:
        """Wait until all records are delivered, by this or another process.

        Returns:
            False if they are not delivered after `timeout` seconds.
        """
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
        """Stop the background thread after it delivered the rest, which takes at most `timeout` seconds.

        In an outage the rest stays in the spool, and this returns at once.
        """
        if self._drainer is not None:
            self._drainer.close(timeout)
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_journal(self) -> Record | None:
        """Read the steps, parameters and artifacts that are already in the journal. Return its last record."""
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
                if not has_form(record):
                    continue
                if record["op"] == "params":
                    self._params |= record["values"]
                elif record["op"] == "artifact":
                    self._files.add(record["path"])
                    self._add_image(Path(record["path"]), record["folder"])
                elif record["op"] == "model":
                    self._files.add(record["path"])
                    self._models.add(record["name"])
                elif record["op"] == "tags":
                    self._tags |= record["values"]
                elif record["op"] == "dataset":
                    self._datasets.add((record["name"], record["context"]))
                elif record["op"] == "metrics":
                    for key in record["values"]:
                        self._steps.setdefault(key, set()).add(record["step"])

    def _add_image(self, path: Path, folder: str) -> None:
        stem = path.stem.removesuffix("+compressed")
        if folder == _IMAGES and (parts := _IMAGE.fullmatch(stem)) is not None:
            self._images[parts["key"].replace("~", "/"), int(parts["step"])] = stem

    def _append(self, record: Record) -> None:
        try:
            self._spool.append({**record, "time": now()})
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._broken:
            _LOG.warning("%s: cannot be used, so later records may be lost: %s", self._spool.path, error)
        self._broken = True


def _check_name(name: str) -> str:
    parts = name.split("/")
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME or "." in parts or ".." in parts:
        allowed = "letters, digits, and _ - . : space, in parts separated by single slashes, at most 250 characters"
        raise ValueError(f"name = {name!r}: cannot be a metric, parameter or tag; allowed: {allowed}")
    return name


def _text(value: Any) -> str:
    """Return a value as text without passwords, because everybody who can open MLflow's pages reads it."""
    return redact(value if isinstance(value, str) else json.dumps(value))


def _number(value: float) -> float | str:
    """Convert a number for JSON, which has no NaN and infinities. They are written as text."""
    number = float(value)
    return number if math.isfinite(number) else str(number)
