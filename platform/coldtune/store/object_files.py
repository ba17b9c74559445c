"""The store's files in object storage (S3 and what else pyarrow.fs opens), read through local copies.

    <kind>/<key>/_<attempt>/...files, manifest.json    one attempt to publish an entry, all of it uploaded once
    .claims/<name>._<unique>                           somebody is about to create or publish <name>
    .leases/... .users/... .torn/...                   single objects, as the files of a local store

An attempt has a name of its own, so nothing is ever written over, and its manifest is uploaded last: an attempt without
one is no entry. What is seen of an entry is one attempt with a manifest, so a reader never sees parts of two.

**What is exclusive, and how.** pyarrow.fs cannot write on the condition that nothing is there. `create` and `publish`
are made exclusive by claims: put a claim under a unique name, then list the claims; whoever sees only its own, and then
that the name is still free, writes and withdraws its claim after that; whoever sees another's withdraws, waits for a
random moment and begins again. Of two claimants the one that put its claim later lists both (S3, GCS and Azure list
what was written), so they never both write. A claim that is a minute older than one's own, by the store's clock, was
left by a killed process and is ignored; a claimant that has not written half a minute after its claim withdraws.

That holds unless a process stands still for half a minute between its last look and its write. Then two may hold one
lease, and do the same work twice; or both publish an entry, of which everybody sees the one whose attempt's name comes
first. Both are whole, and equal keys mean equal work.
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
from coldtune.store.bucket import Bucket, PassingError
from coldtune.store.download_cache import ATTEMPT, Copies
from coldtune.store.local_files import Marks
from coldtune.store.manifest import MANIFEST

CLAIMS = ".claims"
_STALE_S = 60.0  # after which a claim is taken for a dead process's
_PAUSES_S = (0.025, 1.0)  # before another try if several want the same, on average: the first, the longest


@dataclass(frozen=True)
class _Object:
    """A file of an entry as it lies there: `<entry>/<attempt>/<rest>`; attempt: empty for what is in none."""

    entry: str
    attempt: str
    rest: str
    mark: tuple[int, int]

    @property
    def name(self) -> str:
        """Its own name in the bucket."""
        return posixpath.join(self.entry, self.attempt, self.rest)


class ObjectFiles:
    """`Files` over a bucket; `shown`: its URL for people. Safe for threads and processes, not across a fork."""

    parallel = 16

    def __init__(self, bucket: Bucket, copies: Copies, shown: str) -> None:
        self.bucket, self.copies, self.shown = bucket, copies, shown.rstrip("/")
        self._trees: dict[str, dict[str, _Object]] = {}  # as last seen

    def has(self, name: str) -> bool:
        """Whether there is such a file, by one request."""
        if name.startswith("."):
            return self.bucket.has(name)
        folder, _, file = name.rpartition("/")
        return file in self._objects(folder)

    def open(self, name: str) -> BinaryIO:
        """A file, of an entry its local copy, for reading; what `tree` saw last counts, not what came since."""
        if name.startswith("."):
            return io.BytesIO(self.bucket.get(name))
        return self._copy(self._located(name)).open("rb")

    def stream(self, name: str) -> BinaryIO:
        """A file as it lies in the bucket."""
        found = name if name.startswith(".") else self._located(name).name
        return cast("BinaryIO", self.bucket.read(found))

    def write(self, name: str, data: bytes) -> None:
        """Write a small object."""
        self.bucket.put(name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small object where there is none, by a claim (see above)."""

        def there() -> bytes | None:
            try:
                return self.bucket.get(name)
            except FileNotFoundError:
                return None

        return self._exclusively(name, there, data, lambda: self.bucket.put(name, data, patience_s=0.0))

    def list(self, folder: str) -> list[str]:
        """The names in a folder; attempts are not names."""
        return [name for name in self.bucket.names(folder) if not ATTEMPT.fullmatch(name)]

    def tree(self, name: str) -> Marks | None:
        """Size and the store's time (ns) of the files below a name."""
        found = self._trees[name] = self._objects(name)
        if not found and name.startswith(".") and self.bucket.has(name):
            return {".": (len(self.bucket.get(name)), time.time_ns())}
        return {file: one.mark for file, one in found.items()} or None

    def leftovers(self) -> Iterator[tuple[str, Marks]]:
        """Attempts without a manifest, those that came second, and claims."""
        seen = {one.name for one in self._objects("").values()}
        left: dict[str, Marks] = {}
        for name, mark in self.bucket.walk(""):
            parts = name.split("/")
            place = next((i for i, part in enumerate(parts) if ATTEMPT.fullmatch(part)), None)
            if place is not None and name not in seen:
                left.setdefault("/".join(parts[: place + 1]), {})["/".join(parts[place + 1 :])] = mark
            elif parts[0] == CLAIMS:
                left[name] = {".": mark}
        yield from left.items()

    def scratch(self) -> Path:
        """A folder beside the local copies."""
        return self.copies.scratch()

    def publish(self, scratch: Path, name: str) -> bool:
        """Upload an attempt; its manifest last and exclusively, which publishes it."""
        if self._occupied(name) is not None:
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
            won = self._exclusively(name, lambda: self._occupied(name), attempt, commit)
        finally:
            if not won:
                with contextlib.suppress(OSError):
                    self.bucket.delete_tree(folder)
        if won:
            found = self._trees[name] = self._objects(name)
            marks = {file: one.mark for file, one in found.items() if one.attempt == attempt}
            self.copies.adopt(scratch, name, attempt, marks)
        return won

    def move(self, name: str, to: str) -> bool:
        """Copy what is seen, then remove it, the manifest first; not atomic, but what is being moved is no entry."""
        found = self._objects(name)
        if not found and not (name.startswith(".") and self.bucket.has(name)):
            return False
        pairs = [(one.name, f"{to}/{file}") for file, one in found.items()] or [(name, to)]
        try:
            for source, target in pairs:
                self.bucket.copy(source, target)
        except FileNotFoundError:
            return False  # another process moves or removes it
        for source, _ in sorted(pairs, key=lambda pair: not pair[0].endswith(f"/{MANIFEST}")):
            with contextlib.suppress(FileNotFoundError):
                self.bucket.delete(source)
        self.copies.drop(name)
        return True

    def remove(self, name: str) -> None:
        """Remove an object, or a folder: first the manifests, that of the attempt which is seen last."""
        try:
            self.bucket.delete(name)
        except FileNotFoundError:
            seen = {one.name for one in self._objects(name).values()}
            walked = [f"{name}/{file}" for file, _ in self.bucket.walk(name)]
            manifests = [file for file in walked if posixpath.basename(file) == MANIFEST]
            for file in sorted(manifests, key=lambda file: file in seen):
                with contextlib.suppress(FileNotFoundError):
                    self.bucket.delete(file)
            self.bucket.delete_tree(name)
        self.copies.drop(name)

    def local(self, name: str) -> Path:
        """The copy of an entry, whole: what is missing is downloaded."""
        found = self._trees.get(name) or self._objects(name)
        if not found:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(name))
        with ThreadPoolExecutor(self.parallel) as pool:
            list(pool.map(self._copy, found.values()))
        one = next(iter(found.values()))
        self.copies.touch(one.entry, one.attempt)
        return self.copies.folder(one.entry, one.attempt)

    def forget(self, name: str) -> bool:
        """Remove the copies of an entry."""
        return self.copies.drop(name)

    def where(self, name: str) -> str:
        """The URL of an entry, without its attempt."""
        return f"{self.shown}/{name}"

    def address(self, path: Path) -> str:
        """The URL of the entry whose copy is `path`."""
        return self.where(path.relative_to(self.copies.root).parent.as_posix())

    def _objects(self, name: str) -> dict[str, _Object]:
        """What is seen below a name: of each entry the attempt that counts, and what is in no attempt."""
        entries: dict[str, dict[str, list[_Object]]] = {}
        found: dict[str, _Object] = {}
        for file, mark in self.bucket.walk(name):
            parts = file.split("/")
            place = next((i for i, part in enumerate(parts) if ATTEMPT.fullmatch(part)), None)
            if place is None:
                found[file] = _Object(name, "", file, mark)
            else:
                head = "/".join(parts[:place])
                one = _Object(posixpath.join(name, head).rstrip("/"), parts[place], "/".join(parts[place + 1 :]), mark)
                entries.setdefault(head, {}).setdefault(one.attempt, []).append(one)
        for head, attempts in entries.items():
            whole = [name for name, files in attempts.items() if any(one.rest == MANIFEST for one in files)]
            for one in attempts[min(whole)] if whole else []:
                found[posixpath.join(head, one.rest)] = one
        return found

    def _located(self, name: str) -> _Object:
        """A file of an entry, as the last `tree` saw it; looked for where none did."""
        for parent in map(str, PurePosixPath(name).parents):
            seen = self._trees.get("" if parent == "." else parent, {})
            if one := seen.get(name.removeprefix(f"{parent}/")):
                return one
        folder, _, file = name.rpartition("/")
        if one := self._objects(folder).get(file):
            return one
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(name))

    def _copy(self, one: _Object) -> Path:
        def download(path: Path) -> None:
            self.bucket.download(one.name, path)

        return self.copies.file(one.entry, one.attempt, one.rest, one.mark, download)

    def _occupied(self, name: str) -> str | None:
        """The attempt that is the entry; empty where something else is there; None where the name is free."""
        found = self._objects(name)
        return found[MANIFEST].attempt if MANIFEST in found else "" if found else None

    def _exclusively(
        self, name: str, there: Callable[[], object | None], mine: object, commit: Callable[[], None]
    ) -> bool:
        """`commit()` unless something is there; of all that want to, one does. mine: what is `there` after it."""
        tried, deadline = False, time.monotonic() + self.bucket.patience_s
        waits = pauses(*_PAUSES_S, jitter=1.0)
        while True:
            if (now := there()) is not None:
                return tried and now == mine  # the answer to our own write may have been lost
            claim = f"{CLAIMS}/{name.replace('/', '+')}._{uuid.uuid4().hex}"
            asked = time.monotonic()
            self.bucket.put(claim, b"")
            try:
                if self._alone(name, claim) and there() is None and time.monotonic() - asked < _STALE_S / 2:
                    tried = True
                    commit()
                    return True
            except PassingError:
                if time.monotonic() > deadline:
                    raise
            finally:
                with contextlib.suppress(FileNotFoundError):
                    self.bucket.delete(claim)
            time.sleep(next(waits))

    def _alone(self, name: str, claim: str) -> bool:
        """Whether our claim is there and nobody else's who may still be alive."""
        start = f"{name.replace('/', '+')}._"
        claims = {f"{CLAIMS}/{file}": mark for file, mark in self.bucket.walk(CLAIMS) if file.startswith(start)}
        if claim not in claims:
            return False
        ours = claims[claim][1]
        return all(ours - mark[1] > _STALE_S * 1e9 for other, mark in claims.items() if other != claim)
