"""The folder `studies/NAME/` of a study: its specification and how it was started."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from coldtune import environment
from coldtune.addresses import (
    Passwords,
    at_folder,
    is_relative,
    is_sqlite,
    redact,
    sqlite_address,
    sqlite_path,
    without_password,
    words_without_passwords,
)
from coldtune.files import lock_file, write_file
from coldtune.readback import read_model, unreadable
from coldtune.store.location import StoreLocation
from coldtune.studies.spec.replicates import check_same_race
from coldtune.studies.spec.study import SPEC_FILE, StudySpec, describe_conflict

START_FILE = "start.json"


_LONGEST_NAME = 240  # bytes, so that the store's records of users, which are named after the study, fit a file system
_TRACES = (SPEC_FILE, START_FILE, "journal.log")  # a folder with any of them is a study that was started


class ExperimentRecord(BaseModel):
    """The MLflow experiment of a study.

    Attributes:
        id: Its id on the server.
        born: When it was made (`coldtune.tracking.Target`).
        view: Whether the view of the study's trials was saved there.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    id: str
    born: int = 0
    view: bool = False


class StartRecord(BaseModel):
    """How a study was last started, the content of start.json.

    `RunOptions.from_start` knows more keys. A key that is missing has its default, because an older version of coldtune
    may have written the file.

    Attributes:
        trials: The number of trials in all. Of a study with replicates, the number of settings.
        replicates: The number of trainings of each setting.
        fingerprint: The fingerprint of the dataset.
        command: The command line that a person types to run the study again.
        home: The home in which the study lay then.
        experiment: The MLflow experiment with the study's runs. None if an older version wrote the file.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    trials: int = Field(ge=1)
    replicates: int = Field(default=1, ge=1)
    fingerprint: str
    command: str = ""
    experiment: ExperimentRecord | None = None
    home: str | None = None
    password_file: str | None = None
    data_dir: str | None = None
    tracking_uri: str | None = None
    store: str | None = None
    storage: str | None = None
    workers: int = Field(default=1, ge=1)
    gpus_per_trial: float = Field(default=0.0, ge=0)
    confirm: int = Field(default=0, ge=0)
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
            start = read_model(path, StartRecord, hint=self._way_out()).model_dump()
        except FileNotFoundError:
            raise unreadable(path, "there is no such file", self._way_out()) from None
        return in_present_home(start, self.home)

    def _way_out(self) -> str:
        return (
            f"Restore the file, or remove {SPEC_FILE} and {START_FILE} in {self.path} and start the study with its own "
            f"command (and --study {self.name}). That writes both files again and keeps the trials."
        )

    def data_dir(self) -> Path | None:
        """Return the folder of the dataset's files at the last start. None if none was named, or if it is gone.

        Without the folder, the images that the home has prepared are used.
        """
        named = self.start().get("data_dir")
        return Path(named) if named and Path(named).exists() else None

    def store(self) -> StoreLocation:
        """Return the location of the study's finished work."""
        return StoreLocation.in_home(self.home, self.start().get("store"))

    def passwords(self, password_file: Path | None = None) -> Passwords:
        """Return the passwords of the study's servers: of `password_file`, else of the file of the last start."""
        kept = self.start().get("password_file")
        return Passwords.read(password_file or (Path(kept) if kept else None))

    def storage(self, password_file: Path | None = None) -> str | None:
        """Return the URL of the study's database, with its password if it is known. None for a journal.

        Raises:
            ValueError: If the URL is relative, and no such database is where it may have been meant.
        """
        return self._address("storage", "--storage", password_file)

    def tracking_uri(self, password_file: Path | None = None) -> str | None:
        """Return MLflow's server or database, with its password if it is known. None for the home's own.

        Raises:
            ValueError: If the URI is relative, and no such database is where it may have been meant.
        """
        return self._address("tracking_uri", "--tracking-uri", password_file)

    def _address(self, name: str, flag: str, password_file: Path | None) -> str | None:
        start = self.start()
        address = start.get(name)
        if not address:
            return None
        if address.startswith("sqlite") and is_relative(address):
            return self._find_relative(address, flag)
        single = name == "storage" or not start.get("storage")
        return self.passwords(password_file).complete(address, single)

    def _find_relative(self, address: str, flag: str) -> str:
        """Find the SQLite database of a start.json of an older version, which did not record the current folder."""
        folders = list(dict.fromkeys([self.home.parent, Path.cwd()]))
        found = [url for url in (at_folder(address, folder) for folder in folders) if _is_file(url)]
        if len(found) == 1:
            return found[0]
        where = " and ".join(map(str, folders))
        what = "is in both of" if found else "is in none of"
        raise ValueError(
            f"study {self.name}: its {flag} {redact(address)} was recorded without its folder, and {what} {where}. "
            f"Run the study's own command once more, with an absolute path: {flag} sqlite:////FOLDER/FILE"
        )

    def check_same_study(self, spec: StudySpec, fingerprint: str) -> None:
        """Raise ValueError if the folder belongs to a study with another spec, or with other pixels.

        Args:
            spec: The spec of the study that is about to run here. The message lists the differences.
            fingerprint: The fingerprint of its dataset.
        """
        stored = self.spec()
        check_same_race(self.name, spec.race, stored.race, stored.replicates)
        if differences := spec.differences(stored):
            raise ValueError(describe_conflict(self.name, str(self.path), differences))
        if (before := self.start()["fingerprint"]) != fingerprint:
            raise ValueError(
                f"data: {spec.base['data']['name']} now has other pixels (fingerprint {fingerprint[:12]}) than when "
                f"study {self.name} was started ({before[:12]})"
            )

    def save(self, spec: StudySpec, start: Mapping[str, Any]) -> None:
        """Write the spec (only once) and start.json (each time).

        No password is written. A resume takes it from the environment or from the file of `--password-file`.
        """
        self.spool.mkdir(parents=True, exist_ok=True)
        open_values = {name: _without_passwords(value) for name, value in {**start, "home": str(self.home)}.items()}
        write_file(self.path / START_FILE, json.dumps(open_values, indent=1), durable=True)
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


def in_present_home(start: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """Return the content of start.json with the places in the home as they are now, if the home was moved or copied.

    Args:
        start: The content. An older version did not record the home.
        home: The present home.
    """
    before = start.get("home")
    moved = {}
    if before and before != str(home):
        moved = {name: _moved(value, before, str(home)) for name, value in start.items() if isinstance(value, str)}
    command = {"command": _command_at(str(start["command"]), home)} if "command" in start else {}
    return {**start, **moved, **command}


def _command_at(command: str, home: Path) -> str:
    """Return the command of a study with the home in which the study lies now."""
    if not command:
        return ""
    words = shlex.split(command)
    place = next((i for i, word in enumerate(words) if word == "--home" or word.startswith("--home=")), None)
    if place is None:
        return command if environment.default_home() == home else f"{command} --home {shlex.quote(str(home))}"
    given = words[place].partition("=")[2] or (words[place + 1] if place + 1 < len(words) else "")
    if Path(given).expanduser().absolute() == home:
        return command
    width = 1 if "=" in words[place] else 2
    return shlex.join([*words[:place], "--home", str(home), *words[place + width :]])


def _moved(value: str, before: str, home: str) -> str:
    """Replace a home's former place in a path, a SQLite address or a command."""
    if value == before or value.startswith(f"{before}/"):
        return home + value[len(before) :]
    if is_sqlite(value) and (path := sqlite_path(value)) is not None and path.is_relative_to(before):
        return sqlite_address(Path(home) / path.relative_to(before)) + "".join(value.partition("?")[1:])
    return value


def _without_passwords(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        words = shlex.split(value)
    except ValueError:
        return without_password(value)
    if len(words) < 2:
        return without_password(value)
    kept = words_without_passwords(words)
    return value if kept == words else shlex.join(kept)


def _is_file(address: str) -> bool:
    path = sqlite_path(address)
    return path is not None and path.is_file()


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
