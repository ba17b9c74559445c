"""How long a study waits for its database, and the error after that. Importing it imports no database client."""

from __future__ import annotations

PATIENCE_S = 120.0
"""Seconds that a database may be away. The environment variable COLDTUNE_STORAGE_PATIENCE_S overrides it."""


class StorageGoneError(Exception):
    """Raised if the database of a study did not answer for longer than the study waits."""
