"""Real sweeps in their own processes, and readers of the files that they leave behind.

The readers look at a study from outside, as a user would.
"""

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

__all__ = ["free_ports"]  # so that these tests need a single import

ROOT = Path(__file__).resolve().parents[2]
JOB = "jobs/sweep_blur.py"
# Short trainings that can still be interrupted in the middle. Tests wait for a file or a line, never for a duration.
SETTINGS = {
    "training.steps": 240,
    "training.batch_size": 16,
    "training.report_every": 10,
    "training.checkpoint_every": 20,
    "training.validate_every": 120,
}
PATIENCE = 1200.0  # seconds to wait for an expected event; long, because the machine may be busy
_MARK = "COLDTUNE_E2E"
_STUDY = """
from pathlib import Path
from coldtune.cli.job import main
main({name!r}, Path({file!r}), "A study of a test.")
"""


LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without this setting, Ray replaces a loopback address by the machine's own, for its head and for its clients."""


def python_through_uv() -> list[str]:
    """Return the command that starts a script as a newcomer does: through uv, if uv is installed."""
    uv = shutil.which("uv")
    return [uv, "run", "--no-project", "--python", sys.executable] if uv else [sys.executable]


def flags(**settings: Any) -> list[str]:
    """Return the flags of a short study without a confirmation, with changed settings."""
    return ["--confirm", "0", "--set", *(f"{key}={value}" for key, value in (SETTINGS | settings).items())]


def wait_for(
    event: str | Callable[[], str], condition: Callable[[], Any], over: Callable[[], bool] = lambda: False
) -> Any:
    """Wait until a condition holds.

    Args:
        event: The name of the awaited event, for the error message.
        condition: Called again and again until it returns a true value.
        over: Returns True once the event can no longer happen. The condition is then checked a last time.

    Returns:
        The first true value of `condition`.

    Raises:
        AssertionError: If the condition still does not hold after `over` or PATIENCE.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        last = over() or time.monotonic() > deadline
        if value := condition():
            return value
        if last:
            raise AssertionError(f"waited in vain for {event if isinstance(event, str) else event()}")
        time.sleep(0.1)


def title(process: psutil.Process) -> str:
    """Return the command line of a process, or an empty string if the process has ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()) or process.name()
    return ""


@dataclass
class Running:
    """A command that was started, and the file that takes its output."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")  # the last character may be half written

    def until(self, event: str, condition: Callable[[], Any]) -> Any:
        """Wait for a condition that must become true before the command ends, and return its value."""

        def described() -> str:
            return f"{event}; exit code {self.process.poll()}, output:\n{self.text}"

        return wait_for(described, condition, lambda: self.process.poll() is not None)

    def wait(self) -> int:
        """Wait for the end of the command and return its exit code."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the command does not end; its output so far:\n{self.text}") from None


class Lab:
    """A user's home, a folder for Ray's files, and the processes that were started here.

    A variable in their environment marks these processes, so that the lab finds them even after their parent has ended.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.mark = path, uuid.uuid4().hex
        self.ray = Path(tempfile.mkdtemp(prefix="ct", dir="/tmp"))  # the paths of Ray's sockets must be short
        self.user = path / "user"
        self.user.mkdir(parents=True)
        foreign = ("RAY_", "COLDTUNE_", "MLFLOW_", "UV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)} | {
            _MARK: self.mark,
            "HOME": str(self.user),
            "COLUMNS": "160",  # at 80 columns a wide table continues below itself, depending on how long trials take
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
        """Write a job with the given search space (YAML) and return its command, to which flags can be added."""
        job, file = self.path / f"{name}.py", self.path / f"{name}.yaml"
        job.write_text(_STUDY.format(name=name, file=str(file)))
        file.write_text(space)
        return [*python_through_uv(), str(job)]

    def session(self) -> Path:
        return self.ray / "ray" / "session_latest"

    def processes(self) -> list[psutil.Process]:
        """Return the living processes that were started here, directly or by others."""
        mine = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    mine.append(process)
        return mine

    def processes_named(self, name: str) -> list[psutil.Process]:
        """Return the living processes of a program."""
        matching = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it may have ended in the meantime
                if process.name() == name:
                    matching.append(process)
        return matching

    def wait_until_empty(self) -> None:
        """Wait until no process is left. An orphan makes the test fail here."""
        wait_for(lambda: f"the end of {[title(process) for process in self.processes()]}", lambda: not self.processes())

    def kill_all(self) -> list[str]:
        """Kill the processes that still run, each by its id, and return their titles.

        A Ray head that `ray start` started does not end with its last job, so tests call this to end it.
        """
        titles = []
        while left := self.processes():
            titles += [title(process) for process in left]
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=20)
        return titles

    def close(self) -> None:
        """Remove processes and Ray's files, and fail if the test has left a process behind."""
        titles = self.kill_all()
        shutil.rmtree(self.ray, ignore_errors=True)
        assert not titles, f"processes left over: {titles}"

    def get(self, dashboard: str, path: str) -> Any:
        """Send a GET request to Ray's dashboard and return the JSON of its answer."""
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
        """Return coldtune's lines from all addresses in Ray's service discovery. There are none while Ray starts."""
        lines: list[str] = []
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            for entry in json.loads((self.session() / "prom_metrics_service_discovery.json").read_text()):
                for target in entry["targets"]:
                    with urllib.request.urlopen(f"http://{target}/metrics", timeout=60) as answer:
                        lines += answer.read().decode().splitlines()
        return [line for line in lines if line.startswith("ray_coldtune_")]

    def trial_logs(self) -> list[list[str]]:
        """Return the lines of each trial process's log, without Ray's own lines, which start with a colon."""
        # Ray points the link to a new session when it starts again, perhaps between the listing and the reading.
        paths = sorted(self.session().resolve().glob("logs/worker-*.out"))
        logs = [path.read_text(errors="replace").splitlines() for path in paths]
        return [
            [line for line in log if not line.startswith(":")] for log in logs if ":actor_name:coldtune_trial" in log
        ]


class Head:
    """A Ray head with `cpus` CPUs, started in a lab by `ray start` on free ports."""

    def __init__(self, lab: Lab, cpus: int) -> None:
        self.lab, self.cpus = lab, cpus
        self.address = ""

    def start(self) -> None:
        """Start the head and wait until `ray start` has returned."""
        port, agent, client, metrics = free_ports(4)
        ports = {"port": port, "dashboard-agent-listen-port": agent, "ray-client-server-port": client}
        ports |= {"metrics-export-port": metrics, "min-worker-port": 0, "max-worker-port": 0}
        options = [f"--num-cpus={self.cpus}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
        run = self.lab.start(
            ["ray", "start", "--head", *options, *(f"--{name}={value}" for name, value in ports.items())],
            **LOOPBACK,
        )
        assert run.wait() == 0, run.text
        self.address = f"127.0.0.1:{port}"

    def close(self) -> None:
        """Kill the processes of the head that still run."""
        self.lab.kill_all()
        time.sleep(0.1)


@dataclass
class Unbroken:
    """A finished sweep, and observations from outside while it ran."""

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
    """Return the gauges of each trial that exports loss, step and speed, as trial -> name of the gauge -> value."""
    gauges: dict[str, dict[str, float]] = {}
    for line in prometheus:
        if match := re.match(r'ray_coldtune_(training_loss|training_step|images_per_second)\{.*\btrial="(\d+)"', line):
            gauges.setdefault(match[2], {})[match[1]] = float(line.rpartition(" ")[2])
    return {trial: values for trial, values in gauges.items() if len(values) == 3}


def dashboard_of(text: str) -> str:
    """Return the dashboard's address as a job has printed it, or an empty string before that."""
    match = re.search(r"dashboard (http://127\.0\.0\.1:\d+)", text)
    return match[1] if match else ""


def study_of(home: Path, name: str = "*") -> Any:
    """Return the single Optuna study (of that name) in a home, or None if it does not exist yet."""
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
    """Return the time at which each checkpoint was published, as training key -> step -> time."""
    checkpoints: dict[str, dict[int, float]] = {}
    for manifest in home.glob("store/train/*/*/manifest.json"):
        with contextlib.suppress(FileNotFoundError):
            checkpoints.setdefault(manifest.parts[-3], {})[int(manifest.parts[-2])] = manifest.stat().st_mtime
    return checkpoints


def interrupted_checkpoints(home: Path) -> dict[str, int]:
    """Return the last checkpoint of each training that has not finished, as training key -> step."""
    last = {key: max(steps) for key, steps in checkpoints_of(home).items()}
    return {key: step for key, step in last.items() if step < SETTINGS["training.steps"]}


class Runs:
    """The MLflow runs of the single study in a home: its parent run, and a child run for each trial."""

    def __init__(self, home: Path) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(f"sqlite:///{home}/mlflow.db")
        (experiment,) = [e for e in self.client.search_experiments() if e.name == "coldtune"]
        runs = self.client.search_runs([experiment.experiment_id])
        self.parents = [run for run in runs if run.data.tags["coldtune.kind"] == "study"]
        children = [run for run in runs if run.data.tags["coldtune.kind"] == "trial"]
        self.trials = {int(run.data.tags["coldtune.trial"]): run for run in children}
        assert len(self.trials) == len(children), "a trial has a single run"

    def steps(self, trial: int, metric: str) -> list[int]:
        """Return the steps at which a metric was logged, in order. A step that was logged twice appears twice."""
        history = self.client.get_metric_history(self.trials[trial].info.run_id, metric)
        return sorted(row.step for row in history)

    def artifacts(self, trial: int) -> set[str]:
        run_id = self.trials[trial].info.run_id
        top = self.client.list_artifacts(run_id)
        below = [file for folder in top if folder.is_dir for file in self.client.list_artifacts(run_id, folder.path)]
        return {file.path for file in [*top, *below] if not file.is_dir}
