"""Trainings on a local Ray, for test_distributed.py: `python ray_scenarios.py`.

Each line of standard input names a scenario, a folder and a pickled task, separated by tabs. The process answers with a
line of JSON. It is a separate process, because Ray reads its environment on import, and so that pytest's process stays
free of Ray. All scenarios share this process, because a start of Ray takes seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "300"  # Tune's own default, 2, is too short for a trial to end

import ray
from training_helpers import InterruptedTrainingError, Reports

from coldtune.training import DivergedError, FolderCheckpoints, Report, TrainingTask
from coldtune.training.distributed import train_distributed

ANSWER = "answer: "


def run(task: TrainingTask, folder: Path, report: Report, name: str) -> Any:
    return train_distributed(
        task, FolderCheckpoints(folder / name), report, workers=2, name=name, storage_path=folder / "train"
    )


def plain(task: TrainingTask, folder: Path) -> dict[str, Any]:
    """Train as a script does, then read the dashboard's list of runs, and wait until the workers have ended."""
    callers: set[tuple[int, str]] = set()
    reports = Reports()

    def report(step: int, metrics: Any) -> None:
        callers.add((os.getpid(), threading.current_thread().name))
        reports(step, metrics)

    result = run(task, folder, report, "plain")
    url = f"http://{ray.get_runtime_context().worker.node.webui_url}/api/train/v2/runs/v1"
    statuses: list[str] = []

    def finished() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60) as answer:
            runs = json.load(answer)["train_runs"]
            statuses[:] = [run["status"] for run in runs if run["name"] == "plain"]
        return statuses == ["FINISHED"]

    wait_for(finished)
    return {
        "rows": list(reports.rows.items()),
        "step": result.step,
        "reported in caller's thread": callers == {(os.getpid(), threading.current_thread().name)},
        "statuses": statuses,
    }


def failing(task: TrainingTask, folder: Path) -> dict[str, Any]:
    """Train with a killed worker, then with a divergence, then with a terminated worker and a report that raises."""
    seen: dict[str, Any] = {}
    killed: list[int] = []
    rows: list[int] = []

    def kill_once(step: int, metrics: Any) -> None:
        rows.append(step)
        if step == 7 and not killed:
            killed.append(workers_alive()[1])
            os.kill(killed[0], signal.SIGKILL)

    result = run(task, folder, kill_once, "killed")
    seen["killed"] = {"rows": rows, "killed": len(killed), "resumed_from": result.resumed_from}
    try:
        run(replace(task, training=task.training.model_copy(update={"lr": 1e30})), folder, Reports(), "diverging")
    except DivergedError as error:
        seen["diverged"] = str(error)
    endless = replace(task, training=task.training.model_copy(update={"steps": 100_000, "checkpoint_every": 0}))
    steps: list[int] = []

    def terminate_then_stop(step: int, metrics: Any) -> None:
        steps.append(step)
        if len(steps) == 3:
            os.kill(workers_alive()[1], signal.SIGTERM)
        elif step == 1 and len(steps) > 1:  # the group was started again, without a checkpoint
            raise InterruptedTrainingError

    try:
        run(endless, folder, terminate_then_stop, "stopped")
    except InterruptedTrainingError:
        seen["stopped"] = steps
    return seen


def nested(task: TrainingTask, folder: Path) -> dict[str, Any]:
    """Run two trials of Ray Tune in a reused actor, on exactly the CPUs of one training. Tune stops the first trial."""
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        def report(step: int, metrics: Any) -> None:
            tune.report({"step": step, "loss": metrics["loss"], "trial_pid": os.getpid()})

        settings = {"steps": config["steps"], "validate_every": 0}
        longer = replace(task, training=task.training.model_copy(update=settings))
        run(longer, folder, report, f"trial{config['steps']}")

    tuner = tune.Tuner(
        tune.with_resources(trial, tune.PlacementGroupFactory([{"memory": 1_000_000}])),
        param_space={"steps": tune.grid_search([100_000, 4])},
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1, metric="loss", mode="min"),
        run_config=tune.RunConfig(name="nested", storage_path=str(folder / "tune"), stop={"step": 5}, verbose=0),
    )
    results = tuner.fit()
    return {
        "errors": results.num_errors,
        "last_steps": sorted(result.metrics["step"] for result in results if result.metrics),
        "actors": len({result.metrics["trial_pid"] for result in results if result.metrics}),
        "loss of step 4": [r.metrics["loss"] for r in results if r.metrics and r.metrics["step"] == 4],
    }


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until `condition()` is true, at most two minutes. The caller's test then sees that it is still false."""
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)


def workers_alive() -> list[int]:
    from ray.util.state import list_actors

    address = ray.get_runtime_context().gcs_address  # there may be other clusters on this machine
    filters = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
    return [actor.pid for actor in list_actors(address=address, filters=filters, detail=True, timeout=120)]


def answer(line: str, logs: Path) -> dict[str, Any]:
    """Run the scenario of an input line, and look for workers that still run or ended by SIGABRT."""
    name, folder, pickled = line.rstrip("\n").split("\t")
    task: TrainingTask = pickle.loads(Path(pickled).read_bytes())
    try:
        seen = {"plain": plain, "failing": failing, "nested": nested}[name](task, Path(folder))
    except Exception:
        return {"error": traceback.format_exc()}
    wait_for(lambda: not workers_alive())
    seen["workers_left"] = len(workers_alive())
    seen["aborted"] = [log.name for log in logs.glob("worker-*.err") if "SIGABRT" in log.read_text(errors="replace")]
    return seen


def main() -> None:
    # Socket paths must be short. Ray's processes may still write for a moment after its shutdown.
    with tempfile.TemporaryDirectory(prefix="coldtune-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        ray.init(address="local", num_cpus=2, _temp_dir=scratch, logging_level="ERROR", log_to_driver=False)
        try:
            for line in sys.stdin:
                print(ANSWER + json.dumps(answer(line, Path(scratch, "session_latest", "logs"))), flush=True)
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
