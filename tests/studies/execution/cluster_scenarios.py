"""Studies of trials that do nothing, on several nodes of this machine: `python cluster_scenarios.py FOLDER`.

The last line of the output is JSON: by scenario, the observations, or `error` with a traceback. All scenarios share a
cluster, because starting Ray costs more than all their trials. They run in their own process, because Ray reads its
environment when it is imported. The executor, the ledger and Ray are the real ones. A trial counts to its end in a
file, which is its checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # loopback only, see studies/execution/cluster.py

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
STEPS = 5  # of a trial
CPU_NODE = {"num_cpus": 1}
GPU_NODE = {"num_cpus": 4, "num_gpus": 2}  # the GPUs exist in name only


def counting_trial(config: Mapping[str, Any]) -> None:
    """Count to STEPS, but no further than the number in the file `go`. Begin at the number in the trial's own file."""
    import ray
    from ray import tune

    job = json.loads(config["job"])
    folder, number = Path(job["home"]), job["number"]
    checkpoint = folder / f"trial-{number}"
    node = ray.get_runtime_context().get_node_id()

    def note(**row: Any) -> None:
        row |= {"number": number, "pid": os.getpid(), "node": node, "gpus": ray.get_gpu_ids(), "time": time.time()}
        with (folder / "log").open("a") as log:
            log.write(json.dumps(row) + "\n")

    reached = int(checkpoint.read_text()) if checkpoint.exists() else 0
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
        scratch = checkpoint.with_suffix(f".{os.getpid()}")
        scratch.write_text(str(step))
        scratch.replace(checkpoint)
        if number in job["trial"]["die"]:
            os._exit(1)
        tune.report({"state": "running", "stage": "train", "step": step, "steps": STEPS, "loss": 0.0})
    note(event="ends")
    tune.report({"state": "complete", "outcome": TrialOutcome({"fid": float(number)}).to_json()})


class Recorder(Events):
    """A listener that counts events, and remembers reasons and sentences."""

    def __init__(self) -> None:
        self.restarts, self.ended, self.sentences = Counter[int](), Counter[int](), list[str]()
        self.reasons: dict[int, str] = {}

    def restarted(self, number: int) -> None:
        self.restarts[number] += 1

    def completed(self, number: int, outcome: TrialOutcome) -> None:
        self.ended[number] += 1

    def failed(self, number: int, reason: str) -> None:
        self.ended[number] += 1
        self.reasons[number] = reason


class TestCluster:
    """A Ray cluster on this machine. Its head node has no CPUs, so that trials run on the other nodes."""

    def __init__(self, made: Any) -> None:
        self._made = made
        self._nodes: list[tuple[dict[str, float], Any]] = []

    @contextlib.contextmanager
    def connect(self) -> Iterator[None]:
        """Connect to the cluster. At the end of the block, Ray kills the trials that a stopped study left running."""
        import ray

        environment = {"PYTHONPATH": str(ROOT / "platform")}
        ray.init(self._made.address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": environment})
        try:
            yield
        finally:
            ray.shutdown()

    def provide(self, *resources: dict[str, float]) -> list[Any]:
        """Return a node with each of `resources`. Equal nodes are used again, and other nodes are removed."""
        unused, self._nodes = self._nodes, []
        for each in resources:
            equal = next((entry for entry in unused if entry[0] == each), None)
            if equal is None:
                equal = (each, self._made.add_node(wait=False, node_ip_address="127.0.0.1", **each))
            else:
                unused.remove(equal)
            self._nodes.append(equal)
        for _, node in unused:
            self._made.remove_node(node, allow_graceful=False)
        cpus = [0.0, *(each["num_cpus"] for each in resources)]
        wait_until(lambda: sorted(node.get("CPU", 0.0) for node in cluster.nodes()) == sorted(cpus))
        return [node for _, node in self._nodes]

    def kill(self, node: Any) -> None:
        """Kill the raylet of a node."""
        self._nodes = [entry for entry in self._nodes if entry[1] is not node]
        psutil.Process(node.all_processes["raylet"][0].process.pid).kill()


@contextlib.contextmanager
def start_cluster() -> Iterator[TestCluster]:
    from ray.cluster_utils import Cluster

    # The default folder may be too long for the paths of Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="ct", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        head = {
            "num_cpus": 0,
            "temp_dir": scratch,
            "include_dashboard": False,
            "node_ip_address": "127.0.0.1",
            # Ray would start processes in advance, which no trial can use because they lack its environment.
            "_system_config": {"prestart_worker_first_driver": False, "enable_worker_prestart": False},
        }
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield TestCluster(made)
        finally:
            made.shutdown()


class Study:
    """A study of counting trials in `folder`.

    Args:
        go: How far the trials may count for now.
        faults: The numbers of the trials that `fail`, `die` or `hang`.
    """

    def __init__(self, folder: Path, trials: int, go: int = STEPS, **faults: list[int]) -> None:
        self.folder, self.trials, self.faults = folder, trials, {"fail": [], "die": [], "hang": []} | faults
        folder.mkdir(parents=True, exist_ok=True)
        self.go(go)
        spec = build_spec("counting", ROOT / "search_spaces" / "blur.yaml")
        space = Space(spec.space, spec.base, (1, 16, 16))
        self.ledger = open_ledger("counting", spec, space, optuna.storages.InMemoryStorage())
        self.events = Recorder()

    def go(self, step: int) -> None:
        """Let the trials count to `step`."""
        scratch = self.folder / ".go"
        scratch.write_text(str(step))
        scratch.replace(self.folder / "go")

    def log(self, event: str) -> list[dict[str, Any]]:
        lines = (self.folder / "log").read_text().splitlines() if (self.folder / "log").exists() else []
        return [row for row in map(json.loads, lines) if row["event"] == event]

    def reached(self) -> dict[int, int]:
        """Return how far each trial has counted."""
        return {int(path.name.removeprefix("trial-")): int(path.read_text()) for path in self.folder.glob("trial-?")}

    def run(self, gpus: float = 0.0, limits: Limits | None = None) -> str | None:
        """Run the study. Return None if it has its trials, or why it stopped."""
        limits = limits or Limits()
        self.capacity = Capacity(plan_resources(cluster.nodes(), 1, gpus, self.trials), self.trials, cluster.nodes)
        conditions = StopConditions(limits, self.capacity, self.events.sentences.append)
        events = EventBroadcast([self.events, conditions])
        arguments = (self.ledger, events, self._job, self.capacity, self.trials, self.folder / "tune")
        try:
            execute(*arguments, trial=counting_trial, retries=limits.retries)
        except StoppedError as stopped:
            return str(stopped)
        return None

    def _job(self, request: TrialRequest) -> TrialJob:
        # A counting trial reads only these keys.
        return {"home": str(self.folder), "number": request.number, "trial": self.faults}  # type: ignore[return-value]

    def summary(self) -> dict[str, Any]:
        return {
            "states": [trial.state.name for trial in self.ledger.trials()],
            "ended": sorted(self.events.ended.items()),
            "restarts": sorted(self.events.restarts.items()),
            "sentences": self.events.sentences,
            "reasons": self.events.reasons,
            "begun": [[row["number"], row["step"], row["pid"], row["node"]] for row in self.log("begins")],
        }


def wait_until(condition: Callable[[], Any], then: Callable[[], None] = lambda: None) -> None:
    """Wait until `condition` holds, then call `then`."""
    deadline = time.monotonic() + 200
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition does not hold after 200 s")
        time.sleep(0.05)
    then()


def once(condition: Callable[[], Any], then: Callable[[], None]) -> None:
    """Call `then` in a thread, once `condition` holds."""
    threading.Thread(target=wait_until, args=(condition, then), daemon=True).start()


def processes(nodes: TestCluster, folder: Path) -> dict[str, Any]:
    """Run a trial at a time, while trials fail, die and hang. Then run a study whose trials only fail."""
    nodes.provide(CPU_NODE)
    study = Study(folder / "study", 7, fail=[1], die=[3], hang=[5])
    assert study.run(limits=Limits(retries=1)) is None
    failing = Study(folder / "failing", 20, fail=list(range(2, 20)))
    stopped = failing.run(limits=Limits(max_failures=3))
    return {"mixed": study.summary(), "stopped": stopped, "failing": failing.summary()}


def gpus(nodes: TestCluster, folder: Path) -> dict[str, Any]:
    """Run six trials with 0.4 GPUs each on a node with two GPUs, beside a node without GPUs."""
    nodes.provide(CPU_NODE, GPU_NODE)
    study = Study(folder, 6, go=1)
    once(lambda: len(study.reached()) == 4, lambda: study.go(STEPS))
    assert study.run(gpus=0.4) is None
    ends = {row["number"]: row["time"] for row in study.log("ends")}
    spans = [(row["gpus"], row["time"], ends[row["number"]]) for row in study.log("begins")]
    most = Counter[int]()
    for gpu, begun, _ in spans:
        at_once = [other for other, start, end in spans if other == gpu and start <= begun < end]
        most[gpu[0]] = max(most[gpu[0]], len(at_once))
    planned = study.capacity.resources
    return {"planned": [planned.count, planned.gpus], "most": sorted(most.items()), **study.summary()}


def shrinks(nodes: TestCluster, folder: Path) -> dict[str, Any]:
    """Kill a node while each of two nodes runs a trial. Then kill the other node in the middle of a second study."""
    one, two = nodes.provide(CPU_NODE, CPU_NODE)
    study = Study(folder / "study", 4, go=2)

    def kill_two() -> None:
        nodes.kill(two)
        wait_until(lambda: study.events.restarts, lambda: study.go(STEPS))

    once(lambda: list(study.reached().values()) == [2, 2], kill_two)
    assert study.run() is None
    wait_until(lambda: study.capacity.count() == 1)  # the capacity looks at the nodes every few seconds
    seen = {"first": study.summary(), "nodes": [one.node_id, two.node_id], "count": study.capacity.count()}
    study = Study(folder / "again", 4, go=2)
    once(lambda: 2 in study.reached().values(), lambda: nodes.kill(one))
    seen["stopped"] = study.run(limits=Limits(patience=4.0))
    return {**seen, "second": study.summary(), "live": study.ledger.running()}


def main() -> None:
    folder = Path(sys.argv[1])
    for name, value in cluster._ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    seen: dict[str, Any] = {}
    with start_cluster() as nodes:
        for scenario in (processes, gpus, shrinks):
            try:
                with nodes.connect():
                    seen[scenario.__name__] = scenario(nodes, folder / scenario.__name__)
            except Exception:
                seen[scenario.__name__] = {"error": traceback.format_exc()}
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
