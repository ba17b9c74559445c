"""The folder `studies/NAME/` of a study: its specification and how it was started."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldtune.files import lock_file, write_file
from coldtune.store.location import StoreLocation
from coldtune.studies.spec.study import SPEC_FILE, StudySpec, describe_conflict
from coldtune.tracking import shown

START_FILE = "start.json"


class StudyFolder:
    """The folder `HOME/studies/NAME` with spec.yaml, start.json, journal.log and spool/."""

    def __init__(self, home: Path, name: str) -> None:
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"--study {name}: must be a folder's name, without / and not starting with a dot")
        self.home, self.name, self.path = home, name, home / "studies" / name
        self.spool, self.environments = self.path / "spool", self.path / "environments"

    @property
    def exists(self) -> bool:
        """True if the study was started before."""
        return (self.path / SPEC_FILE).exists()

    def spec(self) -> StudySpec:
        """Read the spec with which the study was started."""
        return StudySpec.load(self.path)

    def start(self) -> dict[str, Any]:
        """Read how the study was last started: trials, dataset fingerprint, servers and command."""
        return dict(json.loads((self.path / START_FILE).read_text()))

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
        write_file(self.path / START_FILE, text, private=shown(text) != text)
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
    """List the studies of a home in the order of their names."""
    root = home / "studies"
    names = sorted(path.parent.name for path in root.glob(f"*/{SPEC_FILE}")) if root.is_dir() else []
    return [StudyFolder(home, name) for name in names]
