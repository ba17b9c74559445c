"""Where the drivers of a study leave notes for each other: a folder beside its journal, or its database."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from optuna.study import Study

from coldtune.files import write_file
from coldtune.studies.storage.optuna_private import read_study_attributes, write_study_attribute


class DriverRegistry(Protocol):
    """Notes by key, each written by one process and read by others; writing None takes a note away."""

    def all(self) -> dict[str, Any]:
        """Every note."""

    def get(self, key: str) -> Any:
        """One note; None where there is none."""

    def put(self, key: str, value: Any) -> None:
        """Write a note; whoever reads it sees the old one or the new one."""


class FolderRegistry:
    """A file for each note. Signs of life stay out of the journal, which keeps everything for ever."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> dict[str, Any]:
        """Every note."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder))
        except FileNotFoundError:
            return {}
        notes = {name: self.get(name) for name in names if not name.startswith(".")}
        return {key: value for key, value in notes.items() if value is not None}

    def get(self, key: str) -> Any:
        """One note, read by its own name: what lists a folder may lag behind on network file systems."""
        try:
            return json.loads((self.folder / key).read_text())
        except FileNotFoundError:
            return None

    def put(self, key: str, value: Any) -> None:
        """Write a note by replacing it."""
        if value is None:
            (self.folder / key).unlink(missing_ok=True)
            return
        self.folder.mkdir(exist_ok=True)
        write_file(self.folder / key, json.dumps(value))


class StudyRegistry:
    """System attributes of the study in its database, so that homes that share nothing else see each other, too."""

    def __init__(self, study: Study) -> None:
        self.study = study

    def all(self) -> dict[str, Any]:
        """Every note (and whatever else Optuna keeps there)."""
        return read_study_attributes(self.study)

    def get(self, key: str) -> Any:
        """One note."""
        return self.all().get(key)

    def put(self, key: str, value: Any) -> None:
        """Write a note."""
        write_study_attribute(self.study, key, value)


def board_of(study: Study, folder: Path, url: str | None) -> DriverRegistry:
    """The board of the study in `folder`, or in the database at `url`."""
    return FolderRegistry(folder / "drivers") if url is None else StudyRegistry(study)
