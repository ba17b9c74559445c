"""`coldtune store`: what is remembered, how big it is and who uses it; remove what nobody does."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from coldtune.cli.common import Commands, home_of, store_of, with_store
from coldtune.durations import format_age

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial

    from coldtune.store.gc import EntryInfo, Garbage, Retention
    from coldtune.store.store import Store
    from coldtune.studies.spec.folder import StudyFolder

_CLOCKS_S = 3600.0  # that the clocks of a study's hosts may differ by
_SHORT = 12  # characters of a key: enough to tell 10,000 entries apart


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("store", help="what finished work is remembered, and what of it nobody needs")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    ls = with_store(verbs.add_parser("ls", help="entries: size, age, the seconds of work they save, who uses them"))
    ls.add_argument("--kind", help="only these (train, sample, measure, reference, ...)")
    ls.set_defaults(call=_ls)
    show = with_store(verbs.add_parser("show", help="one entry: its files, what was said of it, where it was made"))
    show.add_argument("key", help="the beginning of its key, or of kind/key")
    show.set_defaults(call=_show)
    verify = with_store(verbs.add_parser("verify", help="read every entry and compare with its manifest"))
    verify.set_defaults(call=_verify)
    gc = with_store(verbs.add_parser("gc", help="remove what no study needs (says what would go, unless --yes)"))
    gc.add_argument("--yes", action="store_true", help="remove it")
    gc.add_argument(
        "--older", type=float, default=24.0, metavar="HOURS", help="only what is older (default 24): it may be in use"
    )
    gc.set_defaults(call=_gc)


def _ls(options: argparse.Namespace, console: Console) -> int:
    from coldtune.store.gc import list_entries

    home, store = home_of(options), store_of(options)
    items = list_entries(store)
    needs, unreadable = _needs(home, store)
    shown = [item for item in items if options.kind in (None, item.kind)]
    if options.kind and not shown:
        kinds = ", ".join(sorted({item.kind for item in items})) or "none"
        raise ValueError(f"--kind {options.kind}: no such entries in {store.at.shown} (there are: {kinds})")
    table = _table(store.at.shown, ("kind", "key"), ("size", "age", "work"), ("used by",))
    for item in sorted(shown, key=lambda item: (item.kind, -item.bytes, item.key)):
        users = f"torn: {item.problem}" if item.problem else _studies(needs.users_of(item))
        table.add_row(item.kind, _short(item.key), *_figures([item]), users)
    table.add_row()
    for kind in sorted({item.kind for item in shown}):
        of_kind = [item for item in shown if item.kind == kind]
        table.add_row(kind, f"{len(of_kind):,} in all", *_figures(of_kind), "")
    table.add_row("total", f"{len(shown):,} in all", *_figures(shown), "")
    console.print(table, highlight=False)
    for problem in unreadable:
        console.print(f"[yellow]{problem}[/]", highlight=False, soft_wrap=True)
    return 0


def _show(options: argparse.Namespace, console: Console) -> int:
    import yaml

    from coldtune.store.gc import list_entries, match_entry
    from coldtune.store.manifest import read_manifest

    home, store = home_of(options), store_of(options)
    item = match_entry(list_entries(store), options.key)
    try:
        manifest = read_manifest(store.files, item.name)
    except (OSError, ValueError):
        manifest = {}
    files = {
        name: f"{_size(record['bytes'])}, SHA-256 {record['sha256']}" for name, record in manifest["files"].items()
    }
    record = {
        "entry": item.name,
        "path": store.files.where(item.name),
        **({"problem": item.problem} if item.problem else {}),
        "size": _size(item.bytes),
        "created": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item.created)),
        "used by": sorted(_needs(home, store)[0].users_of(item)) or "nobody",
        "files": files,
        "inputs and results": manifest.get("about", {}),
        "made": manifest.get("made") or "not recorded",
    }
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=10_000)
    console.print(text, end="", highlight=False, markup=False, soft_wrap=True)
    return 0


def _verify(options: argparse.Namespace, console: Console) -> int:
    from coldtune.store.gc import check_entry, list_entries

    store = store_of(options)
    items = list_entries(store)
    problems = {item.name: problem for item in items if (problem := check_entry(store, item))}
    for name, problem in problems.items():
        console.print(f"{name}: {problem}; set aside at its next use", highlight=False, soft_wrap=True)
    whole = [item for item in items if item.name not in problems]
    console.print(f"{len(whole):,} of {len(items):,} entries as their manifests say ({_figures(whole)[0]})")
    return 1 if problems else 0


def _gc(options: argparse.Namespace, console: Console) -> int:
    from coldtune.cli.stores import own
    from coldtune.store.gc import find_garbage, list_entries, remove_garbage

    if not options.older >= 0:
        raise ValueError(f"--older {options.older:g}: hours, 0 or more")
    home, store = home_of(options), store_of(options)
    needs, unreadable = _needs(home, store)
    if unreadable:
        raise ValueError(
            "\n".join([*unreadable, "store gc: what these studies need is not known, so nothing is removed"])
        )
    found = find_garbage(store, needs, 3600 * options.older)
    gone = list(remove_garbage(store, found)) if options.yes else found
    table = _table(store.at.shown, ("what",), ("size", "work"), ("why",))
    for one in gone:
        table.add_row(_short(one.name), _size(one.bytes), format_age(one.seconds), one.why)
    if gone:
        console.print(table, highlight=False)
    stays = sum(item.bytes for item in list_entries(store)) - (0 if options.yes else _bytes(gone))
    verb = "removed" if options.yes else "would go (nothing was removed; --yes does it)"
    console.print(f"{len(gone):,} {verb}: {_size(_bytes(gone))} freed, {_size(stays)} in entries stay", highlight=False)
    if math.isfinite(needs.since):
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(needs.since))
        console.print(f"Trials that did not end keep everything made since {since}.", highlight=False)
    if not own(home, store.at):
        console.print(f"What studies that are not in {home} are recorded to use stays.", highlight=False)
    return 0


def _needs(home: Path, store: Store) -> tuple[Retention, list[str]]:
    """What the studies of a home need: that of every trial that did not fail; and which of them cannot be read.

    Of a store that is not the home's own, other homes may be users too: what a study of theirs uses is needed.
    """
    from optuna.trial import TrialState

    from coldtune.cli.stores import own
    from coldtune.store.gc import Retention, mentioned_names
    from coldtune.studies.spec.folder import studies

    mentioned: dict[str, set[str]] = {}
    failed: dict[str, set[str]] = {}
    since, unreadable, alone = math.inf, [], own(home, store.at)
    for folder in studies(home):
        try:
            trials, attributes = _trials(folder)
        except Exception as error:  # whatever a damaged journal or a database makes Optuna raise
            unreadable.append(f"study {folder.name} cannot be read: {str(error).strip() or type(error).__name__}")
            continue
        failed[folder.name] = {str(trial.number) for trial in trials if trial.state == TrialState.FAIL}
        for trial in trials:
            if trial.state == TrialState.RUNNING and trial.datetime_start:
                since = min(since, trial.datetime_start.timestamp() - _CLOCKS_S)
        needed = [attributes, *(trial.user_attrs for trial in trials if trial.state != TrialState.FAIL)]
        for name in mentioned_names(needed):
            mentioned.setdefault(name, set()).add(folder.name)

    def alive(by: str) -> bool:
        study, _, trial = by.partition("/")
        if study not in failed:
            return not trial or not alone
        return not trial or trial not in failed[study]

    return Retention(mentioned, since, alive), unreadable


def _trials(folder: StudyFolder) -> tuple[Sequence[FrozenTrial], dict[str, Any]]:
    """The trials of a study, and its own attributes, from its storage alone."""
    from coldtune.studies.storage.backends import stored_study

    study = stored_study(folder.path, folder.name, folder.start()["storage"])
    return ([], {}) if study is None else (study.get_trials(deepcopy=False), study.user_attrs)


def _table(title: str, left: Sequence[str], right: Sequence[str], last: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for head in (*left, *right, *last):
        table.add_column(head, justify="right" if head in right else "left", no_wrap=head not in last)
    return table


def _figures(items: Sequence[EntryInfo]) -> tuple[str, str, str]:
    """Size, age of the oldest, and work of entries (of a training once: each checkpoint holds what led to it)."""
    age = time.time() - min((item.created for item in items), default=time.time())
    work: dict[str, float] = {}
    for item in items:
        whole = item.name.rpartition("/")[0] if item.key.rpartition("/")[2].isdigit() else item.name
        work[whole] = max(item.seconds, work.get(whole, 0.0))
    return _size(_bytes(items)), format_age(age), format_age(sum(work.values()))


def _bytes(items: Sequence[EntryInfo] | Sequence[Garbage]) -> int:
    return sum(item.bytes for item in items)


def _studies(users: set[str]) -> str:
    return ", ".join(sorted({user.partition("/")[0] for user in users})) or "nobody"


def _short(name: str) -> str:
    """A name with its hash cut short."""
    return "/".join(part[:_SHORT] if len(part) == 64 else part for part in name.split("/"))


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
