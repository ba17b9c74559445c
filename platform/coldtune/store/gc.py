"""Garbage collection: the entries of a store, who needs them, and which may be removed."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from coldtune.durations import DAY_S
from coldtune.errors import describe_os_error
from coldtune.store.files import FileStats
from coldtune.store.manifest import MANIFEST, check_outline, read_manifest, verify
from coldtune.store.store import Store

_SHOWN = 3  # entries that a message lists


@dataclass(frozen=True)
class EntryInfo:
    """An entry as it is listed, without reading its files.

    Attributes:
        created: Seconds since 1970.
        seconds: How long the work took that made it.
        intermediate: Whether it is a checkpoint on the way to the training's end.
        problem: An error in its manifest, names or sizes, or None.
        users: The recorded users (see `Store.record_use`).
    """

    kind: str
    key: str
    bytes: int
    created: float
    seconds: float = 0.0
    intermediate: bool = False
    problem: str | None = None
    users: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The entry's name, `kind/key`."""
        return f"{self.kind}/{self.key}"


@dataclass(frozen=True)
class Retention:
    """The rules that say which entries must stay.

    Attributes:
        mentions: Maps each name that trials mention (`kind/key` of an entry, or its key) to the studies that do so.
        since: Entries created after this time stay, because they may belong to a trial that has not ended (seconds
            since 1970).
        alive: Returns True if a recorded user still counts.
    """

    mentions: dict[str, set[str]] = field(default_factory=dict)
    since: float = math.inf
    alive: Callable[[str], bool] = lambda by: True

    def users_of(self, entry: EntryInfo) -> set[str]:
        """Return who needs an entry: the studies that mention it, and its recorded users that still count."""
        names = {entry.name, entry.key}
        head, _, step = entry.key.rpartition("/")
        if step.isdigit():
            names.add(f"{head}/{int(step)}")  # the stages of a trial name a checkpoint without leading zeros
        mentioning = set().union(*(self.mentions.get(name, set()) for name in names))
        return mentioning | {by for by in entry.users if self.alive(by)}


@dataclass(frozen=True)
class Garbage:
    """Something that may be removed from a store.

    Attributes:
        name: An entry's `kind/key`, or another name in the store.
        seconds: How long the work took that made it.
        users: Of an entry, the recorded users at the time of the decision. None for anything else.
    """

    name: str
    why: str
    bytes: int
    seconds: float = 0.0
    users: frozenset[str] | None = None


def mentioned_names(value: Any) -> Iterator[str]:
    """Yield every name of an entry that `value`, such as a trial's attributes, may mention.

    A string is yielded as it is. A path is also yielded as its last two and three parts (`sample/KEY`,
    `train/KEY/STEP`), so that the store may have moved since.
    """
    if isinstance(value, str):
        parts = PurePosixPath(value).parts
        yield from {value, "/".join(parts[-2:]), "/".join(parts[-3:])}
    elif isinstance(value, dict):
        yield from mentioned_names(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from mentioned_names(item)


def list_entries(store: Store) -> list[EntryInfo]:
    """List all entries by kind and key. Other files among them are listed with their problem."""
    users: dict[str, list[str]] = defaultdict(list)
    for record in store.files.tree(".users") or {}:
        entry, _, by = record.partition("/")
        users[entry.replace("+", "/")].append(unquote(by))
    listed: list[tuple[str, str, FileStats]] = []
    for kind in store.files.list(""):
        tree = {} if kind.startswith(".") else store.files.tree(kind) or {}
        listed += [(kind, key, stats) for key, stats in _group_by_entry(tree).items()]

    def info(item: tuple[str, str, FileStats]) -> EntryInfo:
        kind, key, stats = item
        return _entry_info(store, kind, key, stats, tuple(sorted(users[f"{kind}/{key}"])))

    if store.files.parallel == 1:
        return [info(item) for item in listed]
    with ThreadPoolExecutor(store.files.parallel) as pool:
        return list(pool.map(info, listed))


def find_garbage(store: Store, retention: Retention, older_s: float = DAY_S, now: float | None = None) -> list[Garbage]:
    """Find everything that nobody needs.

    This includes entries without users, intermediate checkpoints, torn entries and files of killed writers. An entry
    that is needed stays even if it is torn.

    Args:
        older_s: Ignore anything younger than this many seconds, because it may be about to be used.
        now: Seconds since 1970, by default the present time.
    """
    now = now or time.time()
    entries = list_entries(store)
    garbage = []
    for entry in entries:
        if retention.users_of(entry) or entry.created > now - older_s or entry.created >= retention.since:
            continue
        why = "passed on the way to a longer training" if entry.intermediate else "used by nobody"
        why = f"torn: {entry.problem}" if entry.problem else why
        garbage.append(Garbage(entry.name, why, entry.bytes, entry.seconds, frozenset(entry.users)))
    # Everything else must be a day old at least, because a writer, a lease or a record may precede its entry.
    before = now - max(older_s, DAY_S)
    for name, stats in store.files.leftovers():
        garbage += _if_older(name, stats, "left by a killed process", before)
    for name in store.files.list(".torn"):
        garbage += _if_older(f".torn/{name}", store.files.tree(f".torn/{name}") or {}, "was set aside as torn", before)
    records: dict[str, FileStats] = defaultdict(dict)
    for name, stat in (store.files.tree(".users") or {}).items():
        records[name.partition("/")[0]][name] = stat
    for orphan in set(records) - {entry.name.replace("/", "+") for entry in entries}:
        garbage += _if_older(f".users/{orphan}", records[orphan], "users of an entry that is gone", before)
    return garbage + list(_old_leases(store, before))


def remove_garbage(store: Store, garbage: Iterable[Garbage]) -> Iterator[Garbage]:
    """Remove the findings of `find_garbage`, and yield each item after its removal.

    An entry that got another user in the meantime stays. If the process is killed, only whole entries remain.

    Raises:
        ValueError: If something may not be removed.
    """
    for item in garbage:
        kind, _, key = item.name.partition("/")
        if item.users is not None and not set(store.users(kind, key)) <= item.users:
            continue
        try:
            if item.users is None:
                store.files.remove(item.name)
            else:
                store.remove(kind, key)
        except PermissionError as error:
            raise ValueError(f"{item.name} in {store.at.shown} may not be removed: {error}") from error
        yield item


def check_entry(store: Store, entry: EntryInfo) -> str | None:
    """Read and hash an entry. Return the problem found, or None. Nothing is set aside."""
    try:
        stats = store.files.tree(entry.name)
        return "it is gone" if stats is None else verify(store.files, entry.kind, entry.key, stats, fresh=True)[0]
    except OSError as error:
        return f"it cannot be read ({describe_os_error(error)})"


def match_entry(entries: Collection[EntryInfo], prefix: str) -> EntryInfo:
    """Return the only entry whose key, or `kind/key`, starts with `prefix`.

    Raises:
        ValueError: If there is no such entry, or several and `prefix` is not the name of any.
    """
    matching = [entry for entry in entries if entry.key.startswith(prefix) or entry.name.startswith(prefix)]
    exact = [entry for entry in matching if prefix in (entry.key, entry.name)]
    if len(exact or matching) == 1:
        return (exact or matching)[0]
    if not matching:
        raise ValueError(f"{prefix}: no entry's key starts with it")
    shown = ", ".join(entry.name for entry in matching[:_SHOWN])
    more = f" and {len(matching) - _SHOWN} more" if len(matching) > _SHOWN else ""
    raise ValueError(f"{prefix}: {len(matching)} entries start with it. Add more letters of its key: {shown}{more}")


def _entry_info(store: Store, kind: str, key: str, stats: FileStats, users: tuple[str, ...]) -> EntryInfo:
    size, changed = sum(stat[0] for stat in stats.values()), _last_change(stats)
    try:
        manifest = read_manifest(store.files, f"{kind}/{key}")
        about, created = manifest["about"], float(manifest["created"])
        problem = check_outline(manifest, stats)
        seconds, intermediate = float(about.get("seconds") or 0.0), about.get("final") is False
        return EntryInfo(kind, key, size, created, seconds, intermediate, problem, users)
    except FileNotFoundError:
        return EntryInfo(kind, key, size, changed, problem=f"{MANIFEST} is missing", users=users)
    except (OSError, ValueError) as error:
        return EntryInfo(kind, key, size, changed, problem=f"its manifest cannot be read ({error})", users=users)


def _group_by_entry(tree: FileStats) -> dict[str, FileStats]:
    """Group the files of a kind by their entry, and files outside of entries by their folder."""
    folders = {name.rpartition("/")[0] for name in tree} - {""}
    manifests = {name.rpartition("/")[0] for name in tree if name.endswith(f"/{MANIFEST}")}
    entries: dict[str, FileStats] = defaultdict(dict)
    for name, stat in sorted(tree.items()):
        parents = [str(parent) for parent in reversed(PurePosixPath(name).parents)][1:]
        top = next((p for p in parents if p in manifests), next((p for p in parents if p in folders), name))
        entries[top][name.removeprefix(f"{top}/")] = stat
    return entries


def _if_older(name: str, stats: FileStats, why: str, before: float) -> list[Garbage]:
    """Return a folder as garbage if all its files are older than `before`. An empty folder has no known age."""
    size = sum(stat[0] for stat in stats.values())
    return [Garbage(name, why, size)] if stats and _last_change(stats) < before else []


def _old_leases(store: Store, before: float) -> Iterator[Garbage]:
    leases: dict[str, FileStats] = defaultdict(dict)
    for name, stat in (store.files.tree(".leases") or {}).items():
        leases[name.rpartition(".")[0]][name] = stat
    for stats in leases.values():
        if _last_change(stats) < before:  # a lease that is held has a file that changes
            yield from (Garbage(f".leases/{name}", "left by a killed process", stat[0]) for name, stat in stats.items())


def _last_change(stats: FileStats) -> float:
    """Return when the last of the files changed, in seconds since 1970."""
    return max((max(stat[1:3]) for stat in stats.values()), default=0) / 1e9
