"""Real sweeps in processes of their own, and what they leave behind: read as a user would, from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from servers import free_ports

__all__ = ["free_ports"]  # as all that these tests need

ROOT = Path(__file__).resolve().parents[2]
JOB = "jobs/sweep_blur.py"
# Small, but long enough to be caught in the middle: what is caught is a file or a line, never a moment.
SETTINGS = {
    "training.steps": 240,
    "training.batch_size": 16,
    "training.report_every": 10,
    "training.checkpoint_every": 20,
    "training.validate_every": 120,
}
PATIENCE = 1200.0  # seconds until something that must happen is given up; machines may be busy
_MARK = "COLDTUNE_E2E"
_STUDY = """
from pathlib import Path
from coldtune.cli.job import main
main({name!r}, Path({file!r}), "A study of a test.")
"""


LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without it Ray replaces a loopback address by the machine's own, for the head and for whoever connects to it."""


def through_uv() -> list[str]:
    """How a newcomer starts a script: through uv, where there is uv."""
    uv = shutil.which("uv")
    return [uv, "run", "--no-project", "--python", sys.executable] if uv else [sys.executable]


def flags(**settings: Any) -> list[str]:
    return ["--set", *(f"{key}={value}" for key, value in (SETTINGS | settings).items())]


def wait_for(
    what: str | Callable[[], str], condition: Callable[[], Any], over: Callable[[], bool] = lambda: False
) -> Any:
    """The first true value of `condition`; AssertionError where it has none though nothing more comes: it is `over`."""
    deadline = time.monotonic() + PATIENCE
    while True:
        last = over() or time.monotonic() > deadline
        if value := condition():
            return value
        if last:
            raise AssertionError(f"waited in vain for {what if isinstance(what, str) else what()}")
        time.sleep(0.1)


def title(process: psutil.Process) -> str:
    """The command line by which a process is known; empty where it has ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()) or process.name()
    return ""


@dataclass
class Running:
    """A command that was started, and what it printed so far."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")  # a character may be half written

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        """Wait for a condition that must become true before the command ends."""

        def found() -> str:
            return f"{what}; exit code {self.process.poll()}, output:\n{self.text}"

        return wait_for(found, condition, lambda: self.process.poll() is not None)

    def ended(self) -> int:
        """Its exit code."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not end; so far:\n{self.text}") from None


class Lab:
    """A user's home and a place for Ray's files; every process that is started here can be told by a mark."""

    def __init__(self, path: Path) -> None:
        self.path, self.mark = path, uuid.uuid4().hex
        self.ray = Path(tempfile.mkdtemp(prefix="ct", dir="/tmp"))  # paths of sockets must be short
        self.user = path / "user"
        self.user.mkdir(parents=True)
        foreign = ("RAY_", "COLDTUNE_", "MLFLOW_", "UV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)} | {
            _MARK: self.mark,
            "HOME": str(self.user),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "RAY_TMPDIR": str(self.ray),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.mark * 2,
        }

    def start(self, command: Sequence[str], cwd: Path = ROOT, **env: str) -> Running:
        output = self.path / f"output-{len(list(self.path.glob('output-*')))}.txt"
        with output.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=cwd, env=self.env | env, stdout=out, stderr=out, start_new_session=True
            )
        return Running(process, output)

    def sweep(self, home: Path, *arguments: str) -> Running:
        return self.start([sys.executable, JOB, "--home", str(home), *arguments])

    def study(self, name: str, space: str) -> list[str]:
        """The command of a job of its own with that space (YAML), to which flags are added."""
        job, file = self.path / f"{name}.py", self.path / f"{name}.yaml"
        job.write_text(_STUDY.format(name=name, file=str(file)))
        file.write_text(space)
        return [*through_uv(), str(job)]

    def session(self) -> Path:
        return self.ray / "ray" / "session_latest"

    def processes(self) -> list[psutil.Process]:
        """The processes that were started here, by whatever way, and still are."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def named(self, name: str) -> list[psutil.Process]:
        """Those of a program."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # ended in the meantime
                if process.name() == name:
                    found.append(process)
        return found

    def nothing_runs(self) -> None:
        """Wait until no process is left: an orphan fails here."""
        wait_for(lambda: f"the end of {[title(process) for process in self.processes()]}", lambda: not self.processes())

    def end(self) -> list[str]:
        """Kill what still runs, by its id, and give the names: Ray's head does not end with its last job."""
        names = []
        while left := self.processes():
            names += [title(process) for process in left]
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=20)
        return names

    def close(self) -> None:
        """Leave nothing behind, and fail if the test had."""
        names = self.end()
        shutil.rmtree(self.ray, ignore_errors=True)
        assert not names, f"left over: {names}"

    def get(self, dashboard: str, path: str) -> Any:
        """JSON of Ray's dashboard."""
        return self._ask("GET", dashboard + path)

    def post(self, dashboard: str, path: str) -> Any:
        return self._ask("POST", dashboard + path)

    def _ask(self, method: str, url: str) -> Any:
        headers = {"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(url, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def actors(self, dashboard: str) -> list[Mapping[str, Any]]:
        listed: list[Mapping[str, Any]] = self.get(dashboard, "/api/v0/actors?detail=1")["data"]["result"]["result"]
        return listed

    def prometheus(self) -> list[str]:
        """This platform's lines at all the places that Ray's service discovery names; none while Ray starts."""
        lines: list[str] = []
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            for entry in json.loads((self.session() / "prom_metrics_service_discovery.json").read_text()):
                for target in entry["targets"]:
                    with urllib.request.urlopen(f"http://{target}/metrics", timeout=60) as answer:
                        lines += answer.read().decode().splitlines()
        return [line for line in lines if line.startswith("ray_coldtune_")]

    def trial_logs(self) -> list[list[str]]:
        """The lines of each actor's log, without Ray's own (they start with a colon)."""
        paths = sorted(self.session().glob("logs/worker-*.out"))
        logs = [path.read_text(errors="replace").splitlines() for path in paths]
        return [
            [line for line in log if not line.startswith(":")] for log in logs if ":actor_name:coldtune_trial" in log
        ]


class Head:
    """Ray's head, started in a lab by `ray start` on free ports with `cpus` CPUs."""

    def __init__(self, lab: Lab, cpus: int) -> None:
        self.lab, self.cpus = lab, cpus
        self.address = ""

    def start(self) -> None:
        """Returns when `ray start` does."""
        port, agent, client, metrics = free_ports(4)
        ports = {"port": port, "dashboard-agent-listen-port": agent, "ray-client-server-port": client}
        ports |= {"metrics-export-port": metrics, "min-worker-port": 0, "max-worker-port": 0}
        options = [f"--num-cpus={self.cpus}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
        run = self.lab.start(
            ["ray", "start", "--head", *options, *(f"--{name}={value}" for name, value in ports.items())],
            **LOOPBACK,
        )
        assert run.ended() == 0, run.text
        self.address = f"127.0.0.1:{port}"

    def close(self) -> None:
        """End what is left of it."""
        self.lab.end()
        time.sleep(0.1)


@dataclass
class Unbroken:
    """A finished sweep, and what was seen from outside while it ran."""

    home: Path
    code: int
    text: str
    study: Any
    jobs: list[dict[str, Any]]
    actors: list[dict[str, Any]]
    prometheus: list[str]
    listening: dict[str, set[str]]
    drivers_torch: set[str]
    workers_torch: set[str]
    early_logs: list[list[str]]
    logs: list[list[str]]


def trainings_of(prometheus: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each trial whose training shows whole: what it shows, by the metric's name."""
    found: dict[str, dict[str, float]] = {}
    for line in prometheus:
        if match := re.match(r'ray_coldtune_(training_loss|training_step|images_per_second)\{.*\btrial="(\d+)"', line):
            found.setdefault(match[2], {})[match[1]] = float(line.rpartition(" ")[2])
    return {trial: values for trial, values in found.items() if len(values) == 3}


def dashboard_of(text: str) -> str:
    found = re.search(r"dashboard (http://127\.0\.0\.1:\d+)", text)
    return found[1] if found else ""


def study_of(home: Path, name: str = "*") -> Any:
    """The Optuna study of the one study (of that name) in a home, or None while there is none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journals = list(home.glob(f"studies/{name}/journal.log"))
    if not journals:
        return None
    (journal,) = journals
    names = optuna.get_all_study_names(storage := JournalStorage(JournalFileBackend(str(journal))))
    return optuna.load_study(study_name=names[0], storage=storage) if names else None


def checkpoints_of(home: Path) -> dict[str, dict[int, float]]:
    """Training key -> step -> when its checkpoint was published."""
    found: dict[str, dict[int, float]] = {}
    for manifest in home.glob("store/train/*/*/manifest.json"):
        with contextlib.suppress(FileNotFoundError):
            found.setdefault(manifest.parts[-3], {})[int(manifest.parts[-2])] = manifest.stat().st_mtime
    return found


class Runs:
    """The MLflow tree of the one study in a home."""

    def __init__(self, home: Path) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(f"sqlite:///{home}/mlflow.db")
        (experiment,) = [e for e in self.client.search_experiments() if e.name == "coldtune"]
        runs = self.client.search_runs([experiment.experiment_id])
        self.parents = [run for run in runs if run.data.tags["coldtune.kind"] == "study"]
        children = [run for run in runs if run.data.tags["coldtune.kind"] == "trial"]
        self.trials = {int(run.data.tags["coldtune.trial"]): run for run in children}
        assert len(self.trials) == len(children), "a trial has one run"

    def steps(self, trial: int, metric: str) -> list[int]:
        """The steps at which a metric was logged, in order; twice what was done twice."""
        history = self.client.get_metric_history(self.trials[trial].info.run_id, metric)
        return sorted(row.step for row in history)

    def artifacts(self, trial: int) -> set[str]:
        run_id = self.trials[trial].info.run_id
        top = self.client.list_artifacts(run_id)
        below = [file for folder in top if folder.is_dir for file in self.client.list_artifacts(run_id, folder.path)]
        return {file.path for file in [*top, *below] if not file.is_dir}
