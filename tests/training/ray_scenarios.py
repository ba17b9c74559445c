"""Trainings on a Ray of their own: `python ray_scenarios.py SCENARIO FOLDER TASK_PICKLE` prints JSON on its last line.

A process of its own, because Ray reads its environment when it is imported, and so that nothing of it stays in pytest.
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
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "300"  # for a stopped trial to come to its end; Tune's own is 2

import ray
from training_helpers import InterruptedTrainingError, Reports

from coldtune.training import DivergedError, FolderCheckpoints, Report, TrainingTask
from coldtune.training.distributed import train_distributed


def run(task: TrainingTask, folder: Path, report: Report, name: str) -> Any:
    return train_distributed(
        task, FolderCheckpoints(folder / name), report, workers=2, name=name, storage_path=folder / "train"
    )


def plain(task: TrainingTask, folder: Path) -> dict[str, Any]:
    """A training as a script runs it; then what the dashboard lists and which actors are left."""
    where: set[tuple[int, str]] = set()
    reports = Reports()

    def report(step: int, metrics: Any) -> None:
        where.add((os.getpid(), threading.current_thread().name))
        reports(step, metrics)

    result = run(task, folder, report, "plain")
    url = f"http://{ray.get_runtime_context().worker.node.webui_url}/api/train/v2/runs/v1"
    listed: list[dict[str, Any]] = []

    def ended() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60) as answer:
            listed[:] = json.load(answer)["train_runs"]
        return bool(listed) and all(run["status"] == "FINISHED" for run in listed)

    wait_for(ended)
    wait_for(lambda: not workers_alive())
    return {
        "rows": reports.rows,
        "step": result.step,
        "here": where == {(os.getpid(), threading.current_thread().name)},
        "runs": [(run["name"], run["status"]) for run in listed],
        "workers_left": len(workers_alive()),
    }


def failing(task: TrainingTask, folder: Path) -> dict[str, Any]:
    """A worker killed after its first checkpoint; a divergence; a report that raises; a cluster that is too small."""
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
    wait_for(lambda: not workers_alive())
    seen["workers_left"] = len(workers_alive())
    return seen


def nested(task: TrainingTask, folder: Path) -> dict[str, Any]:
    """Two trials of Ray Tune in one reused actor, the first stopped by Tune, on exactly the CPUs of one training."""
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
        "reference_loss": [r.metrics["loss"] for r in results if r.metrics and r.metrics["step"] == 4],
    }


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds, or has not for long: whoever looks then sees that it does not."""
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)


def workers_alive() -> list[int]:
    from ray.util.state import list_actors

    address = ray.get_runtime_context().gcs_address  # there may be other clusters on this machine
    filters = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
    return [actor.pid for actor in list_actors(address=address, filters=filters, detail=True, timeout=120)]


def main() -> None:
    scenario, folder, pickled = sys.argv[1:]
    task: TrainingTask = pickle.loads(Path(pickled).read_bytes())
    # Socket paths must be short; Ray's processes may write for a moment after its end.
    with tempfile.TemporaryDirectory(prefix="coldtune-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        ray.init(address="local", num_cpus=2, _temp_dir=scratch, logging_level="ERROR", log_to_driver=False)
        try:
            seen = {"plain": plain, "failing": failing, "nested": nested}[scenario](task, Path(folder))
            logs = Path(scratch, "session_latest", "logs").glob("worker-*.err")
            seen["aborted"] = [log.name for log in logs if "SIGABRT" in log.read_text(errors="replace")]
        finally:
            ray.shutdown()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
