"""Local copies of entries in an object store, downloaded at first use and limited in size."""

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
from coldtune.store.local_files import SCRATCH

LIMIT_GB = 20.0
ATTEMPT = re.compile(r"_[0-9a-f]{32}")
"""The name of an attempt to publish an entry (see `object_files`)."""

_TRIM_EVERY_S = 60.0


class DownloadCache:
    """Copies of an object store's entries, `<root>/<kind>/<key>/<attempt>/...files`, shared by a machine's processes.

    The folder may be deleted at any time when no process uses it.

    Args:
        limit_gb: Above this size, copies that were not used for a day are removed, the least recently used first. If
            it is too small, a sweep that returns to a restorer downloads it again. The default is the environment's
            COLDTUNE_STORE_CACHE_GB, or 20.

    Raises:
        ValueError: If COLDTUNE_STORE_CACHE_GB is not a number.
    """

    def __init__(self, root: Path, limit_gb: float | None = None) -> None:
        self.root = root
        self.limit = 1e9 * (_limit_gb() if limit_gb is None else limit_gb)
        self._trimmed = time.monotonic()

    def folder(self, entry: str, attempt: str) -> Path:
        """Return the folder of an entry's copy, whether or not it exists."""
        return self.root / entry / attempt

    def file(
        self, entry: str, attempt: str, name: str, stat: tuple[int, int], download: Callable[[Path], None]
    ) -> Path:
        """Return the copy of one file, after downloading it if there is no copy of this size and time.

        Args:
            stat: Size in bytes and modification time in nanoseconds of the original. The copy gets the same time.
            download: Called with the path to write.
        """
        path = self.folder(entry, attempt) / name
        if _has_stat(path, stat):
            return path
        fresh = self.scratch() / "file"
        try:
            download(fresh)
            self._place(fresh, path, stat)
        finally:
            shutil.rmtree(fresh.parent, ignore_errors=True)
        self.trim()
        return path

    def touch(self, entry: str, attempt: str) -> None:
        """Record that an entry's copy was used now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder(entry, attempt))

    def adopt(self, scratch: Path, entry: str, attempt: str, stats: Mapping[str, tuple[int, int]]) -> None:
        """Move the files of an entry that was just uploaded into the cache, so that they are not downloaded again."""
        for name, stat in stats.items():
            if (scratch / name).is_file():
                self._place(scratch / name, self.folder(entry, attempt) / name, stat)

    def remove(self, entry: str) -> bool:
        """Remove the copies of an entry. Return False if there are none."""
        doomed = self.scratch()
        try:
            os.rename(self.root / entry, doomed / "entry")
        except OSError:
            return False
        finally:
            shutil.rmtree(doomed, ignore_errors=True)
        return True

    def scratch(self) -> Path:
        """Create an empty folder on the file system of the copies."""
        path = self.root / SCRATCH / uuid.uuid4().hex
        path.mkdir(parents=True)
        return path

    def trim(self, every_s: float = _TRIM_EVERY_S, unused_s: float = DAY_S) -> None:
        """Remove copies above the size limit, and files that killed processes left behind.

        Args:
            every_s: Do nothing if this object trimmed the cache within these seconds.
            unused_s: Keep everything that was used within these seconds, because a process may still open it.
        """
        if time.monotonic() - self._trimmed < every_s:
            return
        self._trimmed, before = time.monotonic(), time.time() - unused_s
        for left in (self.root / SCRATCH).glob("*"):
            if _last_use(left) < before:
                shutil.rmtree(left, ignore_errors=True)
        copies = [
            (_last_use(path), _size(path), path) for path in self.root.rglob("_*") if ATTEMPT.fullmatch(path.name)
        ]
        excess = sum(size for _, size, _ in copies) - self.limit
        for last_use, size, path in sorted(copies):
            if excess <= 0 or last_use >= before:
                return
            shutil.rmtree(path, ignore_errors=True)
            excess -= size

    def _place(self, fresh: Path, path: Path, stat: tuple[int, int]) -> None:
        os.utime(fresh, ns=(stat[1], stat[1]))
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(fresh, path)


def _limit_gb() -> float:
    text = os.environ.get("COLDTUNE_STORE_CACHE_GB", str(LIMIT_GB))
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"COLDTUNE_STORE_CACHE_GB = {text!r}: must be a number of gigabytes") from None


def _has_stat(path: Path, expected: tuple[int, int]) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == expected


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
