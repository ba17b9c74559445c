"""`coldtune store`: list, show and verify finished work, and remove entries that no study needs."""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console

from coldtune.cli.common import Commands, add_store_flag, find_home, open_store
from coldtune.cli.entry import print_error
from coldtune.cli.json_output import add_json_flag, at_time, print_json
from coldtune.cli.store_format import format_size, format_studies, format_totals, shorten, total_bytes
from coldtune.cli.tables import ListTable
from coldtune.durations import format_age

if TYPE_CHECKING:
    from coldtune.store.gc import EntryInfo, Retention


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("store", help="list, show and verify finished work, remove what no study needs")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    ls = add_store_flag(verbs.add_parser("ls", help="list entries with size, age, the work they save, and their users"))
    ls.add_argument("--kind", help="only entries of this kind (train, sample, measure, reference, ...)")
    add_json_flag(ls).set_defaults(call=_ls)
    show = add_store_flag(verbs.add_parser("show", help="show an entry: its files, inputs, results and origin"))
    show.add_argument("key", help="the first characters of its key, or of kind/key")
    add_json_flag(show).set_defaults(call=_show)
    verify = add_store_flag(verbs.add_parser("verify", help="read every entry and compare it with its manifest"))
    add_json_flag(verify).set_defaults(call=_verify)
    gc = add_store_flag(verbs.add_parser("gc", help="remove what no study needs (without --yes, only list it)"))
    gc.add_argument("--yes", action="store_true", help="remove it")
    gc.add_argument(
        "--older",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="only what is older than this (default 24), because newer entries may be in use",
    )
    add_json_flag(gc).set_defaults(call=_gc)


def _ls(options: argparse.Namespace, console: Console) -> int:
    from coldtune.cli.store_users import find_users
    from coldtune.store.gc import list_entries

    home, store = find_home(options), open_store(options)
    entries = list_entries(store)
    needs, unreadable = find_users(home, store)
    shown = [entry for entry in entries if options.kind in (None, entry.kind)]
    if options.kind and not shown:
        kinds = ", ".join(sorted({entry.kind for entry in entries})) or "none"
        raise ValueError(f"--kind {options.kind}: no such entries in {store.at.shown} (there are: {kinds})")
    shown.sort(key=lambda entry: (entry.kind, -entry.bytes, entry.key))
    if options.json:
        print_json([_record(entry, needs) for entry in shown])
    else:
        console.print(_entry_table(store.at.shown, shown, needs), highlight=False)
    for problem in unreadable:
        print_error(problem)
    return 1 if unreadable else 0


def _entry_table(title: str, entries: list[EntryInfo], needs: Retention) -> ListTable:
    table = ListTable(title, ("kind", "key"), ("size", "age", "work"), ("used by",), names=2)
    for entry in entries:
        users = f"torn: {entry.problem}" if entry.problem else format_studies(needs.users_of(entry))
        table.add_row(entry.kind, shorten(entry.key), *format_totals([entry]), users)
    table.rows.append([])
    for kind in sorted({entry.kind for entry in entries}):
        of_kind = [entry for entry in entries if entry.kind == kind]
        table.add_row(kind, f"{len(of_kind):,} in all", *format_totals(of_kind), "")
    table.add_row("total", f"{len(entries):,} in all", *format_totals(entries), "")
    return table


def _record(entry: EntryInfo, needs: Retention) -> dict[str, Any]:
    """Return an entry for JSON."""
    return {
        "kind": entry.kind,
        "key": entry.key,
        "bytes": entry.bytes,
        "created": at_time(entry.created),
        "seconds": entry.seconds,
        "users": sorted(needs.users_of(entry)),
        "problem": entry.problem,
    }


def _show(options: argparse.Namespace, console: Console) -> int:
    import yaml

    from coldtune.cli.store_users import find_users
    from coldtune.store.gc import list_entries, match_entry
    from coldtune.store.manifest import read_manifest

    home, store = find_home(options), open_store(options)
    entry = match_entry(list_entries(store), options.key)
    try:
        manifest = read_manifest(store.files, entry.name)
    except (OSError, ValueError):
        manifest = {}
    needs = find_users(home, store)[0]
    if options.json:
        place = {"path": store.files.where(entry.name), "files": manifest.get("files", {})}
        made = {"about": manifest.get("about", {}), "made": manifest.get("made")}
        print_json({**_record(entry, needs), **place, **made})
        return 0
    files = {
        name: f"{format_size(record['bytes'])}, SHA-256 {record['sha256']}"
        for name, record in manifest.get("files", {}).items()
    }
    record = {
        "entry": entry.name,
        "path": store.files.where(entry.name),
        **({"problem": entry.problem} if entry.problem else {}),
        "size": format_size(entry.bytes),
        "created": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.created)),
        "used by": sorted(needs.users_of(entry)) or "nobody",
        "files": files,
        "inputs and results": manifest.get("about", {}),
        "made": manifest.get("made") or "not recorded",
    }
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=10_000)
    console.print(text, end="", highlight=False, markup=False, soft_wrap=True)
    return 0


def _verify(options: argparse.Namespace, console: Console) -> int:
    from coldtune.store.gc import check_entry, list_entries

    store = open_store(options)
    entries = list_entries(store)
    problems = {entry.name: problem for entry in entries if (problem := check_entry(store, entry))}
    if options.json:
        print_json({"entries": len(entries), "problems": problems})
        return 1 if problems else 0
    for name, problem in problems.items():
        console.print(f"{name}: {problem}; set aside at its next use", highlight=False, soft_wrap=True)
    whole = [entry for entry in entries if entry.name not in problems]
    console.print(f"{len(whole):,} of {len(entries):,} entries as their manifests say ({format_totals(whole)[0]})")
    return 1 if problems else 0


def _gc(options: argparse.Namespace, console: Console) -> int:
    from coldtune.cli.store_lookup import belongs_to_home
    from coldtune.cli.store_users import find_users
    from coldtune.store.gc import find_garbage, list_entries, remove_garbage

    if not 0 <= options.older < math.inf:
        raise ValueError(f"--older {options.older:g}: must be a number of hours, 0 or more")
    home, store = find_home(options), open_store(options)
    needs, unreadable = find_users(home, store)
    garbage = find_garbage(store, needs, 3600 * options.older)
    removed = list(remove_garbage(store, garbage)) if options.yes else garbage
    freed = total_bytes(removed)
    kept = total_bytes(list_entries(store)) - (0 if options.yes else freed)
    if options.json:
        listed = [
            {"name": item.name, "bytes": item.bytes, "seconds": item.seconds, "why": item.why} for item in removed
        ]
        print_json({"removed": options.yes, "entries": listed, "freed_bytes": freed, "kept_bytes": kept})
        for problem in unreadable:
            print_error(problem)
        return 1 if unreadable else 0
    table = ListTable(store.at.shown, ("what",), ("size", "work"), ("why",))
    for item in removed:
        table.add_row(shorten(item.name), format_size(item.bytes), format_age(item.seconds), item.why)
    if removed:
        console.print(table, highlight=False)
    verb = "removed" if options.yes else "would go (nothing was removed; --yes does it)"
    console.print(
        f"{len(removed):,} {verb}: {format_size(freed)} freed, {format_size(kept)} in entries stay",
        highlight=False,
        soft_wrap=True,
    )
    if math.isfinite(needs.since):
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(needs.since))
        why = "A study cannot be read" if unreadable else "Some trials have not ended"
        console.print(f"{why}, so everything made since {since} stays.", highlight=False, soft_wrap=True)
    if not belongs_to_home(home, store.at):
        console.print(f"Entries that studies outside {home} have recorded to use stay.", highlight=False)
    for problem in unreadable:
        print_error(problem)
    return 1 if unreadable else 0
