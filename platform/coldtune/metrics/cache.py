"""The cache of expensive statistics. Callers pass a cache in, so that this package does not depend on a storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor


class Cache(Protocol):
    """A cache of dicts of tensors, found by a kind and a key."""

    def get(self, kind: str, key: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the entry of (kind, key), and call `build` once to make it if it is missing.

        Args:
            kind: The kind of statistics, for example "reference".
            key: The hash of everything that determines the tensors.
            build: Makes the tensors.

        Returns:
            The tensors. They are shared, so callers must not change them in place.
        """
        ...


class MemoryCache:
    """A cache that lives as long as the object, for notebooks, tests and single evaluations."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], dict[str, Tensor]] = {}

    def get(self, kind: str, key: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the entry of (kind, key), built at the first call."""
        entry = self._entries.get((kind, key))
        if entry is None:
            entry = self._entries[kind, key] = build()
        return entry
