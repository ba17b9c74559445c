"""Text for the tables of `coldtune store`: sizes, ages, names and users of entries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coldtune.durations import format_age

if TYPE_CHECKING:
    from coldtune.store.gc import EntryInfo, Garbage

_KEY_CHARACTERS = 12  # of 64; enough to tell 10,000 entries apart


def format_totals(entries: Sequence[EntryInfo]) -> tuple[str, str, str]:
    """Return the total size, the age of the oldest entry, and the total work as text.

    The work of a training counts once, although each of its checkpoints records the work that led to it.
    """
    oldest = min((entry.created for entry in entries), default=None)
    age = "-" if oldest is None else format_age(time.time() - oldest)
    work: dict[str, float] = {}
    for entry in entries:
        training = entry.name.rpartition("/")[0] if entry.key.rpartition("/")[2].isdigit() else entry.name
        work[training] = max(entry.seconds, work.get(training, 0.0))
    return format_size(total_bytes(entries)), age, format_age(sum(work.values()))


def total_bytes(items: Sequence[EntryInfo] | Sequence[Garbage]) -> int:
    """Return the sum of the sizes."""
    return sum(item.bytes for item in items)


def format_studies(users: set[str]) -> str:
    """Return the names of the studies among `users`, or `nobody`."""
    return ", ".join(sorted({user.partition("/")[0] for user in users})) or "nobody"


def shorten(name: str) -> str:
    """Shorten the hash in the name of an entry."""
    return "/".join(part[:_KEY_CHARACTERS] if len(part) == 64 else part for part in name.split("/"))


def format_size(size: float) -> str:
    """Return a number of bytes as text with three digits, such as `1.23 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
