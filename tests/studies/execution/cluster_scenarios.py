"""Studies of trials that do nothing, on several nodes of this machine: `python cluster_scenarios.py SCENARIO FOLDER`.

Prints JSON on its last line. A process of its own, because Ray reads its environment when it is imported. The executor,
the ledger and Ray are the real ones; a trial counts to its end in a file, which is its checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # loopback only; see studies/execution/cluster.py

import optuna
import psutil

from coldtune.studies.execution import cluster
from coldtune.studies.execution.executor import execute
from coldtune.studies.execution.stopping import StopConditions
from coldtune.studies.preflight.capacity import Capacity, plan_resources
from coldtune.studies.preflight.options import Limits
from coldtune.studies.progress.events import EventBroadcast, Events, StoppedError
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import TrialRequest, open_ledger
from coldtune.studies.worker.job import TrialJob
from coldtune.studies.worker.timeout import TrialTimeout
from coldtune.studies.worker.trial import _end_process

ROOT = Path(__file__).resolve().parents[3]
STEPS = 5  # of a trial; each begins once the file `go` is there, or says how far trials may go


def counting_trial(config: Mapping[str, Any]) -> None:
    """Counts to STEPS, as far as the file `go` lets it, from where the file of its number left off."""
    import ray
    from ray import tune

    job = json.loads(config["job"])
    folder, number = Path(job["home"]), job["number"]
    mine = folder / f"trial-{number}"
    node = ray.get_runtime_context().get_node_id()

    def note(**row: Any) -> None:
        row |= {"number": number, "pid": os.getpid(), "node": node, "gpus": ray.get_gpu_ids(), "time": time.time()}
        with (folder / "log").open("a") as log:
            log.write(json.dumps(row) + "\n")

    reached = int(mine.read_text()) if mine.exists() else 0
    note(event="begins", step=reached)
    if "late" in config:
        tune.report({"state": "failed", "reason": config["late"]})
        return
    if number in job["trial"]["fail"]:
        note(event="fails")
        tune.report({"state": "failed", "reason": "ValueError: told to fail"})
        return
    if number in job["trial"]["hang"]:
        with TrialTimeout(0.5, partial(_end_process, tune.report), grace=0.5):
            time.sleep(1000)
    for step in range(reached + 1, STEPS + 1):
        while int((folder / "go").read_text()) < step:
            time.sleep(0.02)
        scratch = mine.with_suffix(f".{os.getpid()}")
        scratch.write_text(str(step))
        scratch.replace(mine)
        if number in job["trial"]["die"]:
            os._exit(1)
        tune.report({"state": "running", "stage": "train", "step": step, "steps": STEPS, "loss": 0.0})
    note(event="ends")
    tune.report({"state": "complete", "outcome": TrialOutcome({"fid": float(number)}).to_json()})


class Seen(Events):
    """What the executor told, in words."""

    def __init__(self) -> None:
        self.restarts, self.ended, self.said = Counter[int](), Counter[int](), list[str]()
        self.reasons: dict[int, str] = {}

    def restarted(self, number: int) -> None:
        self.restarts[number] += 1

    def completed(self, number: int, outcome: TrialOutcome) -> None:
        self.ended[number] += 1

    def failed(self, number: int, reason: str) -> None:
        self.ended[number] += 1
        self.reasons[number] = reason


@contextlib.contextmanager
def nodes(*resources: dict[str, float]) -> Iterator[tuple[Any, list[Any]]]:
    """A head without CPUs, and a node with each of `resources`, on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ct", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        head = {"num_cpus": 0, "temp_dir": scratch, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            others = [made.add_node(wait=False, node_ip_address="127.0.0.1", **each) for each in resources]
            made.wait_for_nodes()
            package = str(ROOT / "platform")
            ray.init(
                address=made.address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": {"PYTHONPATH": package}},
            )
            yield made, others
        finally:
            ray.shutdown()
            made.shutdown()


class Study:
    """A study of counting trials in `folder`."""

    def __init__(self, folder: Path, trials: int, go: int = STEPS, **told: list[int]) -> None:
        self.folder, self.trials, self.told = folder, trials, {"fail": [], "die": [], "hang": []} | told
        folder.mkdir(parents=True, exist_ok=True)
        self.go(go)
        spec = build_spec("counting", ROOT / "search_spaces" / "blur.yaml")
        self.ledger = open_ledger(
            "counting", spec, Space(spec.space, spec.base, (1, 16, 16)), optuna.storages.InMemoryStorage()
        )
        self.seen = Seen()

    def go(self, step: int) -> None:
        scratch = self.folder / ".go"
        scratch.write_text(str(step))
        scratch.replace(self.folder / "go")

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        lines = (self.folder / "log").read_text().splitlines() if (self.folder / "log").exists() else []
        rows = [json.loads(line) for line in lines]
        return [row for row in rows if event in (None, row["event"])]

    def reached(self) -> dict[int, int]:
        return {int(path.name.removeprefix("trial-")): int(path.read_text()) for path in self.folder.glob("trial-?")}

    def run(self, gpus: float = 0.0, limits: Limits | None = None) -> str | None:
        """Until it has its trials (None), or stops (why)."""
        limits = limits or Limits()
        slots = plan_resources(cluster.nodes(), 1, gpus, self.trials)
        self.room = Capacity(slots, self.trials, cluster.nodes)
        events = EventBroadcast([self.seen, StopConditions(limits, self.room, self.seen.said.append)])
        arguments = (self.ledger, events, self._job, self.room, self.trials, self.folder / "tune")
        try:
            execute(*arguments, trial=counting_trial, retries=limits.retries)
        except StoppedError as stopped:
            return str(stopped)
        return None

    def _job(self, asked: TrialRequest) -> TrialJob:
        # Only what a counting trial reads: nothing here is trained.
        return {"home": str(self.folder), "number": asked.number, "trial": self.told}  # type: ignore[return-value]

    def summary(self) -> dict[str, Any]:
        begun = self.log("begins")
        return {
            "states": [trial.state.name for trial in self.ledger.trials()],
            "ended": sorted(self.seen.ended.items()),
            "restarts": sorted(self.seen.restarts.items()),
            "said": self.seen.said,
            "reasons": self.seen.reasons,
            "begun": [[row["number"], row["step"], row["pid"], row["node"]] for row in begun],
        }


def until(condition: Callable[[], Any], then: Callable[[], None]) -> threading.Thread:
    """Do `then` once `condition` holds, in a thread."""

    def wait() -> None:
        deadline = time.monotonic() + 200
        while not condition():
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        then()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def raylet_of(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def shrinks(folder: Path) -> dict[str, Any]:
    """Two nodes of one CPU; the raylet of one is killed while both run a trial, later that of the other."""
    study = Study(folder / "study", 4, go=2)
    with nodes({"num_cpus": 1}, {"num_cpus": 1}) as (_, (one, two)):

        def first() -> None:
            raylet_of(two).kill()
            until(lambda: study.seen.restarts, lambda: study.go(STEPS))

        until(lambda: list(study.reached().values()) == [2, 2], first)
        assert study.run() is None
        until(lambda: study.room.count() == 1, lambda: None).join()  # it looks every few seconds
        seen = {"first": study.summary(), "nodes": [one.node_id, two.node_id], "count": study.room.count()}
        study = Study(folder / "again", 4, go=2)
        until(lambda: 2 in study.reached().values(), lambda: raylet_of(one).kill())
        seen["stopped"] = study.run(limits=Limits(patience=4.0))
        return {**seen, "second": study.summary(), "live": study.ledger.running()}


def gpus(folder: Path) -> dict[str, Any]:
    """Six trials with 0.4 of a GPU each, on two GPUs that exist in name only."""
    study = Study(folder / "study", 6, go=1)
    with nodes({"num_cpus": 8, "num_gpus": 2}):
        until(lambda: len(study.reached()) == 4, lambda: study.go(STEPS))
        assert study.run(gpus=0.4) is None
        spans = [(row["gpus"], row["time"], end["time"]) for row in study.log("begins") for end in study.log("ends")
                 if end["number"] == row["number"]]  # fmt: skip
        most = Counter[int]()
        for held, begun, _ in spans:
            together = [other for other, start, end in spans if other == held and start <= begun < end]
            most[held[0]] = max(most[held[0]], len(together))
        return {
            "slots": [study.room.resources.count, study.room.resources.gpus],
            "most": sorted(most.items()),
        } | study.summary()


def processes(folder: Path) -> dict[str, Any]:
    """One slot: which process runs which trial, after a failure, a death and a hang; then only failures."""
    with nodes({"num_cpus": 1}):
        study = Study(folder / "study", 7, fail=[1], die=[3], hang=[5])
        assert study.run(limits=Limits(retries=1)) is None
        failing = Study(folder / "failing", 20, fail=list(range(2, 20)))
        stopped = failing.run(limits=Limits(max_failures=3))
        return {"mixed": study.summary(), "stopped": stopped, "failing": failing.summary()}


def main() -> None:
    scenario, folder = sys.argv[1:]
    for name, value in cluster._ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    seen = {"shrinks": shrinks, "gpus": gpus, "processes": processes}[scenario](Path(folder))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
