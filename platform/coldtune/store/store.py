"""The store: a directory, or a bucket, that remembers finished work under the key of what determined it.

    <root>/<kind>/<key>/...files, manifest.json        one entry
    <root>/.writing/<unique>/                          an entry being written (renamed when it is whole), or rubbish
    <root>/.leases/<kind>+<key>.*                      who is making which entry now (`store_lease`)
    <root>/.users/<kind>+<key>/<user>                  who made or found which entry
    <root>/.torn/<kind>-<key>-<unique>/                what was found damaged, kept for a look

An entry is believed only if its manifest names it and exactly the files that are there, each with its size and
SHA-256: a torn, foreign or hand-edited entry is set aside with a warning and rebuilt. Entries are never changed in
place. Each process reads and hashes an entry at its first use, and remembers that it was whole for as long as no file's
size, times or inode change; `coldtune store verify` always reads everything. How the same looks in object storage:
`store_object`.
"""

from __future__ import annotations

import errno
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from coldtune.store.lease import lease
from coldtune.store.local_files import Files, Marks
from coldtune.store.location import StoreAt
from coldtune.store.manifest import MANIFEST, seal, verify

LEASE_S = 30.0

# Entries found whole by this process: by place, their files' marks and their manifest.
_BELIEVED: dict[tuple[StoreAt, str], tuple[Marks, dict[str, Any]]] = {}
# A file may change again without another time of change within the resolution of its file system's clock (FAT: 2 s).
_SETTLED_S = 2.0
_TRIES = 5  # to publish where others set aside and publish at the same time
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class Entry:
    """A finished, verified piece of work: its directory and what its manifest says about it.

    about: what whoever made it said of it (`seconds` at least); made: on which machine, with which versions.
    """

    kind: str
    key: str
    path: Path
    about: Mapping[str, Any]
    made: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """Finished work by (kind, key) in one place, safe against kills and against concurrent writers.

    kind: a short word (`train`, `sample`, ...); key: letters, digits, `-` and `/` (a checkpoint's key is
    `<training key>/<step>`). at: a directory on any file system whose rename and exclusive creation are atomic (a local
    disk, NFS), or a URL of object storage (`StoreAt`).

    by: who uses the store, `STUDY/TRIAL` for a trial; `get` records it with each entry, for `coldtune store ls` and
    `gc`. lease_s: how long others wait for a sign of life of a process that makes what they want, before they take
    over. Longer, and the work of a host that died waits longer; shorter, and a file system that hangs for a moment lets
    two do the same work. waiting: gets a sentence where something has to be waited for (default: a warning);
    working: called when a wait, if there was one, is over.
    """

    def __init__(
        self,
        at: StoreAt | Path | str,
        *,
        by: str | None = None,
        lease_s: float = LEASE_S,
        waiting: Callable[[str], None] | None = None,
        working: Callable[[], None] = lambda: None,
        files: Files | None = None,
    ) -> None:
        if lease_s <= 0:
            raise ValueError(f"lease_s = {lease_s}: must be positive")
        self.at = StoreAt.of(at)
        self.files: Files = files or self.at.files()
        self.by, self.lease_s = by, lease_s
        self.waiting = waiting or (lambda text: warnings.warn(f"store: {text}", stacklevel=5))
        self.working = working

    @property
    def root(self) -> Path:
        """The directory of a store that is one."""
        return self.at.path

    def find(self, kind: str, key: str) -> Entry | None:
        """The entry, or None where there is none or what is there cannot be believed (it is then set aside).

        ValueError where it may not be read: that is no reason to do the work again, or to take it from others.
        """
        name = f"{kind}/{key}"
        try:
            marks = self.files.tree(name)
            if marks is None or _folder_of_entries(marks):
                return None
            problem, manifest = self._believe(kind, key, marks)
        except PermissionError as error:
            raise ValueError(f"store entry {name} in {self.at.shown} may not be read: {error}") from error
        if problem is None:
            return self._entry(manifest)
        if self.files.tree(name) == marks:  # another process may have set it aside, even rebuilt it, in the meantime
            self._set_aside(name, problem)
        return None

    def put(self, kind: str, key: str, write: Callable[[Path], Mapping[str, Any] | None]) -> Entry:
        """Call `write(directory)` to fill a fresh directory, then publish it as the entry.

        What `write` returns is kept in the manifest, and who made it. If another process published the same key first,
        its entry stays and is returned: equal keys mean equal work.
        """
        scratch = self.files.scratch()
        try:
            started = time.time()
            about = {"seconds": None, **({"by": self.by} if self.by else {}), **(write(scratch) or {})}
            if about["seconds"] is None:
                about["seconds"] = round(time.time() - started, 3)
            manifest = seal(scratch, kind, key, about)
            for _ in range(_TRIES):
                if self.files.publish(scratch, f"{kind}/{key}"):
                    return self._entry(manifest)
                if (existing := self.find(kind, key)) is not None:
                    return existing
                # what was there was torn, and has been set aside
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        raise ValueError(f"store entry {kind}/{key}: {self.files.where(f'{kind}/{key}')} is in its way, and no entry")

    def get(self, kind: str, key: str, build: Callable[[Path], Mapping[str, Any] | None]) -> tuple[Entry, bool]:
        """The entry and whether it was found; a missing one is built by `build(directory)` first.

        Of several processes that want the same one, one builds it, and the others wait and find it.
        """
        entry, found = self.find(kind, key), True
        while entry is None:
            with self.lease(kind, key, done=lambda: self.exists(kind, key)) as held:
                entry = self.find(kind, key)
                if entry is None and held:
                    entry, found = self.put(kind, key, build), False
        self.used(entry)
        return entry, found

    @contextmanager
    def lease(self, kind: str, key: str, done: Callable[[], bool] = lambda: False) -> Iterator[bool]:
        """Be the only one to make (kind, key) while the body runs; others that want the same wait here.

        Yields True once the lease is held, or False as soon as `done()` is true (looked at before, and about once a
        second while waiting). In either case look again first for what is wanted: it may have been made while this
        waited. A holder that dies is taken over from within `lease_s`, at once where that can be seen. `get` does all
        this for one entry; a training, whose checkpoints are entries, is held under its key without the step:

            with store.lease("train", key, done=lambda: checkpoints.has(steps)):
                last = checkpoints.latest(steps)
                if last is None or last[0] != steps:
                    ...train, which goes on from `last`
        """
        name = f".leases/{_flat(f'{kind}/{key}')}"
        with lease(self.files, name, self.lease_s, done, self.waiting) as held:
            self.working()
            self.files.list(f"{kind}/{key}".rpartition("/")[0])  # see what others published, on NFS too
            yield held

    def exists(self, kind: str, key: str) -> bool:
        """Whether there is something with a manifest under this name; `find` says whether it can be believed."""
        return self.files.has(f"{kind}/{key}/{MANIFEST}")

    def used(self, entry: Entry | str, by: str | None = None) -> None:
        """Record that `by` (default: the store's own) made or found an entry, given as such or as `kind/key`.

        By `STUDY/TRIAL`, an entry counts as used until that study is deleted or the trial has failed; by any other
        name, until the record is. In a store that may only be read, nothing is recorded.
        """
        by = by or self.by
        if not by:
            return
        name = entry if isinstance(entry, str) else f"{entry.kind}/{entry.key}"
        try:
            self.files.write(f"{_users(name)}/{quote(by, safe='')}", f"{time.time():.0f}\n".encode())
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise

    def users(self, kind: str, key: str) -> list[str]:
        """Who made or found the entry, as far as recorded."""
        return [unquote(name) for name in self.files.list(_users(f"{kind}/{key}"))]

    def at_address(self, address: str) -> Path:
        """The local folder of an entry that `files.address` named; OSError where it is gone."""
        return self.files.local(address.removeprefix(f"{self.at.shown}/"))

    def drop(self, kind: str, key: str) -> None:
        """Remove an entry and the record of its users, in such a way that no reader sees half of it."""
        self.files.remove(f"{kind}/{key}")
        self.files.remove(_users(f"{kind}/{key}"))

    def _believe(self, kind: str, key: str, marks: Marks) -> tuple[str | None, dict[str, Any]]:
        """What is wrong with the entry, read in full unless this process did so before and nothing has changed."""
        place = (self.at, f"{kind}/{key}")
        known = _BELIEVED.get(place)
        if known is not None and known[0] == marks:
            return None, known[1]
        now = time.time_ns()
        problem, manifest = verify(self.files, kind, key, marks)
        if problem is not None and self.files.forget(f"{kind}/{key}"):  # it may have been our copy that was damaged
            problem, manifest = verify(self.files, kind, key, marks)
        if problem is None and all(now - max(mark[1:3]) > _SETTLED_S * 1e9 for mark in marks.values()):
            _BELIEVED[place] = (marks, manifest)
        return problem, manifest

    def _entry(self, manifest: Mapping[str, Any]) -> Entry:
        kind, key = manifest["kind"], manifest["key"]
        return Entry(kind, key, self.files.local(f"{kind}/{key}"), manifest["about"], manifest.get("made", {}))

    def _set_aside(self, name: str, problem: str) -> None:
        torn = f".torn/{name.replace('/', '-')}-{uuid.uuid4().hex[:8]}"
        if self.files.move(name, torn):
            text = f"store entry {name} is not believed: {problem}; set aside as {self.files.where(torn)}"
            warnings.warn(text, stacklevel=3)


def _folder_of_entries(marks: Marks) -> bool:
    """Whether entries lie deeper (a training's folder holds its checkpoints): then it is neither an entry nor torn."""
    return MANIFEST not in marks and any(name.endswith(f"/{MANIFEST}") for name in marks)


def _flat(name: str) -> str:
    """A name as one part of another; `+` stands in no kind and no key."""
    return name.replace("/", "+")


def _users(name: str) -> str:
    return f".users/{_flat(name)}"
