"""One study under fire: started and resumed as a user does, looked at from outside, killed from outside."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from chaos_plan import Scenario
from chaos_servers import LOOPBACK, Head, Mlflow, Postgres
from e2e_lab import Lab, Running, title, wait_for

JOB = Path(__file__).parent / "chaos_job.py"
_NAMES = {"trial": "ray::coldtune_trial", "worker": "ray::RayTrainWorker"}


@dataclass
class Kill:
    """One that was done, and where the study was; seconds: until it went on, from the restart of a killed server."""

    kind: str
    scenario: str
    ended: int
    doing: str
    seconds: float = 0.0
    outage: float = 0.0


@dataclass
class Study:
    """A scenario's study in a home of its own, and the process that runs it now."""

    scenario: Scenario
    lab: Lab
    mlflow: Mlflow
    name: str
    postgres: Postgres | None = None
    head: Head | None = None
    run: Running = field(init=False)
    deaths: int = 0
    died_at: int = 0
    kills: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = self.lab.path / "home"
        self.database = self.postgres.database() if self.postgres else None

    def start(self) -> None:
        """Start it as a user does."""
        flags = ["--home", self.home, "--study", self.name, "--trials", self.scenario.trials]
        flags += ["--tracking-uri", self.mlflow.uri, "--workers", self.scenario.workers]
        flags += ["--storage", self.database] if self.database else []
        settings = [f"{key}={value}" for key, value in self.scenario.settings.items()]
        self.begin([sys.executable, str(JOB), *map(str, flags), "--set", *settings])

    def resume(self) -> None:
        """Go on as its last words say; a driver that was killed had none, then with the command it was started by."""
        printed = re.findall(r"^ +resume +(.+)$", self.run.text, re.MULTILINE)
        command = shlex.split(printed[-1]) if printed else self.command
        there = (self.home / "studies" / self.name / "spec.yaml").exists()  # it may have been killed before that
        self.begin([*command, "--resume"] if there and "--resume" not in command else command)

    def begin(self, command: list[str]) -> None:
        self.command, self.deaths = command, 0
        environment = {"RAY_ADDRESS": self.head.address, **LOOPBACK} if self.head else {}
        self.run = self.lab.start(command, **environment)

    @property
    def over(self) -> bool:
        """Whether the driver has ended, by whatever."""
        return self.run.process.poll() is not None

    def refused(self) -> bool:
        """Whether the driver missed a server, or Ray's head, before it had begun: it says so, and spends nothing."""
        said = ("cannot be ", "error: RAY_ADDRESS = ")
        return self.over and self.run.ended() == 2 and any(words in self.run.text for words in said)

    def entries(self) -> set[str]:
        """What its store holds: it grows while the study goes on."""
        return {str(path) for path in self.home.glob("store/*/**/manifest.json")}

    def runs_ended(self) -> int:
        """Trials that finished, by their spools."""
        return sum(
            '"op":"end","status":"interrupted"' not in text and '"op":"end"' in text
            for text in (line_of(path) for path in self.home.glob("studies/*/spool/trial-*.jsonl"))
        )

    def alive_deaths(self) -> int:
        """How often, at most, a process of one of the running trials has died under this driver."""
        return 0 if self.scenario.alone and self.runs_ended() > self.died_at else self.deaths

    def doing(self) -> str:
        """Where the study is, in a word or two."""
        if not self.victims("trial"):
            return "starting" if not self.runs_ended() else "between processes"
        reached: dict[str, int] = {}
        for path in self.home.glob("store/train/*/*/manifest.json"):
            reached[path.parts[-3]] = max(reached.get(path.parts[-3], 0), int(path.parts[-2]))
        steps = sorted(step for step in reached.values() if step < self.scenario.steps)
        if steps:
            return "training " + ", ".join(map(str, steps))
        return "sampling or starting a trial"

    def victims(self, kind: str) -> list[psutil.Process]:
        """The processes of that kind that there are now."""
        if kind == "driver":
            return [] if self.over else [psutil.Process(self.run.process.pid)]
        if kind == "raylet":
            return self.lab.named("raylet")
        return [process for process in self.lab.processes() if title(process).startswith(_NAMES[kind])]

    def leftovers(self) -> list[str]:
        """Processes of an ended driver that are still there; of a head, only those that work for someone."""
        titles = [title(process) for process in self.lab.processes()]
        return [each for each in titles if not self.head or (each.startswith("ray::") and "IDLE" not in each)]

    def wait(self, what: str, condition: Callable[[], Any]) -> None:
        wait_for(f"{what}; so far:\n{self.run.text[-3000:]}", condition)


def line_of(path: Path) -> str:
    """The last word of a spool about how its run stands."""
    found = ""
    with suppress(OSError):
        for line in path.read_text().splitlines():
            if '"op":"end"' in line or '"op":"resume"' in line:
                found = line
    return found


class TroubleError(AssertionError):
    """The study did not survive."""


def strike(study: Study, kind: str, outage: float) -> Kill | None:
    """Kill one `kind` of the study, put back what a person would, and wait until the study goes on or has ended.

    None where the study ended before there was anything to kill.
    """
    if (kill := _killed(study, kind)) is None:
        return None
    study.kills.append(kill)
    before = study.entries()
    since = time.monotonic()
    if kind in ("mlflow", "postgres"):
        kill.outage = round(outage, 1)
        time.sleep(outage)
        server: Any = study.mlflow if kind == "mlflow" else study.postgres
        server.start()
        since = time.monotonic()
    if kind in ("driver", "raylet") and _driver_died(study, kind):
        study.resume()
    study.wait(f"progress after a kill of {kind}", lambda: study.over or study.entries() - before)
    if study.refused():
        study.begin(study.command)
        study.wait("progress after a start", lambda: study.over or study.entries() - before)
    kill.seconds = round(time.monotonic() - since, 1)
    return kill


def _killed(study: Study, kind: str) -> Kill | None:
    """Kill one, and say where the study was; None where it ended before."""
    server: Any = {"mlflow": study.mlflow, "postgres": study.postgres}.get(kind)
    victims: list[psutil.Process] = []
    if server is None:
        study.wait(f"a {kind} to kill", lambda: study.over or study.victims(kind))
        victims = study.victims(kind)
    if study.over or not (server or victims):
        return None
    kill = Kill(kind, study.scenario.name, study.runs_ended(), study.doing())
    if server is not None:
        server.kill()
    else:
        with suppress(psutil.NoSuchProcess):
            victims[0].kill()
    if kind in ("trial", "worker"):
        study.deaths, study.died_at = study.alive_deaths() + 1, kill.ended
    return kill


def _driver_died(study: Study, kind: str) -> bool:
    """Wait for the end of the driver; False where it had come to its own end before it noticed."""
    code = study.run.ended()
    wanted = -signal.SIGKILL if kind == "driver" else 130
    if code not in (wanted, 0) and not study.refused():
        raise TroubleError(f"after a kill of {kind} the driver ended with {code}, not {wanted}:\n{study.run.text}")
    if study.head and kind == "raylet":
        study.head.close()
        study.head.start()
    study.wait(f"the end of what the driver left: {study.leftovers()}", lambda: not study.leftovers())
    return code not in (0, 2)


@contextmanager
def study_of(scenario: Scenario, folder: Path, mlflow: Mlflow, postgres: Postgres | None, name: str) -> Iterator[Study]:
    """A study that was not started yet; all of its processes end with the block."""
    folder.mkdir(parents=True)
    lab = Lab(folder)
    lab.env["RAY_worker_niceness"] = "0"  # by default trials stand back behind whatever else a machine does
    try:
        head = Head(lab, scenario.head) if scenario.head else None
        if head:
            head.start()
        yield Study(scenario, lab, mlflow, name, postgres if scenario.postgres else None, head)
    finally:
        lab.end()
        lab.close()


def finish(study: Study) -> None:
    """Wait for the study's own end, as one that has its trials, with nothing left running."""
    code = study.run.ended()
    if code != 0:
        raise TroubleError(f"the study ended with {code}:\n{study.run.text}")
    study.wait(f"the end of {study.leftovers()}", lambda: not study.leftovers())
    if "wait in" in study.run.text:  # it ended while the tracking server was away
        sync = study.lab.start(["coldtune", "tracking", "sync", "--home", str(study.home)])
        if sync.ended() != 0:
            raise TroubleError(f"what had waited was not delivered:\n{sync.text}")


def start_file(study: Study) -> dict[str, Any]:
    return dict(json.loads((study.home / "studies" / study.name / "start.json").read_text()))
