"""The training loop over several workers: Ray Train (V2) around `coldtune.training.loop.train`.

A script and a Tune trial use it in the same way. The workers run in a placement group of their own, with DDP over gloo
(CPU) or NCCL (GPU). Each worker takes its share of every batch.

Rank 0 sends its reports through a small actor to the process that called `train_distributed`, and waits for the answer.
So `report` runs in the caller's process and thread. An exception that it raises (a pruned or stopped trial) ends the
training at that very step, as it does with a single process.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.util
from ray.train.torch.config import _TorchBackend

from coldtune.config import plain
from coldtune.labels import as_label
from coldtune.training.device import use_threads
from coldtune.training.loop import Checkpoints, DivergedError, Report, TrainingTask, TrainResult, train
from coldtune.training.rendezvous import join_group, serve_store
from coldtune.training.world import PeerError, World

# Settings of Ray Train, unless the environment sets them. By default its controller checks the workers every 2 s, and a
# short training waits for several checks. The dashboard lists a run only if its state is tracked.
_ENVIRONMENT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}
# Attempts to place the workers, 60 s each (RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S), before the wait for free resources
# begins anew. Without a limit, Ray Train repeats them endlessly, and silently.
_CONTROLLER_FAILURES = 4
# Longest wait for the workers of a stopped training to end, before the caller continues without them.
_SHUTDOWN_S = 30.0
_POLL_S = 1.0


def train_distributed(
    task: TrainingTask,
    checkpoints: Checkpoints,
    report: Report,
    *,
    workers: int,
    name: str,
    storage_path: str | Path,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    threads: int | None = None,
    max_failures: int = 2,
    check_in: Callable[[bool], None] | None = None,
) -> TrainResult:
    """Train over `workers` processes on the cluster that this process is connected to.

    The workers see the same images at the same steps as a single process, and average the gradients over the whole
    batch. So the losses agree with those of a single process within float tolerance. With dropout they do not, because
    each worker draws its own units.

    If a worker dies, its whole group ends. The group is started again from the last checkpoint. A start takes about
    10 s, so several workers pay off for trainings of minutes and more.

    If other work occupies the CPUs, the function waits until all its workers fit at the same time. So two trainings
    never wait for each other.

    Args:
        task: The training. `task.dataset_path` must be absolute and denote the same folder on every node.
        checkpoints: Where the training finds and leaves its checkpoints. It must be picklable, and its path must be
            absolute and denote the same folder on every node.
        report: Receives the metrics in the caller's thread, and may raise to end the training.
        workers: Processes, at most `training.batch_size`. They need not divide it.
        name: The run's name in Ray's dashboard.
        storage_path: Ray Train's own files lie in `storage_path/name`. Nothing is resumed from them. It must be
            absolute and denote the same folder on every node.
        cpus_per_worker: CPUs of each worker. A trial that calls this function must leave `workers * cpus_per_worker`
            CPUs free, because the workers are not part of its own resources.
        gpus_per_worker: GPUs of each worker.
        threads: The CPU threads of each worker that computes on the CPU. None leaves the number to Ray, which takes
            `cpus_per_worker`.
        max_failures: How often the group is started again after a failure.
        check_in: Called about once a second in the caller's thread, with True while the workers wait for free
            resources. It may raise to end the training, as `report` may. If it is given, the function also waits for a
            cluster that is too small to grow. Otherwise such a cluster is an error.

    Raises:
        DivergedError: If the loss or a gradient is not finite. Such a training is not started again.
        ValueError: If the cluster is too small or the task is wrong.
        RuntimeError: If the last permitted start failed too. The message contains the worker's error.
        Exception: Whatever `report` or `check_in` raises.
    """
    each = {"CPU": cpus_per_worker} | ({"GPU": gpus_per_worker} if gpus_per_worker else {})
    _check(task, workers, each if check_in is None else {})
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    check_in = check_in or (lambda _: None)
    while True:
        _wait_for_resources([each] * workers, check_in)
        try:
            run = _start(task, checkpoints, workers, name, storage_path, each, threads, max_failures)
            return run.follow(report, check_in)
        except _NoResourcesError:
            continue  # other work took the resources between the wait and the start


def _start(
    task: TrainingTask,
    checkpoints: Checkpoints,
    workers: int,
    name: str,
    storage_path: str | Path,
    each: Mapping[str, float],
    threads: int | None,
    max_failures: int,
) -> _Run:
    mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
    trainer = ray.train.torch.TorchTrainer(
        partial(_worker, task, checkpoints, mailbox, None if "GPU" in each else threads),
        train_loop_config={"dataset_path": task.dataset_path, **_as_listed(task)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu="GPU" in each,
            resources_per_worker=dict(each),
        ),
        run_config=ray.train.RunConfig(
            name=as_label(name),
            storage_path=str(storage_path),
            failure_config=ray.train.FailureConfig(
                max_failures=max_failures, controller_failure_limit=_CONTROLLER_FAILURES
            ),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
        torch_config=_GroupConfig(),
    )
    return _Run(trainer, mailbox)


class _GroupConfig(ray.train.torch.TorchConfig):  # type: ignore[misc]
    """Ray Train's settings of torch's process group, with a rendezvous at the node's own address only."""

    @property
    def backend_cls(self) -> type:
        """The class that sets the group up and takes it down."""
        return _GroupBackend


class _GroupBackend(_TorchBackend):  # type: ignore[misc]
    """Ray Train's backend for torch, which joins the process group in another way."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Join the workers to a process group. The first worker serves its rendezvous."""
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU") else "gloo"
        address, port = worker_group.execute_single(0, _serve_at_node)
        size = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, join_group, address, port, rank, size, backend, backend_config.timeout_s
                )
                for rank in range(size)
            ]
        )


def _serve_at_node() -> tuple[str, int]:
    return serve_store(ray.util.get_node_ip_address())


class _NoResourcesError(Exception):
    """Ray Train's error if it could not place the workers in any of its attempts."""


def _wait_for_resources(bundles: list[dict[str, float]], check_in: Callable[[bool], None]) -> None:
    """Return when all `bundles` are free at the same time, so that Ray Train can take them.

    Ray grants a placement group as a whole or not at all. So a training that waits occupies nothing that another one
    needs.
    """
    group = ray.util.placement_group(bundles)
    try:
        while not group.wait(_POLL_S):
            check_in(True)
    finally:
        ray.util.remove_placement_group(group)
    check_in(False)


def _check(task: TrainingTask, workers: int, each: Mapping[str, float]) -> None:
    if not 1 <= workers <= task.training.batch_size:
        raise ValueError(
            f"workers = {workers}: must be from 1 to training.batch_size = {task.training.batch_size}. "
            "Each worker needs at least one image of every batch."
        )
    if not Path(task.dataset_path).is_absolute():
        raise ValueError(f"dataset_path = {task.dataset_path!r}: must be absolute. Workers run in another folder.")
    has = ray.cluster_resources()
    for resource, of_each in each.items():
        if workers * of_each > has.get(resource, 0):
            raise ValueError(
                f"workers = {workers}: they need {of_each:g} {resource} each, "
                f"but the cluster has {has.get(resource, 0):g} in all"
            )


def _as_listed(task: TrainingTask) -> dict[str, Any]:
    """Return the task as the dashboard lists it."""
    return {
        "data": plain(task.data),
        "degradation": plain(task.degradation),
        "restorer": plain(task.restorer),
        "training": plain(task.training),
    }


@dataclass(frozen=True)
class _Message:
    """A message from rank 0 to the caller: either a report, a divergence or the result."""

    report: tuple[int, dict[str, float]] | None = None
    diverged: tuple[int, str] | None = None
    result: TrainResult | None = None


class _Mailbox:
    """The actor between rank 0 and the caller. Every message waits for the caller's answer."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[_Message, asyncio.Future[None]] | None] = asyncio.Queue()
        self.open: asyncio.Future[None] | None = None
        self.stopped = False

    async def post(self, message: _Message) -> bool:
        """Deliver `message`, and return False if the caller has ended the training."""
        if not self.stopped:
            answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.messages.put_nowait((message, answered))
            await answered
        return not self.stopped

    async def next(self, timeout: float) -> _Message | None:
        """Answer the previous message, and return the next message, or None if nothing arrives within `timeout`."""
        self._answer()
        try:
            item = await asyncio.wait_for(self.messages.get(), timeout)
        except TimeoutError:
            return None
        if item is None:
            return None
        message, self.open = item
        return message

    async def wake(self) -> None:
        """Make a waiting `next` return None."""
        self.messages.put_nowait(None)

    async def stop(self) -> None:
        """Answer this message and all later messages with "stop"."""
        self.stopped = True
        self._answer()
        while not self.messages.empty():
            item = self.messages.get_nowait()
            if item and not item[1].done():
                item[1].set_result(None)

    def _answer(self) -> None:
        if self.open and not self.open.done():
            self.open.set_result(None)
        self.open = None


class _Stopped(BaseException):
    """The end of a training on rank 0, because the caller ended it."""


def _worker(
    task: TrainingTask, checkpoints: Checkpoints, mailbox: Any, threads: int | None, _: Mapping[str, Any]
) -> None:
    """Train as one Ray Train worker."""
    atexit.register(_exit_at_once)
    if threads is not None:
        use_threads(threads)
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size())

    def post(**message: Any) -> bool:
        return bool(ray.get(mailbox.post.remote(_Message(**message))))

    def report(step: int, metrics: Mapping[str, float]) -> None:
        if not post(report=(step, dict(metrics))):
            raise _Stopped

    try:
        result = train(task, checkpoints, report, device=ray.train.torch.get_device(), world=world)
    except (_Stopped, PeerError):
        return
    except DivergedError as error:
        # Do not raise: Ray Train would start the group again, and the training would diverge again. Tell the caller.
        if world.rank == 0:
            post(diverged=(error.step, error.what))
        return
    if world.rank == 0:
        post(result=result)


def _exit_at_once() -> None:
    """End this process without shutting down the interpreter.

    Ray ends a worker by SIGTERM if the driver died or the node is drained. Python then shuts down while the training's
    thread and gloo's threads still run. Before Python 3.14, a thread that waits for the GIL at that time is unwound
    through C++ code that forbids unwinding. The process then ends by SIGABRT. It leaves a stack trace in its log, and a
    core file of its whole memory if the system allows core files.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


class _Run:
    """A Ray Train run in a thread of its own. The caller's thread follows it."""

    def __init__(self, trainer: Any, mailbox: Any):
        self.trainer, self.mailbox = trainer, mailbox
        self.result: TrainResult | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._fit, name="ray-train", daemon=True)

    def _fit(self) -> None:
        try:
            self.trainer.fit()
        except BaseException as error:
            self.error = error
        self.mailbox.wake.remote()

    def follow(self, report: Report, check_in: Callable[[bool], None]) -> TrainResult:
        self.thread.start()
        try:
            while self.thread.is_alive():
                message: _Message | None = ray.get(self.mailbox.next.remote(_POLL_S))
                if message:
                    self._take(message, report)
                check_in(False)
        except BaseException:
            self.mailbox.stop.remote()
            self.thread.join(_SHUTDOWN_S)
            if self.thread.is_alive():
                warnings.warn("the training's workers still run. They stop at their next report.", stacklevel=3)
            raise
        if self.error is not None:
            if _lacks_resources(self.error):
                raise _NoResourcesError from self.error
            raise _readable(self.error) from self.error
        assert self.result is not None, "the workers ended without a result"
        return self.result

    def _take(self, message: _Message, report: Report) -> None:
        if message.report:
            report(*message.report)
        elif message.diverged:
            raise DivergedError(*message.diverged)
        else:
            self.result = message.result


def _lacks_resources(error: BaseException) -> bool:
    # Compare the name: the class of this error is private to Ray Train.
    return type(getattr(error, "controller_failure", None)).__name__ == "WorkerGroupStartupTimeoutError"


def _readable(error: BaseException) -> RuntimeError:
    """Return Ray Train's error in a single line. The caller chains the whole error."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for rank, failure in sorted(failures.items()):
        return RuntimeError(f"training failed on worker {rank}: {failure}")
    return RuntimeError(f"training failed: {error}")
