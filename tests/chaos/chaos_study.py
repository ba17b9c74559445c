"""A study that is started and resumed as a user does, and watched and killed from outside."""

from __future__ import annotations

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
    """A kill, and the state of the study at that moment.

    Attributes:
        ended: The number of trials that had finished.
        seconds: The time until the study made progress again, counted from the restart of a killed server.
        outage: Seconds for which a killed server stayed down.
    """

    kind: str
    scenario: str
    ended: int
    doing: str
    seconds: float = 0.0
    outage: float = 0.0


@dataclass
class Study:
    """A scenario's study in its own home, and the process that runs it now."""

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
        """Resume the study with the command that its driver printed.

        A driver that was killed printed no command, so the command that started it is used.
        """
        printed = re.findall(r"^ +resume +(.+)$", self.run.text, re.MULTILINE)
        command = shlex.split(printed[-1]) if printed else self.command
        there = (self.home / "studies" / self.name / "spec.yaml").exists()  # the driver may have died before writing it
        self.begin([*command, "--resume"] if there and "--resume" not in command else command)

    def begin(self, command: list[str]) -> None:
        self.command, self.deaths = command, 0
        environment = {"RAY_ADDRESS": self.head.address, **LOOPBACK} if self.head else {}
        if self.postgres:
            environment["PGPASSWORD"] = self.postgres.password  # no command that is printed has the password
        self.run = self.lab.start(command, **environment)

    @property
    def over(self) -> bool:
        """True if the driver has ended, for any reason."""
        return self.run.process.poll() is not None

    def refused(self) -> bool:
        """Return True if the driver refused to start because a server or Ray's head did not answer."""
        said = ("cannot be ", "error: RAY_ADDRESS = ")
        return self.over and self.run.wait() == 2 and any(words in self.run.text for words in said)

    def entries(self) -> set[str]:
        """Return the entries of the study's store. New entries show that the study makes progress."""
        return {str(path) for path in self.home.glob("store/*/**/manifest.json")}

    def runs_ended(self) -> int:
        """Return the number of trials whose spools say that they finished."""
        return sum(
            '"op":"end","status":"interrupted"' not in text and '"op":"end"' in text
            for text in (line_of(path) for path in self.home.glob("studies/*/spool/trial-*.jsonl"))
        )

    def alive_deaths(self) -> int:
        """Return an upper bound of the deaths of any running trial's processes under this driver."""
        return 0 if self.scenario.alone and self.runs_ended() > self.died_at else self.deaths

    def doing(self) -> str:
        """Describe the state of the study in a few words."""
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
        """Return the living processes of a kind."""
        if kind == "driver":
            return [] if self.over else [psutil.Process(self.run.process.pid)]
        if kind == "raylet":
            return self.lab.processes_named("raylet")
        return [process for process in self.lab.processes() if title(process).startswith(_NAMES[kind])]

    def leftovers(self) -> list[str]:
        """Return the titles of processes that outlived their driver. A head's own and idle processes do not count."""
        titles = [title(process) for process in self.lab.processes()]
        return [each for each in titles if not self.head or (each.startswith("ray::") and "IDLE" not in each)]

    def wait(self, what: str, condition: Callable[[], Any]) -> None:
        wait_for(f"{what}; so far:\n{self.run.text[-3000:]}", condition)


def line_of(path: Path) -> str:
    """Return the last line of a spool that changes the status of its run."""
    found = ""
    with suppress(OSError):
        for line in path.read_text().splitlines():
            if '"op":"end"' in line or '"op":"resume"' in line:
                found = line
    return found


class TroubleError(AssertionError):
    """The study did not survive its kills."""


def kill_and_restore(study: Study, kind: str, outage: float) -> Kill | None:
    """Kill a process of the given kind, restore what a person would restore, and wait for progress or the end.

    Returns:
        The kill, or None if the study ended before there was a process to kill.
    """
    if (kill := _kill(study, kind)) is None:
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


def _kill(study: Study, kind: str) -> Kill | None:
    """Kill a process of the given kind and describe the study's state. Return None if the study ends before."""
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
    """Wait for the end of the driver. Return False if it had finished its study before it noticed the kill."""
    code = study.run.wait()
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
    """Yield a study that is not started yet, and kill all its processes at the end."""
    folder.mkdir(parents=True)
    lab = Lab(folder)
    lab.env["RAY_worker_niceness"] = "0"  # by default trials yield to every other process of the machine
    try:
        head = Head(lab, scenario.head) if scenario.head else None
        if head:
            head.start()
        yield Study(scenario, lab, mlflow, name, postgres if scenario.postgres else None, head)
    finally:
        lab.kill_all()
        lab.close()


def finish(study: Study) -> None:
    """Wait until the study has finished all its trials and none of its processes runs."""
    code = study.run.wait()
    if code != 0:
        raise TroubleError(f"the study ended with {code}:\n{study.run.text}")
    study.wait(f"the end of {study.leftovers()}", lambda: not study.leftovers())
    if "wait in" in study.run.text:  # the study ended while the tracking server was down
        sync = study.lab.start(["coldtune", "tracking", "sync", "--home", str(study.home)])
        if sync.wait() != 0:
            raise TroubleError(f"waiting records were not delivered:\n{sync.text}")
