"""The folder `studies/NAME/` of a study: its specification and how it was started."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from coldtune.files import lock_file, write_file
from coldtune.readback import read_model, unreadable
from coldtune.store.location import StoreLocation
from coldtune.studies.spec.study import SPEC_FILE, StudySpec, describe_conflict
from coldtune.tracking import shown

START_FILE = "start.json"


_LONGEST_NAME = 240  # bytes, so that the store's records of users, which are named after the study, fit a file system
_TRACES = (SPEC_FILE, START_FILE, "journal.log")  # a folder with any of them is a study that was started


class StartRecord(BaseModel):
    """How a study was last started, the content of start.json.

    `RunOptions.from_start` knows more keys. A key that is missing has its default, because an older version of coldtune
    may have written the file.

    Attributes:
        trials: The number of trials in all.
        fingerprint: The fingerprint of the dataset.
        command: The command line that a person types to run the study again.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    trials: int = Field(ge=1)
    fingerprint: str
    command: str = ""
    data_dir: str | None = None
    tracking_uri: str | None = None
    store: str | None = None
    storage: str | None = None
    workers: int = Field(default=1, ge=1)
    gpus_per_trial: float = Field(default=0.0, ge=0)
    limits: dict[str, Any] = Field(default_factory=dict)


class StudyFolder:
    """The folder `HOME/studies/NAME` with spec.yaml, start.json, journal.log and spool/."""

    def __init__(self, home: Path, name: str) -> None:
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"--study {name}: must be a folder's name, without / and not starting with a dot")
        if (size := len(quote(name, safe=""))) > _LONGEST_NAME:
            raise ValueError(
                f"--study {name[:40]}...: has {size} letters; at most {_LONGEST_NAME} are allowed, because folders and "
                "files are named after the study. A letter that is not ASCII counts as six or more."
            )
        self.home, self.name, self.path = home, name, home / "studies" / name
        self.spool, self.environments = self.path / "spool", self.path / "environments"

    @property
    def exists(self) -> bool:
        """True if the study was started before."""
        return (self.path / SPEC_FILE).exists()

    @property
    def left_behind(self) -> bool:
        """True if the folder has lost its spec.yaml, but still holds other files of a study."""
        return not self.exists and any((self.path / name).exists() for name in _TRACES)

    def spec(self) -> StudySpec:
        """Read the spec with which the study was started.

        Raises:
            ValueError: If the file cannot be read. The message names it, and says what to do.
        """
        try:
            return StudySpec.load(self.path)
        except FileNotFoundError:
            raise unreadable(self.path / SPEC_FILE, "there is no such file", self._way_out()) from None

    def start(self) -> dict[str, Any]:
        """Read how the study was last started: trials, dataset fingerprint, servers and command.

        Raises:
            ValueError: If the file cannot be read. The message names it, and says what to do.
        """
        path = self.path / START_FILE
        try:
            return read_model(path, StartRecord, hint=self._way_out()).model_dump()
        except FileNotFoundError:
            raise unreadable(path, "there is no such file", self._way_out()) from None

    def _way_out(self) -> str:
        return (
            f"Restore the file, or remove {SPEC_FILE} and {START_FILE} in {self.path} and start the study with its own "
            f"command (and --study {self.name}). That writes both files again and keeps the trials."
        )

    def store(self) -> StoreLocation:
        """Return the location of the study's finished work."""
        return StoreLocation.in_home(self.home, self.start().get("store"))

    def check_same_study(self, spec: StudySpec, fingerprint: str) -> None:
        """Raise ValueError if the folder belongs to a study with another spec, or with other pixels.

        Args:
            spec: The spec of the study that is about to run here. The message lists the differences.
            fingerprint: The fingerprint of its dataset.
        """
        if differences := spec.differences(self.spec()):
            raise ValueError(describe_conflict(self.name, str(self.path), differences))
        if (before := self.start()["fingerprint"]) != fingerprint:
            raise ValueError(
                f"data: {spec.base['data']['name']} now has other pixels (fingerprint {fingerprint[:12]}) than when "
                f"study {self.name} was started ({before[:12]})"
            )

    def save(self, spec: StudySpec, start: Mapping[str, Any]) -> None:
        """Write the spec (only once) and start.json (each time).

        A resume needs the passwords of servers, so start.json contains them. If it does, only its owner may read it.
        """
        self.spool.mkdir(parents=True, exist_ok=True)
        text = json.dumps(start, indent=1)
        write_file(self.path / START_FILE, text, durable=True, private=shown(text) != text)
        if not self.exists:
            spec.save(self.path)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Lock the start of the study, so that of two drivers the second finds everything the first has set up.

        The lock covers only the start. Afterwards, the study's storage knows its drivers
        (`coldtune.studies.drivers.election`). On a file system without locks, nothing waits, and the storage alone
        keeps the drivers apart.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with lock_file(self.path / "start.lock", unsupported_ok=True):
            yield


def studies(home: Path) -> list[StudyFolder]:
    """List the studies of a home in the order of their names, also those that have lost a file.

    Raises:
        OSError: If the folder of the studies cannot be read.
    """
    try:
        names = sorted(os.listdir(home / "studies"))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            folder = StudyFolder(home, name)
        except ValueError:  # no study could have this name
            continue
        if folder.exists or folder.left_behind:
            found.append(folder)
    return found
