"""The training loop over several workers: Ray Train (V2) around `coldtune.training.loop.train`.

One way for a script and for a Tune trial. The workers run in a placement group of their own, DDP over gloo (CPU) or
NCCL (GPU); each takes its share of every batch. Rank 0 sends its reports through a small actor to the process that
called `train_distributed` and waits for the answer, so `report` runs there, in the caller's thread, and an exception
that it raises (a pruned or stopped trial) ends the training at that very step, as it does in one process.
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

from coldtune.config import plain
from coldtune.training.loop import Checkpoints, DivergedError, Report, TrainingTask, TrainResult, train
from coldtune.training.world import PeerError, World

# Ray Train's own waits, unless the environment says otherwise: its controller looks at the workers every 2 s by
# default, which a short training pays several times, and runs are only listed in the dashboard when tracked.
_ENVIRONMENT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}
# A placement that does not come about is tried again this often, 60 s (RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S) each
# time, before the waiting begins anew; without a limit Ray Train tries for ever, and says nothing.
_CONTROLLER_FAILURES = 4
# How long a stopped training may take to put its workers away before the caller goes on without waiting.
_WIND_DOWN_S = 30.0
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
    max_failures: int = 2,
    look: Callable[[bool], None] | None = None,
) -> TrainResult:
    """`train` over `workers` processes on the cluster that this process is connected to.

    The same images at the same steps as in one process, and gradients that are the mean over the whole batch: losses
    agree within float tolerance (with dropout they do not: each worker draws its own). `workers` need not divide
    `training.batch_size`. A worker that dies takes its group with it; the group is started again from the last
    checkpoint, at most `max_failures` times.

    `checkpoints` (picklable), `task.dataset_path` and `storage_path` must be absolute and mean the same place on
    every node. `name` is the run's name in Ray's dashboard; Train's own files lie in `storage_path/name`, nothing is
    resumed from them. Starting takes about 10 s, so this pays for trainings of minutes and more. A trial that
    calls this must leave `workers * cpus_per_worker` CPUs free: the workers are not part of its own resources.

    Where others hold the CPUs, it waits for all of its own at once, so that no two wait for each other. look: called
    about once a second, in the caller's thread, with whether it waits; it may raise, as `report` may. With it, a
    cluster that is too small is waited for, too; without it, it is an error.

    Raises what `report` raises; DivergedError as `train` does (without retries); ValueError where the cluster
    is too small or the task is wrong; RuntimeError, with the worker's error, where the retries are used up.
    """
    each = {"CPU": cpus_per_worker} | ({"GPU": gpus_per_worker} if gpus_per_worker else {})
    _check(task, workers, each if look is None else {})
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    look = look or (lambda _: None)
    while True:
        _wait_for_room([each] * workers, look)
        try:
            return _start(task, checkpoints, workers, name, storage_path, each, max_failures).follow(report, look)
        except _NoRoomError:
            continue  # another took the room between the wait and the start


def _start(
    task: TrainingTask,
    checkpoints: Checkpoints,
    workers: int,
    name: str,
    storage_path: str | Path,
    each: Mapping[str, float],
    max_failures: int,
) -> _Run:
    mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
    trainer = ray.train.torch.TorchTrainer(
        partial(_worker, task, checkpoints, mailbox),
        train_loop_config={"dataset_path": task.dataset_path, **_shown(task)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu="GPU" in each,
            resources_per_worker=dict(each),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage_path),
            failure_config=ray.train.FailureConfig(
                max_failures=max_failures, controller_failure_limit=_CONTROLLER_FAILURES
            ),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    return _Run(trainer, mailbox)


class _NoRoomError(Exception):
    """The workers found no place within Ray Train's own patience."""


def _wait_for_room(bundles: list[dict[str, float]], look: Callable[[bool], None]) -> None:
    """Return when all of `bundles` are free at once, held by nobody: Ray Train then takes them for itself.

    Ray grants a placement group as a whole or not at all, so what waits here holds nothing that others wait for.
    """
    group = ray.util.placement_group(bundles)
    try:
        while not group.wait(_POLL_S):
            look(True)
    finally:
        ray.util.remove_placement_group(group)
    look(False)


def _check(task: TrainingTask, workers: int, each: Mapping[str, float]) -> None:
    if not 1 <= workers <= task.training.batch_size:
        raise ValueError(
            f"workers = {workers}: allowed is 1 to training.batch_size = {task.training.batch_size}, "
            "at least one image of every batch for each"
        )
    if not Path(task.dataset_path).is_absolute():
        raise ValueError(f"dataset_path = {task.dataset_path!r}: must be absolute, workers have another folder")
    has = ray.cluster_resources()
    for resource, of_each in each.items():
        if workers * of_each > has.get(resource, 0):
            raise ValueError(
                f"workers = {workers}: {of_each:g} {resource} each, but the cluster has {has.get(resource, 0):g} in all"
            )


def _shown(task: TrainingTask) -> dict[str, Any]:
    """The task as the dashboard lists it."""
    return {
        "data": plain(task.data),
        "degradation": plain(task.degradation),
        "restorer": plain(task.restorer),
        "training": plain(task.training),
    }


@dataclass(frozen=True)
class _Message:
    """From rank 0 to the caller: one of a report, a divergence, the end."""

    report: tuple[int, dict[str, float]] | None = None
    diverged: tuple[int, str] | None = None
    result: TrainResult | None = None


class _Mailbox:
    """Actor between rank 0 and the caller: every message waits for the caller's answer."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[_Message, asyncio.Future[None]] | None] = asyncio.Queue()
        self.open: asyncio.Future[None] | None = None
        self.stopped = False

    async def post(self, message: _Message) -> bool:
        """Deliver `message`; True: go on, False: stop."""
        if not self.stopped:
            answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.messages.put_nowait((message, answered))
            await answered
        return not self.stopped

    async def next(self, timeout: float) -> _Message | None:
        """The next message, its predecessor being answered by this call; None where none comes within `timeout`."""
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
        """Let a waiting `next` return."""
        self.messages.put_nowait(None)

    async def stop(self) -> None:
        """Answer this and all later messages with "stop"."""
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
    """Raised in rank 0's `report` where the caller ended the training."""


def _worker(task: TrainingTask, checkpoints: Checkpoints, mailbox: Any, _: Mapping[str, Any]) -> None:
    """Train as one Ray Train worker."""
    atexit.register(_exit_at_once)
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
        # It would diverge again: not a failure to Ray Train, which would start the group anew, but the caller's.
        if world.rank == 0:
            post(diverged=(error.step, error.what))
        return
    if world.rank == 0:
        post(result=result)


def _exit_at_once() -> None:
    """End this process without shutting down the interpreter.

    Ray ends a worker by SIGTERM if the driver died or the node is drained, and Python then shuts down while the
    training's thread and gloo's threads still run. Before Python 3.14, a thread that waits for the GIL at that time is
    unwound through C++ code that allows no unwinding. The process then ends by SIGABRT, with a stack trace in its log
    and, if the system allows core files, a core file of its whole memory.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


class _Run:
    """A Ray Train run in a thread, followed from the caller's."""

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

    def follow(self, report: Report, look: Callable[[bool], None]) -> TrainResult:
        self.thread.start()
        try:
            while self.thread.is_alive():
                message: _Message | None = ray.get(self.mailbox.next.remote(_POLL_S))
                if message:
                    self._take(message, report)
                look(False)
        except BaseException:
            self.mailbox.stop.remote()
            self.thread.join(_WIND_DOWN_S)
            if self.thread.is_alive():
                warnings.warn("the training's workers are still stopping; they do at their next report", stacklevel=3)
            raise
        if self.error is not None:
            if _no_room(self.error):
                raise _NoRoomError from self.error
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


def _no_room(error: BaseException) -> bool:
    # By its name: Ray Train has this one for itself.
    return type(getattr(error, "controller_failure", None)).__name__ == "WorkerGroupStartupTimeoutError"


def _readable(error: BaseException) -> RuntimeError:
    """Ray Train's error in one line; the whole of it stays its cause."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for rank, failure in sorted(failures.items()):
        return RuntimeError(f"training failed on worker {rank}: {failure}")
    return RuntimeError(f"training failed: {error}")
