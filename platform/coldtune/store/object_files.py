"""The store's files in object storage (S3, GCS and others that pyarrow.fs opens), read through local copies.

    <kind>/<key>/_<attempt>/...files, manifest.json    one attempt to publish an entry
    .claims/<name>._<unique>                           a process is about to create or publish <name>
    .leases/... .users/... .torn/...                   single objects, as the files of a local store

Every attempt has a unique name and is uploaded once, so nothing is ever overwritten. Its manifest is uploaded last. An
attempt without a manifest is no entry. Readers see only one attempt of each entry, so they never mix files of two.

**Exclusive writes.** pyarrow.fs cannot write on the condition that an object does not exist. `create` and `publish`
become exclusive by claims:

1. Put a claim under a unique name, then list the claims on the same target.
2. If there is no other claim, and the target still does not exist, write the target and remove the claim.
3. Otherwise remove the claim, wait for a random time and start again.

Of two claimants, the one that put its claim later lists both claims, because S3, GCS and Azure list an object as soon
as it was written. So they never both write. A claim that is a minute older than the claimant's own,
by the store's clock, was left by a killed process and is ignored. A claimant that has not written within half a minute
removes its claim.

This fails only if a process stands still for half a minute between its last look and its write. Then two processes may
hold one lease and do the same work twice. Or both publish an entry, and every reader sees the attempt whose name sorts
first. Both attempts are whole, and equal keys mean equal work.

A conditional write (`If-None-Match: *`) would need less code, but another client than pyarrow.fs. And a server that
does not know the condition ignores it, so that every process would get the lease. Claims need only up-to-date lists.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import posixpath
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from coldtune.retrying import pauses
from coldtune.store.bucket import Bucket, TransientError
from coldtune.store.download_cache import ATTEMPT, DownloadCache
from coldtune.store.files import FileStats
from coldtune.store.manifest import MANIFEST

CLAIMS = ".claims"
_CLAIM_EXPIRES_S = 60.0  # an older claim is taken for that of a dead process
_PAUSES_S = (0.025, 1.0)  # mean pauses between two tries if several processes want the same: the first, the longest


@dataclass(frozen=True)
class _Object:
    """A file `rest` of an attempt at an entry. If the file belongs to no attempt, `attempt` is empty."""

    entry: str
    attempt: str
    rest: str
    stat: tuple[int, int]

    @property
    def name(self) -> str:
        """Return the object's name in the bucket."""
        return posixpath.join(self.entry, self.attempt, self.rest)


class ObjectFiles:
    """`StoreFiles` in a bucket. Threads and processes may share a bucket, but an instance must not cross a fork.

    Args:
        shown: The bucket's URL for people.
    """

    parallel = 16

    def __init__(self, bucket: Bucket, copies: DownloadCache, shown: str) -> None:
        self.bucket, self.copies, self.shown = bucket, copies, shown.rstrip("/")
        # The last results of `tree`. `open` and `local_path` read the attempt that was checked, not a newer one.
        self._trees: dict[str, dict[str, _Object]] = {}

    def has(self, name: str) -> bool:
        """Return True if the file exists, by a single request."""
        if name.startswith("."):
            return self.bucket.has(name)
        folder, _, file = name.rpartition("/")
        return file in self._visible(folder)

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading. Of an entry, open the local copy of the file that `tree` saw last."""
        if name.startswith("."):
            return io.BytesIO(self.bucket.get(name))
        return self._copy(self._find(name)).open("rb")

    def stream(self, name: str) -> BinaryIO:
        """Open a file for reading in the bucket."""
        return cast("BinaryIO", self.bucket.read(name if name.startswith(".") else self._find(name).name))

    def write(self, name: str, data: bytes) -> None:
        """Write a small object, replacing any previous content."""
        self.bucket.put(name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small object unless it exists, by a claim."""

        def current() -> bytes | None:
            try:
                return self.bucket.get(name)
            except FileNotFoundError:
                return None

        return self._write_exclusively(name, current, data, lambda: self.bucket.put(name, data, patience_s=0.0))

    def list(self, folder: str) -> list[str]:
        """Return the sorted names in a folder, without those of attempts."""
        return [name for name in self.bucket.names(folder) if not ATTEMPT.fullmatch(name)]

    def tree(self, name: str) -> FileStats | None:
        """Return the files below a name with their size and modification time (ns, by the store's clock)."""
        visible = self._trees[name] = self._visible(name)
        if not visible and name.startswith(".") and self.bucket.has(name):
            return {".": (len(self.bucket.get(name)), time.time_ns())}
        return {file: item.stat for file, item in visible.items()} or None

    def leftovers(self) -> Iterator[tuple[str, FileStats]]:
        """Yield attempts without a manifest, second attempts at an entry, and claims."""
        visible = {item.name for item in self._visible("").values()}
        left: dict[str, FileStats] = {}
        for name, stat in self.bucket.walk(""):
            parts = name.split("/")
            place = _attempt_place(parts)
            if place is not None and name not in visible:
                left.setdefault("/".join(parts[: place + 1]), {})["/".join(parts[place + 1 :])] = stat
            elif parts[0] == CLAIMS:
                left[name] = {".": stat}
        yield from left.items()

    def scratch(self) -> Path:
        """Create an empty folder on the file system of the local copies."""
        return self.copies.scratch()

    def publish(self, scratch: Path, name: str) -> bool:
        """Upload an attempt. Its manifest comes last, by a claim, and publishes the entry."""
        if self._current_attempt(name) is not None:
            return False
        attempt = f"_{uuid.uuid4().hex}"
        folder = f"{name}/{attempt}"
        files = [path for path in sorted(scratch.rglob("*")) if path.is_file() and path != scratch / MANIFEST]
        won = False
        try:
            with ThreadPoolExecutor(self.parallel) as pool:
                names = [f"{folder}/{path.relative_to(scratch).as_posix()}" for path in files]
                list(pool.map(self.bucket.upload, names, files))
            manifest = (scratch / MANIFEST).read_bytes()
            commit = lambda: self.bucket.put(f"{folder}/{MANIFEST}", manifest, patience_s=0.0)  # noqa: E731
            won = self._write_exclusively(name, lambda: self._current_attempt(name), attempt, commit)
        finally:
            if not won:
                with contextlib.suppress(OSError):
                    self.bucket.delete_tree(folder)
        if won:
            visible = self._trees[name] = self._visible(name)
            stats = {file: item.stat for file, item in visible.items() if item.attempt == attempt}
            self.copies.adopt(scratch, name, attempt, stats)
        return won

    def move(self, name: str, to: str) -> bool:
        """Copy the visible files, then remove the originals, the manifest first.

        This is not atomic, and need not be, because only damaged entries are moved.
        """
        visible = self._visible(name)
        if not visible and not (name.startswith(".") and self.bucket.has(name)):
            return False
        pairs = [(item.name, f"{to}/{file}") for file, item in visible.items()] or [(name, to)]
        try:
            for source, target in pairs:
                self.bucket.copy(source, target)
        except FileNotFoundError:
            return False  # another process moves or removes the same files
        for source, _ in sorted(pairs, key=lambda pair: not pair[0].endswith(f"/{MANIFEST}")):
            with contextlib.suppress(FileNotFoundError):
                self.bucket.delete(source)
        self.copies.remove(name)
        return True

    def remove(self, name: str) -> None:
        """Remove an object or a folder.

        Manifests go before all other files, and the manifest of the visible attempt goes last of them. Otherwise
        another attempt would become visible in between.
        """
        try:
            self.bucket.delete(name)
        except FileNotFoundError:
            visible = {item.name for item in self._visible(name).values()}
            files = [f"{name}/{file}" for file, _ in self.bucket.walk(name)]
            manifests = [file for file in files if posixpath.basename(file) == MANIFEST]
            for file in sorted(manifests, key=lambda file: file in visible):
                with contextlib.suppress(FileNotFoundError):
                    self.bucket.delete(file)
            self.bucket.delete_tree(name)
        self.copies.remove(name)

    def local_path(self, name: str) -> Path:
        """Return the folder of an entry's local copy, after downloading all files that it lacks."""
        visible = self._trees.get(name) or self._visible(name)
        if not visible:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(name))
        with ThreadPoolExecutor(self.parallel) as pool:
            list(pool.map(self._copy, visible.values()))
        item = next(iter(visible.values()))
        self.copies.touch(item.entry, item.attempt)
        return self.copies.folder(item.entry, item.attempt)

    def discard_copies(self, name: str) -> bool:
        """Remove the local copies of an entry. Return False if there are none."""
        return self.copies.remove(name)

    def where(self, name: str) -> str:
        """Return the URL of an entry, without its attempt."""
        return f"{self.shown}/{name}"

    def address(self, path: Path) -> str:
        """Return the URL of the entry whose local copy is `path`."""
        return self.where(path.relative_to(self.copies.root).parent.as_posix())

    def _visible(self, name: str) -> dict[str, _Object]:
        """Return the files that readers see below a name: a single attempt at each entry, and files of no attempt."""
        entries: dict[str, dict[str, list[_Object]]] = {}
        visible: dict[str, _Object] = {}
        for file, stat in self.bucket.walk(name):
            parts = file.split("/")
            place = _attempt_place(parts)
            if place is None:
                visible[file] = _Object(name, "", file, stat)
            else:
                head = "/".join(parts[:place])
                entry = posixpath.join(name, head).rstrip("/")
                item = _Object(entry, parts[place], "/".join(parts[place + 1 :]), stat)
                entries.setdefault(head, {}).setdefault(item.attempt, []).append(item)
        for head, attempts in entries.items():
            whole = [attempt for attempt, files in attempts.items() if any(item.rest == MANIFEST for item in files)]
            for item in attempts[min(whole)] if whole else []:
                visible[posixpath.join(head, item.rest)] = item
        return visible

    def _find(self, name: str) -> _Object:
        """Find a file of an entry, preferably as the last `tree` of its folder saw it."""
        for parent in map(str, PurePosixPath(name).parents):
            seen = self._trees.get("" if parent == "." else parent, {})
            if item := seen.get(name.removeprefix(f"{parent}/")):
                return item
        folder, _, file = name.rpartition("/")
        if item := self._visible(folder).get(file):
            return item
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(name))

    def _copy(self, item: _Object) -> Path:
        def download(path: Path) -> None:
            self.bucket.download(item.name, path)

        return self.copies.file(item.entry, item.attempt, item.rest, item.stat, download)

    def _current_attempt(self, name: str) -> str | None:
        """Return the visible attempt at an entry, "" if something else is there, or None if the name is free."""
        visible = self._visible(name)
        return visible[MANIFEST].attempt if MANIFEST in visible else "" if visible else None

    def _write_exclusively(
        self, name: str, current: Callable[[], object | None], mine: object, commit: Callable[[], None]
    ) -> bool:
        """Call `commit()` unless something exists. Of several processes that call this, exactly one gets True.

        Args:
            current: Returns the present content of `name`, or None.
            mine: The value that `current` returns after our commit.
        """
        tried, deadline = False, time.monotonic() + self.bucket.patience_s
        waits = pauses(*_PAUSES_S, jitter=1.0)
        while True:
            if (now := current()) is not None:
                return tried and now == mine  # the answer to our own write may have been lost
            claim = f"{CLAIMS}/{name.replace('/', '+')}._{uuid.uuid4().hex}"
            claimed = time.monotonic()
            self.bucket.put(claim, b"")
            try:
                if (
                    self._is_only_claim(name, claim)
                    and current() is None
                    and time.monotonic() - claimed < _CLAIM_EXPIRES_S / 2
                ):
                    tried = True
                    commit()
                    return True
            except TransientError:
                if time.monotonic() > deadline:
                    raise
            finally:
                with contextlib.suppress(FileNotFoundError):
                    self.bucket.delete(claim)
            time.sleep(next(waits))

    def _is_only_claim(self, name: str, claim: str) -> bool:
        """Return True if our claim exists, and no other claim on `name` except those that expired."""
        start = f"{name.replace('/', '+')}._"
        claims = {f"{CLAIMS}/{file}": stat for file, stat in self.bucket.walk(CLAIMS) if file.startswith(start)}
        if claim not in claims:
            return False
        ours = claims[claim][1]
        return all(ours - stat[1] > _CLAIM_EXPIRES_S * 1e9 for other, stat in claims.items() if other != claim)


def _attempt_place(parts: list[str]) -> int | None:
    """Return the index of the part of a name that names an attempt."""
    return next((place for place, part in enumerate(parts) if ATTEMPT.fullmatch(part)), None)
