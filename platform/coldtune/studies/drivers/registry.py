"""The registry of a study, in which its drivers leave notes for each other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from optuna.study import Study

from coldtune.files import write_file
from coldtune.readback import UnreadableError, read_json
from coldtune.studies.storage.optuna_private import read_study_attributes, write_study_attribute

_LIMIT = 2**16  # bytes of a note


class DriverRegistry(Protocol):
    """Notes by key. A single process writes a note, and others read it."""

    def all(self) -> dict[str, Any]:
        """Return every note."""

    def get(self, key: str) -> Any:
        """Return the note with a key, or None if it is missing."""

    def put(self, key: str, value: Any) -> None:
        """Write a note, or remove it if `value` is None. A reader sees the old note or the new note."""


class FolderRegistry:
    """A registry in a folder beside the journal, with a file for each note.

    Signs of life do not go into the journal, because the journal keeps every record.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> dict[str, Any]:
        """Return every note."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder))
        except FileNotFoundError:
            return {}
        notes = {name: self.get(name) for name in names if not name.startswith(".")}
        return {key: value for key, value in notes.items() if value is not None}

    def get(self, key: str) -> Any:
        """Return the note with a key. On network file systems, a file may be there before its folder lists it.

        A note that cannot be read counts as missing. Its writer, if it lives, soon writes it again.
        """
        try:
            return read_json(self.folder / key, limit=_LIMIT)
        except (FileNotFoundError, UnreadableError):
            return None

    def put(self, key: str, value: Any) -> None:
        """Write a note, or remove it if `value` is None."""
        if value is None:
            (self.folder / key).unlink(missing_ok=True)
            return
        self.folder.mkdir(exist_ok=True)
        write_file(self.folder / key, json.dumps(value))


class StudyRegistry:
    """A registry in the system attributes of the study in its database.

    Drivers whose homes share nothing else can see each other there.
    """

    def __init__(self, study: Study) -> None:
        self.study = study

    def all(self) -> dict[str, Any]:
        """Return every note, and the attributes that Optuna keeps there."""
        return read_study_attributes(self.study)

    def get(self, key: str) -> Any:
        """Return the note with a key, or None if it is missing."""
        return self.all().get(key)

    def put(self, key: str, value: Any) -> None:
        """Write a note. None stands for a removed note."""
        write_study_attribute(self.study, key, value)


def registry_of(study: Study, folder: Path, url: str | None) -> DriverRegistry:
    """Return the registry of a study: in its folder, or in the database at `url`."""
    return FolderRegistry(folder / "drivers") if url is None else StudyRegistry(study)
