"""How long a study waits for its database, and what is raised after that; without importing a database's client."""

from __future__ import annotations

PATIENCE_S = 120.0
"""Seconds that a database may be away; COLDTUNE_STORAGE_PATIENCE_S says otherwise."""


class StorageGoneError(Exception):
    """The study's database did not answer for longer than was to be waited."""
