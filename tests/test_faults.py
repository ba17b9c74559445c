"""Faults of the machine against faults of a setting: real errors of the system and of libraries, raised here."""

from __future__ import annotations

import builtins
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ray import exceptions as ray_errors
from safetensors import SafetensorError
from safetensors.torch import save_file
from sqlalchemy import create_engine, text

from coldtune.faults import (
    MachineFaultError,
    describe_error,
    is_machine_fault,
    machine_fault,
)
from coldtune.memory import MemoryExhaustedError
from coldtune.store.bucket import TransientError
from coldtune.training.loop import DivergedError

OS_ERRORS = [
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE,
    errno.ENOTDIR, errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE, errno.ENOMEM,
    errno.EAGAIN, errno.EFBIG, errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE, errno.ENOLCK,
]  # fmt: skip


def raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("no error was raised")


def chained(error: BaseException) -> BaseException:
    def raise_from() -> None:
        raise RuntimeError("the training failed") from error

    return raised(raise_from)


def of_task(cause: Exception) -> Exception:
    """Return the error that `ray.get` raises if a task has raised `cause`."""
    return ray_errors.RayTaskError("measure_on_test", "Traceback ...", cause).as_instanceof_cause()


def save_into_missing_folder(folder: Path) -> None:
    save_file({"x": torch.zeros(2)}, folder / "missing" / "x.safetensors")


def read_broken_database(folder: Path) -> None:
    create_engine(f"sqlite:///{folder}/missing/x.db").connect().execute(text("select 1"))


@pytest.mark.parametrize("number", OS_ERRORS, ids=lambda number: errno.errorcode[number])
def test_machine_fault_every_error_of_the_system_is_one(number: int) -> None:
    error = OSError(number, os.strerror(number), "/home/x/store")
    fault = machine_fault(error)
    assert fault is not None
    assert os.strerror(number) in fault
    assert "/home/x/store" in fault
    assert is_machine_fault(f"{type(error).__name__}: {error}"), "as an older version stored it"


@pytest.mark.parametrize(
    "error",
    [
        TransientError("AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7"),
        sqlite3.OperationalError("disk I/O error"),
        sqlite3.OperationalError("database or disk is full"),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0: No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        ray_errors.OutOfMemoryError("Task was killed due to the node running low on memory."),
        ray_errors.WorkerCrashedError(),
        ray_errors.NodeDiedError("the node died"),
        ray_errors.OutOfDiskError("Local disk is full"),
        ray_errors.ObjectStoreFullError("full"),
        of_task(OSError(errno.ENOSPC, "No space left on device")),
        chained(of_task(PermissionError(errno.EACCES, "Permission denied", "/x"))),
        MachineFaultError("trial 3: [Errno 28] No space left on device"),
    ],
    ids=lambda error: f"{type(error).__name__}-{str(error)[:20]}",
)
def test_machine_fault_in_the_words_of_a_library_is_one_line(error: BaseException) -> None:
    fault = machine_fault(error)
    assert fault is not None
    assert "\n" not in fault
    assert machine_fault(chained(error)) is not None


def test_machine_fault_of_safetensors_and_sqlite_is_told_from_real_errors(tmp_path: Path) -> None:
    missing = raised(lambda: save_into_missing_folder(tmp_path))
    assert not isinstance(missing, OSError), "otherwise this test is not needed"
    assert "No such file or directory" in (machine_fault(missing) or "")
    assert is_machine_fault(f"{type(missing).__name__}: {missing}")
    assert "unable to open database file" in (machine_fault(raised(lambda: read_broken_database(tmp_path))) or "")


def test_machine_fault_on_a_worker_of_ray_train_is_one() -> None:
    class GroupError(RuntimeError):
        worker_failures = {1: OSError(errno.EROFS, "Read-only file system")}  # noqa: RUF012 - as Ray Train has it

    assert "Read-only" in (machine_fault(chained(GroupError("training failed on worker 1"))) or "")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("restorer.size = 'micro': needs image sides divisible by 4, not 13x13"),
        DivergedError(40, "the loss is nan"),
        MemoryExhaustedError("training: out of memory, even with one image at a time"),
        MemoryError("Unable to allocate 233. TiB"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"),
        RuntimeError("CUDA error: device-side assert triggered"),
        KeyError("kind"),
        TypeError("unsupported operand"),
        ZeroDivisionError("division by zero"),
        AssertionError("the training ended at step 3 of 4"),
        of_task(ValueError("sampler.num_steps = 3")),
        ray_errors.ActorDiedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_machine_fault_of_a_setting_is_none(error: BaseException) -> None:
    assert machine_fault(error) is None
    assert not is_machine_fault(f"{type(error).__name__}: {str(error).splitlines()[0]}")


@pytest.mark.parametrize(
    "reason", ["", "its process died 3 times", "ran longer than 30m (--trial-timeout)", "fid is nan"]
)
def test_is_machine_fault_of_the_drivers_own_reasons_is_false(reason: str) -> None:
    assert not is_machine_fault(reason)


def test_machine_fault_of_every_builtin_oserror_is_told_from_the_stored_name() -> None:
    kinds = [kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, OSError)]
    assert len(kinds) > 10
    assert all(is_machine_fault(f"{kind.__name__}: anything") for kind in kinds)


def test_machine_fault_of_a_lost_process_tells_memory_and_node_and_no_crash() -> None:
    memory = machine_fault(ray_errors.OutOfMemoryError("Task was killed ...\nlong\ntext"))
    assert memory == "Ray ended its process because the machine ran out of memory"
    node = ray_errors.RayActorError(error_msg="The actor is dead because its node has died. Node Id: 12ab")
    assert machine_fault(node) == "its node was lost"
    crash = (
        "worker process has died. Some common causes include: (1) the process was killed by the OOM killer due to high"
    )
    assert machine_fault(ray_errors.RayActorError(error_msg=f"{crash} memory usage, (2) ray stop")) is None
    assert machine_fault(ray_errors.ActorDiedError()) is None
    assert "No space" in (machine_fault(of_task(OSError(errno.ENOSPC, "No space left on device"))) or "")


def test_describe_error_long_text_is_one_line_with_the_telling_part() -> None:
    error = RuntimeError("first line\n" + "x" * 400 + "\n  [Errno 28] No space left on device: '/y'")
    assert describe_error(error) == "[Errno 28] No space left on device: '/y'"
    assert describe_error(RuntimeError("")) == "RuntimeError: no reason known"
