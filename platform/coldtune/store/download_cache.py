"""Local copies of what lies in an object store: made at first use, checked by the store, and bounded."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from coldtune.durations import DAY_S
from coldtune.store.local_files import WRITING

LIMIT_GB = 20.0
ATTEMPT = re.compile(r"_[0-9a-f]{32}")
_TRIM_S = 60.0


class Copies:
    """Copies of an object store's entries, `<root>/<kind>/<key>/<attempt>/...files`, shared by a machine's processes.

    limit_gb: beyond it, what was not used for a day is removed, the longest unused first (the environment's
    COLDTUNE_STORE_CACHE_GB, otherwise 20). Smaller, and a sweep that returns to a restorer downloads it again. The
    whole folder may be deleted whenever no process uses it.
    """

    def __init__(self, root: Path, limit_gb: float | None = None) -> None:
        self.root = root
        self.limit = 1e9 * (_limit_gb() if limit_gb is None else limit_gb)
        self._trimmed = time.monotonic()

    def folder(self, entry: str, attempt: str) -> Path:
        """Where the copy of an entry lies, or would."""
        return self.root / entry / attempt

    def file(
        self, entry: str, attempt: str, name: str, mark: tuple[int, int], download: Callable[[Path], None]
    ) -> Path:
        """The copy of one file, which `download(path)` makes where there is none of this size and time."""
        path = self.folder(entry, attempt) / name
        if _is(path, mark):
            return path
        fresh = self.scratch() / "file"
        try:
            download(fresh)
            self._place(fresh, path, mark)
        finally:
            shutil.rmtree(fresh.parent, ignore_errors=True)
        self.trim()
        return path

    def touch(self, entry: str, attempt: str) -> None:
        """Note that an entry's copy is in use."""
        with contextlib.suppress(OSError):
            os.utime(self.folder(entry, attempt))

    def adopt(self, scratch: Path, entry: str, attempt: str, marks: Mapping[str, tuple[int, int]]) -> None:
        """Take over what was written into `scratch` and has been uploaded, so that it is not downloaded again."""
        for name, mark in marks.items():
            if (scratch / name).is_file():
                self._place(scratch / name, self.folder(entry, attempt) / name, mark)

    def drop(self, entry: str) -> bool:
        """Remove an entry's copies; False where there are none."""
        rubbish = self.scratch()
        try:
            os.rename(self.root / entry, rubbish / "entry")
        except OSError:
            return False
        finally:
            shutil.rmtree(rubbish, ignore_errors=True)
        return True

    def scratch(self) -> Path:
        """A fresh folder on the copies' file system."""
        path = self.root / WRITING / uuid.uuid4().hex
        path.mkdir(parents=True)
        return path

    def trim(self, every_s: float = _TRIM_S, unused_s: float = DAY_S) -> None:
        """Remove what is beyond the limit, and what killed processes left; at most once in `every_s`.

        unused_s: what was used within it stays, because somebody may still want to open it.
        """
        if time.monotonic() - self._trimmed < every_s:
            return
        self._trimmed, before = time.monotonic(), time.time() - unused_s
        for left in (self.root / WRITING).glob("*"):
            if _used(left) < before:
                shutil.rmtree(left, ignore_errors=True)
        found = [(_used(path), _bytes(path), path) for path in self.root.rglob("_*") if ATTEMPT.fullmatch(path.name)]
        beyond = sum(size for _, size, _ in found) - self.limit
        for used, size, path in sorted(found):
            if beyond <= 0 or used >= before:
                return
            shutil.rmtree(path, ignore_errors=True)
            beyond -= size

    def _place(self, fresh: Path, path: Path, mark: tuple[int, int]) -> None:
        os.utime(fresh, ns=(mark[1], mark[1]))
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(fresh, path)


def _limit_gb() -> float:
    text = os.environ.get("COLDTUNE_STORE_CACHE_GB", str(LIMIT_GB))
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"COLDTUNE_STORE_CACHE_GB = {text!r}: must be a number of gigabytes") from None


def _is(path: Path, mark: tuple[int, int]) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == mark


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
