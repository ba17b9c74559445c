"""A study's folder `studies/NAME/`: who it is, who is running it, and how it was started."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldtune.studies.spec import SPEC_FILE, StudySpec

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

    def check(self, spec: StudySpec, fingerprint: str) -> None:
        """ValueError naming the differences where the folder holds another study, or one on other pixels."""
        mine = self.spec()
        if differences := spec.differences(mine):
            listed = "\n  ".join(differences)
            raise ValueError(
                f"--study {self.name}: {self.path} holds a study with another spec; give another name, or the same "
                f"settings:\n  {listed}"
            )
        if (there := self.start()["fingerprint"]) != fingerprint:
            raise ValueError(
                f"data: {spec.base['data']['name']} now has other pixels (fingerprint {fingerprint[:12]}) than when "
                f"study {self.name} was started ({there[:12]})"
            )

    def save(self, spec: StudySpec, start: Mapping[str, Any]) -> None:
        """Write down the spec (once) and how the study is started (each time)."""
        self.spool.mkdir(parents=True, exist_ok=True)
        _replace(self.path / START_FILE, json.dumps(start, indent=1))
        if not self.exists:
            spec.save(self.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study: two drivers on one study would ask its trials twice. A killed driver lets go by itself."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "driver.lock").open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                raise ValueError(f"--study {self.name}: is being run by {handle.read().strip()}") from None
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {socket.gethostname()}")
            handle.flush()
            yield


def studies(home: Path) -> list[StudyFolder]:
    """The studies of a home, by name."""
    root = home / "studies"
    names = sorted(path.parent.name for path in root.glob(f"*/{SPEC_FILE}")) if root.is_dir() else []
    return [StudyFolder(home, name) for name in names]


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    os.replace(scratch, path)
