"""Where expensive statistics are remembered: metrics takes a cache by argument and knows nothing of its storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Cache(Protocol):
    """Remembers dicts of tensors under a kind and a key."""

    def get(self, kind: str, key: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return what is stored under (kind, key); `build` makes it, once, where nothing is.

        `key` must be the hash of everything that determines the tensors; the result is shared, so it is not to be
        changed in place.
        """
        ...


class MemoryCache:
    """A cache that lives as long as the object: for notebooks, tests and single evaluations."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], dict[str, Tensor]] = {}

    def get(self, kind: str, key: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the entry of (kind, key), built on the first call."""
        entry = self._entries.get((kind, key))
        if entry is None:
            entry = self._entries[kind, key] = build()
        return entry
