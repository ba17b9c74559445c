"""A study's folder `studies/NAME/`: who it is, and how it was started."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coldtune.store.location import StoreLocation
from coldtune.studies.spec.study import SPEC_FILE, StudySpec, another
from coldtune.tracking import shown

START_FILE = "start.json"


class StudyFolder:
    """`home/studies/NAME` with spec.yaml, start.json, journal.log and spool/."""

    def __init__(self, home: Path, name: str) -> None:
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"--study {name}: must be a folder's name, without / and not starting with a dot")
        self.home, self.name, self.path = home, name, home / "studies" / name
        self.spool = self.path / "spool"

    @property
    def exists(self) -> bool:
        """Whether the study was started before."""
        return (self.path / SPEC_FILE).exists()

    def spec(self) -> StudySpec:
        """The spec with which the study was started."""
        return StudySpec.load(self.path)

    def start(self) -> dict[str, Any]:
        """How the study was last started: trials, dataset fingerprint, servers, command."""
        return dict(json.loads((self.path / START_FILE).read_text()))

    def store(self) -> StoreLocation:
        """Where the study keeps its finished work."""
        return StoreLocation.in_home(self.home, self.start().get("store"))

    def check(self, spec: StudySpec, fingerprint: str) -> None:
        """ValueError naming the differences where the folder holds another study, or one on other pixels."""
        mine = self.spec()
        if differences := spec.differences(mine):
            raise ValueError(another(self.name, str(self.path), differences))
        if (there := self.start()["fingerprint"]) != fingerprint:
            raise ValueError(
                f"data: {spec.base['data']['name']} now has other pixels (fingerprint {fingerprint[:12]}) than when "
                f"study {self.name} was started ({there[:12]})"
            )

    def save(self, spec: StudySpec, start: Mapping[str, Any]) -> None:
        """Write down the spec (once) and how the study is started (each time).

        Servers' passwords in it are needed to resume, so where there are any, nobody else may read the file.
        """
        self.spool.mkdir(parents=True, exist_ok=True)
        text = json.dumps(start, indent=1)
        _replace(self.path / START_FILE, text, private=shown(text) != text)
        if not self.exists:
            spec.save(self.path)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Start one driver after another: of two that come at once, the second finds what the first set up.

        Only for the start; who runs the study afterwards is known to its storage (`coldtune.studies.drivers.election`).
        On a file system without locks nothing is waited for, and the storage alone keeps order.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "start.lock").open("a") as handle:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def studies(home: Path) -> list[StudyFolder]:
    """The studies of a home, by name."""
    root = home / "studies"
    names = sorted(path.parent.name for path in root.glob(f"*/{SPEC_FILE}")) if root.is_dir() else []
    return [StudyFolder(home, name) for name in names]


def _replace(path: Path, text: str, private: bool) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.touch(0o600 if private else 0o666)
    scratch.write_text(text)
    os.replace(scratch, path)
