"""What lies in a store, who needs it, and what may go."""

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
from coldtune.store.local_files import Marks
from coldtune.store.manifest import MANIFEST, outline, read_manifest, verify
from coldtune.store.store import Store


@dataclass(frozen=True)
class Item:
    """One entry as it lies there, its files not read.

    created: seconds since 1970; seconds: the work it stands for; passing: a checkpoint on the way to a final one;
    problem: what is wrong with its manifest, names or sizes; users: as recorded (`Store.used`).
    """

    kind: str
    key: str
    bytes: int
    created: float
    seconds: float = 0.0
    passing: bool = False
    problem: str | None = None
    users: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`kind/key`."""
        return f"{self.kind}/{self.key}"


@dataclass(frozen=True)
class Needs:
    """What must stay.

    mentions: by each name that trials mention (`kind/key` of an entry, or its key), who mentions it. since: entries
    made after this time may belong to a trial that did not end yet (seconds since 1970). alive: whether a recorded user
    still counts.
    """

    mentions: dict[str, set[str]] = field(default_factory=dict)
    since: float = math.inf
    alive: Callable[[str], bool] = lambda by: True

    def of(self, item: Item) -> set[str]:
        """Who needs the entry: those that mention it, and its recorded users that still count."""
        names = {item.name, item.key}
        head, _, step = item.key.rpartition("/")
        if step.isdigit():
            names.add(f"{head}/{int(step)}")  # a checkpoint, as a trial's stages name it
        found = set().union(*(self.mentions.get(name, set()) for name in names))
        return found | {by for by in item.users if self.alive(by)}


@dataclass(frozen=True)
class Waste:
    """What may go: its name in the store, why, and how big it is (bytes); users: those known when this was decided."""

    name: str
    why: str
    bytes: int
    seconds: float = 0.0
    users: frozenset[str] | None = None


def mentions(value: Any) -> Iterator[str]:
    """Every name of an entry that `value` (a trial's attributes) may mention, wherever its store lies now.

    A string stands for itself and, as a path, for its last two and three parts (`sample/KEY`, `train/KEY/STEP`).
    """
    if isinstance(value, str):
        parts = PurePosixPath(value).parts
        yield from {value, "/".join(parts[-2:]), "/".join(parts[-3:])}
    elif isinstance(value, dict):
        yield from mentions(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from mentions(item)


def inventory(store: Store) -> list[Item]:
    """All entries, by kind and key; what lies between them and is none is listed with its problem."""
    users: dict[str, list[str]] = defaultdict(list)
    for record in store.files.tree(".users") or {}:
        entry, _, by = record.partition("/")
        users[entry.replace("+", "/")].append(unquote(by))
    found: list[tuple[str, str, Marks]] = []
    for kind in store.files.list(""):
        tree = {} if kind.startswith(".") else store.files.tree(kind) or {}
        found += [(kind, key, marks) for key, marks in _by_entry(tree).items()]

    def item(one: tuple[str, str, Marks]) -> Item:
        kind, key, marks = one
        return _item(store, kind, key, marks, tuple(sorted(users[f"{kind}/{key}"])))

    if store.files.parallel == 1:
        return [item(one) for one in found]
    with ThreadPoolExecutor(store.files.parallel) as pool:
        return list(pool.map(item, found))


def waste(store: Store, needs: Needs, older_s: float = DAY_S, now: float | None = None) -> list[Waste]:
    """What nobody needs: entries without users, passing checkpoints, torn entries, what killed writers left behind.

    Nothing younger than `older_s` seconds is named: somebody may be about to use it. What is needed stays even where
    it is torn.
    """
    now = now or time.time()
    items = inventory(store)
    found = []
    for item in items:
        if needs.of(item) or item.created > now - older_s or item.created >= needs.since:
            continue
        why = "passed on the way to a longer training" if item.passing else "used by nobody"
        why = f"torn: {item.problem}" if item.problem else why
        found.append(Waste(item.name, why, item.bytes, item.seconds, frozenset(item.users)))
    # What is not an entry: a day old at least, since a writer, a lease or a record may be ahead of its entry.
    before = now - max(older_s, DAY_S)
    for name, marks in store.files.leftovers():
        found += _old(name, marks, "left by a killed process", before)
    for name in store.files.list(".torn"):
        found += _old(f".torn/{name}", store.files.tree(f".torn/{name}") or {}, "was set aside as torn", before)
    records: dict[str, Marks] = defaultdict(dict)
    for name, mark in (store.files.tree(".users") or {}).items():
        records[name.partition("/")[0]][name] = mark
    for entry in set(records) - {item.name.replace("/", "+") for item in items}:
        found += _old(f".users/{entry}", records[entry], "users of an entry that is gone", before)
    return found + list(_old_leases(store, before))


def sweep(store: Store, found: Iterable[Waste]) -> Iterator[Waste]:
    """Remove what `waste` found, and give each that is gone; killed in the middle, it leaves only whole entries.

    An entry that got another user in the meantime stays. ValueError where something may not be removed.
    """
    for one in found:
        kind, _, key = one.name.partition("/")
        if one.users is not None and not set(store.users(kind, key)) <= one.users:
            continue
        try:
            if one.users is None:
                store.files.remove(one.name)
            else:
                store.drop(kind, key)
        except PermissionError as error:
            raise ValueError(f"{one.name} in {store.at.shown} may not be removed: {error}") from error
        yield one


def check(store: Store, item: Item) -> str | None:
    """Read and hash an entry: what is wrong with it, or None. Nothing is set aside."""
    marks = store.files.tree(item.name)
    return "it is gone" if marks is None else verify(store.files, item.kind, item.key, marks, fresh=True)[0]


def match(items: Collection[Item], prefix: str) -> Item:
    """The one entry whose key, or `kind/key`, starts with `prefix`; ValueError where it is none or several."""
    matching = [item for item in items if item.key.startswith(prefix) or item.name.startswith(prefix)]
    exact = [item for item in matching if prefix in (item.key, item.name)]
    if len(exact or matching) == 1:
        return (exact or matching)[0]
    if not matching:
        raise ValueError(f"{prefix}: no entry's key starts with it")
    shown = "\n  ".join(item.name for item in matching[:10])
    more = f"\n  and {len(matching) - 10} more" if len(matching) > 10 else ""
    raise ValueError(f"{prefix}: {len(matching)} entries start with it; give more of one of\n  {shown}{more}")


def _item(store: Store, kind: str, key: str, marks: Marks, users: tuple[str, ...]) -> Item:
    size, changed = sum(mark[0] for mark in marks.values()), _changed(marks)
    try:
        manifest = read_manifest(store.files, f"{kind}/{key}")
        about, created = manifest["about"], float(manifest["created"])
        problem = outline(manifest, marks)
        seconds, passing = float(about.get("seconds") or 0.0), about.get("final") is False
        return Item(kind, key, size, created, seconds, passing, problem, users)
    except FileNotFoundError:
        return Item(kind, key, size, changed, problem=f"{MANIFEST} is missing", users=users)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return Item(kind, key, size, changed, problem=f"its manifest cannot be read ({error})", users=users)


def _by_entry(tree: Marks) -> dict[str, Marks]:
    """The files of a kind by the entry that they lie in; those in none, by the folder that they lie in."""
    folders = {name.rpartition("/")[0] for name in tree} - {""}
    manifests = {name.rpartition("/")[0] for name in tree if name.endswith(f"/{MANIFEST}")}
    entries: dict[str, Marks] = defaultdict(dict)
    for name, mark in sorted(tree.items()):
        parents = [str(parent) for parent in reversed(PurePosixPath(name).parents)][1:]
        top = next((p for p in parents if p in manifests), next((p for p in parents if p in folders), name))
        entries[top][name.removeprefix(f"{top}/")] = mark
    return entries


def _old(name: str, marks: Marks, why: str, before: float) -> list[Waste]:
    """As waste, where its files are all older; without files, its age is not known."""
    return [Waste(name, why, sum(mark[0] for mark in marks.values()))] if marks and _changed(marks) < before else []


def _old_leases(store: Store, before: float) -> Iterator[Waste]:
    leases: dict[str, Marks] = defaultdict(dict)
    for name, mark in (store.files.tree(".leases") or {}).items():
        leases[name.rpartition(".")[0]][name] = mark
    for marks in leases.values():  # one that is held has a file that changes
        if _changed(marks) < before:
            yield from (Waste(f".leases/{name}", "left by a killed process", mark[0]) for name, mark in marks.items())


def _changed(marks: Marks) -> float:
    """When the last of the files changed, in seconds since 1970."""
    return max((max(mark[1:3]) for mark in marks.values()), default=0) / 1e9
