"""The store: a folder or a bucket that holds finished work under the key of everything that determined it.

    <root>/<kind>/<key>/...files, manifest.json        one entry
    <root>/.writing/<unique>/                          an entry that is being written, or garbage
    <root>/.leases/<kind>+<key>.*                      who is making which entry now (see `lease`)
    <root>/.users/<kind>+<key>/<user>                  who made or found which entry
    <root>/.torn/<kind>-<key>-<unique>/                a damaged entry, kept for inspection

An entry is valid only if its manifest names this entry and exactly the files that exist, each with its size and
SHA-256. A torn, foreign or edited entry is set aside with a warning and rebuilt. Entries are never changed in place.

Each process reads and hashes an entry at its first use. It remembers that the entry was valid as long as no file's
size, times or inode change. `coldtune store verify` always reads everything. `object_files` describes how the same
layout looks in object storage.
"""

from __future__ import annotations

import errno
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from coldtune.store.files import FileStats, StoreFiles
from coldtune.store.lease import lease
from coldtune.store.location import StoreLocation
from coldtune.store.manifest import MANIFEST, seal, verify

LEASE_S = 30.0

# Entries that this process verified: by location and name, the stats of their files and their manifest.
_VERIFIED: dict[tuple[StoreLocation, str], tuple[FileStats, dict[str, Any]]] = {}
# Damaged entries that this process set aside: by location and name, the problem.
_DAMAGED: dict[tuple[StoreLocation, str], str] = {}
# Within the resolution of a file system's clock (FAT: 2 s) a file may change again without a new modification time.
_SETTLED_S = 2.0
_PUBLISH_TRIES = 5  # while other processes set aside and publish the same entry
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class Entry:
    """A finished, verified piece of work: its directory and the content of its manifest.

    Attributes:
        about: The results that its maker recorded, at least `seconds`.
        made: The machine and software versions (see `provenance`). Empty for entries of early stores.
    """

    kind: str
    key: str
    path: Path
    about: Mapping[str, Any]
    made: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """Finished work by (kind, key) at one location, safe against kills and concurrent writers.

    A kind is a short word (`train`, `sample`, ...). A key consists of letters, digits, `-` and `/`. For example, the
    key of a checkpoint is `<training key>/<step>`.

    Args:
        at: A directory on any file system whose rename and exclusive creation are atomic (a local disk, NFS), or a URL
            of object storage (see `StoreLocation`).
        by: Who uses the store, `STUDY/TRIAL` for a trial. `get` records this user with each entry, for
            `coldtune store ls` and `gc`.
        lease_s: How long other processes wait for a sign of life of a process that makes the entry they want. If it is
            longer, the work of a host that died waits longer. If it is shorter, a file system that hangs for a moment
            lets two processes do the same work.
        on_wait: Called with a sentence if another process has to be waited for. By default it is a warning.
        on_resume: Called when a wait is over, and at once if there was none.
        files: Replaces the access to the files at `at`, for tests.

    Raises:
        ValueError: If `lease_s` is not positive, or `at` is a URL that cannot be opened.
    """

    def __init__(
        self,
        at: StoreLocation | Path | str,
        *,
        by: str | None = None,
        lease_s: float = LEASE_S,
        on_wait: Callable[[str], None] | None = None,
        on_resume: Callable[[], None] = lambda: None,
        files: StoreFiles | None = None,
    ) -> None:
        if lease_s <= 0:
            raise ValueError(f"lease_s = {lease_s}: must be positive")
        self.at = StoreLocation.of(at)
        self.files: StoreFiles = files or self.at.files()
        self.by, self.lease_s = by, lease_s
        self.on_wait = on_wait or (lambda text: warnings.warn(f"store: {text}", stacklevel=5))
        self.on_resume = on_resume

    @property
    def root(self) -> Path:
        """The directory of a store that is not in object storage."""
        return self.at.path

    def find(self, kind: str, key: str) -> Entry | None:
        """Return an entry, or None if it does not exist or is damaged. A damaged entry is set aside.

        Raises:
            ValueError: If the entry may not be read. This is no reason to repeat the work, or to remove the entry.
        """
        name = f"{kind}/{key}"
        try:
            stats = self.files.tree(name)
            if stats is None or _only_contains_entries(stats):
                return None
            problem, manifest = self._verify_once(kind, key, stats)
        except PermissionError as error:
            raise ValueError(f"store entry {name} in {self.at.shown} may not be read: {error}") from error
        if problem is None:
            return self._entry(manifest)
        if self.files.tree(name) == stats:  # another process may have set it aside, even rebuilt it, in the meantime
            self._set_aside(name, problem)
        return None

    def put(self, kind: str, key: str, write: Callable[[Path], Mapping[str, Any] | None]) -> Entry:
        """Publish an entry, which `write(directory)` fills.

        If another process published the same key first, its entry stays and is returned, because equal keys mean equal
        work.

        Args:
            write: Fills an empty directory. The mapping that it returns is kept in the manifest as `about`.

        Raises:
            ValueError: If something that is not an entry occupies the place.
        """
        scratch = self.files.scratch()
        try:
            started = time.time()
            about = {"seconds": None, **({"by": self.by} if self.by else {}), **(write(scratch) or {})}
            if about["seconds"] is None:
                about["seconds"] = round(time.time() - started, 3)
            manifest = seal(scratch, kind, key, about)
            for _ in range(_PUBLISH_TRIES):
                if self.files.publish(scratch, f"{kind}/{key}"):
                    return self._entry(manifest)
                if (existing := self.find(kind, key)) is not None:
                    return existing
                # A damaged entry was there, and `find` has set it aside.
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        place = self.files.where(f"{kind}/{key}")
        raise ValueError(f"store entry {kind}/{key}: cannot be published, because {place} exists and is not an entry")

    def get(self, kind: str, key: str, build: Callable[[Path], Mapping[str, Any] | None]) -> tuple[Entry, bool]:
        """Return an entry, after building it with `build(directory)` if it does not exist.

        Of several processes that want the same entry, one builds it. The others wait and find it.

        Returns:
            The entry, and True if it was found, False if it was built here.
        """
        entry, found = self.find(kind, key), True
        while entry is None:
            with self.lease(kind, key, done=lambda: self.exists(kind, key)) as held:
                entry = self.find(kind, key)
                if entry is None and held:
                    entry, found = self.put(kind, key, build), False
        self.record_use(entry)
        return entry, found

    @contextmanager
    def lease(self, kind: str, key: str, done: Callable[[], bool] = lambda: False) -> Iterator[bool]:
        """Be the only process that makes (kind, key) while the body runs. Others that want the same wait here.

        A holder that dies is replaced within `lease_s`, or at once if it ran on this machine. In either case look
        again for the entry first, because it may have been made during the wait.

        `get` does all this for one entry. A training, whose checkpoints are entries, holds a lease under its key
        without the step:

            with store.lease("train", key, done=lambda: checkpoints.has(steps)):
                last = checkpoints.latest(steps)
                if last is None or last[0] != steps:
                    ...  # train, starting from `last`

        Args:
            done: Asked before, and about once a second during the wait.

        Yields:
            True if the lease is held, False if `done()` became true first.
        """
        name = f".leases/{_flatten(f'{kind}/{key}')}"
        with lease(self.files, name, self.lease_s, done, self.on_wait) as held:
            self.on_resume()
            self.files.list(f"{kind}/{key}".rpartition("/")[0])  # makes an NFS client see new entries of others
            yield held

    def exists(self, kind: str, key: str) -> bool:
        """Return True if there is a manifest under this name. Only `find` checks for damage."""
        return self.files.has(f"{kind}/{key}/{MANIFEST}")

    def damage(self, name: str) -> str | None:
        """Describe a damaged entry that was set aside and not rebuilt, or return None if there is none.

        Args:
            name: The entry's `kind/key`, or the beginning of it up to a `/`.
        """
        for (at, damaged), problem in _DAMAGED.items():
            if at == self.at and f"{damaged}/".startswith(f"{name}/") and not self.exists(*damaged.split("/", 1)):
                return f"{damaged} is damaged ({problem})"
        torn = [torn for torn in self.files.list(".torn") if torn.startswith(f"{name.replace('/', '-')}-")]
        return f"{name} was damaged, and was set aside as {self.files.where(f'.torn/{torn[0]}')}" if torn else None

    def record_use(self, entry: Entry | str, by: str | None = None) -> None:
        """Record that a user made or found an entry. In a read-only store, record nothing.

        If the user is `STUDY/TRIAL`, the entry counts as used until that study is deleted or that trial has failed.
        Otherwise it counts as used until the record is deleted.

        Args:
            entry: The entry or its `kind/key`.
            by: The user. By default the store's own.
        """
        by = by or self.by
        if not by:
            return
        name = entry if isinstance(entry, str) else f"{entry.kind}/{entry.key}"
        try:
            self.files.write(f"{_users_folder(name)}/{quote(by, safe='')}", f"{time.time():.0f}\n".encode())
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise

    def users(self, kind: str, key: str) -> list[str]:
        """Return the recorded users of an entry."""
        return [unquote(name) for name in self.files.list(_users_folder(f"{kind}/{key}"))]

    def present_address(self, address: str) -> str:
        """Return the present address of an entry whose address was recorded, perhaps before the store was moved.

        An address ends with the name of its entry (`sample/KEY`, `train/KEY/STEP`). If this store has that entry, its
        address is returned, even if the old place still exists, for example beside a copy. Otherwise `address` stays.
        """
        if address.startswith(f"{self.at.shown}/"):
            return address
        parts = PurePosixPath(address).parts
        names = ["/".join(parts[-length:]) for length in (2, 3) if len(parts) > length]
        with suppress(OSError):
            return next((self.files.where(name) for name in names if self.exists(*name.split("/", 1))), address)
        return address

    def at_address(self, address: str) -> Path:
        """Return the local folder of an entry by the address that `files.address` returned.

        Raises:
            OSError: If the entry no longer exists.
        """
        return self.files.local_path(address.removeprefix(f"{self.at.shown}/"))

    def remove(self, kind: str, key: str) -> None:
        """Remove an entry and the records of its users. No reader sees half of the entry."""
        self.files.remove(f"{kind}/{key}")
        self.files.remove(_users_folder(f"{kind}/{key}"))

    def _verify_once(self, kind: str, key: str, stats: FileStats) -> tuple[str | None, dict[str, Any]]:
        """Return the problem with an entry, or None, and its manifest.

        The entry is read in full unless this process did so before and nothing has changed since.
        """
        place = (self.at, f"{kind}/{key}")
        known = _VERIFIED.get(place)
        if known is not None and known[0] == stats:
            return None, known[1]
        now = time.time_ns()
        problem, manifest = verify(self.files, kind, key, stats)
        if problem is not None and self.files.discard_copies(f"{kind}/{key}"):  # perhaps only our copy is damaged
            problem, manifest = verify(self.files, kind, key, stats)
        if problem is None and all(now - max(stat[1:3]) > _SETTLED_S * 1e9 for stat in stats.values()):
            _VERIFIED[place] = (stats, manifest)
        return problem, manifest

    def _entry(self, manifest: Mapping[str, Any]) -> Entry:
        kind, key = manifest["kind"], manifest["key"]
        return Entry(kind, key, self.files.local_path(f"{kind}/{key}"), manifest["about"], manifest.get("made", {}))

    def _set_aside(self, name: str, problem: str) -> None:
        torn = f".torn/{name.replace('/', '-')}-{uuid.uuid4().hex[:8]}"
        if self.files.move(name, torn):
            _DAMAGED[self.at, name] = problem
            moved = f"It was moved to {self.files.where(torn)} and will be rebuilt."
            warnings.warn(f"store entry {name} is damaged: {problem}. {moved}", stacklevel=3)


def _only_contains_entries(stats: FileStats) -> bool:
    """Return True for a folder whose subfolders are entries, such as a training's folder of checkpoints.

    Such a folder is neither an entry nor damaged.
    """
    return MANIFEST not in stats and any(name.endswith(f"/{MANIFEST}") for name in stats)


def _flatten(name: str) -> str:
    """Return a name as a single part of another name. No kind and no key contains `+`."""
    return name.replace("/", "+")


def _users_folder(name: str) -> str:
    return f".users/{_flatten(name)}"
