"""Faults of the machine, told apart from faults of a setting.

A trial can end with an error for two kinds of reasons. A fault of the *setting* comes back whenever the same settings
run on the same code: the loss diverges, a metric is not finite, the network does not fit into the memory. The trial
has failed, and the search learns that. A fault of the *machine* says nothing about the settings: the disk is full, the
store was removed, Ray killed the process because the machine ran out of memory. Such a trial stays interrupted, the
study stops in order, and a resume takes the trial up.

| error | fault of |
|:--|:--|
| any OSError: no space, no inodes, quota, permission, read-only, I/O error, too many open files, a folder or a file that is gone or is no folder, a server that does not answer, object storage | machine |
| the same in the words of a library without OSErrors: safetensors, SQLite, Arrow, torch | machine |
| Ray's errors: a process that was killed for its memory, a lost node, a full object store | machine |
| no more threads or processes, a GPU that is broken or was taken away | machine |
| memory that runs out inside the trial itself (`MemoryError`, `MemoryExhaustedError`, torch's allocators) | setting |
| everything else: `ValueError`, `DivergedError`, `TypeError`, ... | setting |

An error counts as the machine's, too, if it was raised from such an error, as Ray Train raises the errors of its
workers. A process that dies without a word (a crash in a library, or SIGKILL) tells no cause. Ray Tune starts it again
up to `--retries` times, and then the trial counts as failed, so that a setting that crashes cannot stop a search.

Every function here is cheap to import: the classes of Ray, SQLAlchemy and torch are recognised by their names.
"""  # noqa: E501 - rows of a table

from __future__ import annotations

import builtins
import errno
import os
import re
from collections.abc import Iterator, Mapping

_MAX_TEXT = 300  # characters of a reason: some libraries put whole logs into their errors

# Errors whose words alone tell the machine's fault, whoever raised them. Others, such as "Permission denied", may also
# be quoted in a message about a setting, and count only as an OSError or in a library's own notation of one.
_TELLING = tuple(
    os.strerror(number)
    for number in (
        errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOTCONN
    )
)  # fmt: skip
_PHRASES = (
    *_TELLING,
    "disk I/O error",  # SQLite, as are the next four
    "database or disk is full",
    "unable to open database file",
    "attempt to write a readonly database",
    "database is locked",
    "can't start new thread",
    "unable to open shared memory object",  # torch, as are the next two
    "unable to write to file",
    "unable to mmap",
    "uncorrectable ECC",  # CUDA, as are the others
    "devices are busy or unavailable",
    "device(s) is/are busy or unavailable",
    "no CUDA-capable device is detected",
    "GPU is lost",
    "fallen off the bus",
)
# How a library that is no Python quotes an error of the system: Rust's `(os error 28)` and `Os { code: 28, ...`, and
# the `[Errno 28]` of an OSError in a text.
_QUOTED_OS_ERROR = re.compile(r"\(os error \d+\)|\bOs \{ code: \d+|\[Errno \d+\]")
# Ray tells these only in the text of an ActorDiedError, whose text for any crash names "the OOM killer" as possible.
_LOST_NODE = re.compile(r"\bnode (has |was )?(died|dead|terminated|preempted)", re.IGNORECASE)
_LOST_MEMORY = re.compile(r"low on memory|memory pressure", re.IGNORECASE)
_OS_ERRORS = frozenset(
    name for name in dir(builtins) if isinstance(kind := getattr(builtins, name), type) and issubclass(kind, OSError)
) | {"TransientError", "UnidentifiedImageError"}
_RAY_ERRORS = ("WorkerCrashedError", "NodeDiedError", "LocalRayletDiedError", "OutOfDiskError", "ObjectStoreFullError",
               "ObjectLostError", "RaySystemError", "RuntimeEnvSetupError")  # fmt: skip


class MachineFaultError(Exception):
    """Raised if a study ends before its last trial because of a fault of the machine. The text says which."""


def machine_fault(error: BaseException) -> str | None:
    """Return a fault of the machine in one line, if `error` is such a fault or was raised from one. Otherwise None."""
    for each in _causes(error):
        if isinstance(each, MachineFaultError):
            return str(each)
        if _is_machine_fault(each):
            return describe_error(each)
    return None


def is_machine_fault(reason: str) -> bool:
    """Return True if the stored reason of a failed trial tells a fault of the machine.

    Args:
        reason: As a trial's record keeps it: the name of the error, a colon, and its text.
    """
    name, colon, text = reason.partition(": ")
    if colon and (name in _OS_ERRORS or name in _RAY_ERRORS):
        return True
    return _tells_machine_fault(text if colon else reason)


def describe_error(error: BaseException) -> str:
    """Return an error in one line: the first telling line of its text, preceded by its class if that says more."""
    name = type(error).__name__
    if _is_a(error, "OutOfMemoryError") or (_is_a(error, "RayActorError") and _LOST_MEMORY.search(str(error))):
        return "Ray ended its process because the machine ran out of memory"
    if _is_a(error, "RayActorError") and _LOST_NODE.search(str(error)):
        return "its node was lost"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if _tells_machine_fault(line)), lines[0] if lines else "no reason known")
    text = telling[:_MAX_TEXT]
    return text if text.startswith(("[Errno", f"{name}: ")) else f"{name}: {text}"


def _lost_by_machine(error: BaseException) -> bool:
    return bool(_LOST_NODE.search(str(error)) or _LOST_MEMORY.search(str(error)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors from which it was raised, also in another process."""
    seen: set[int] = set()
    open_errors: list[BaseException] = [error]
    while open_errors:
        each = open_errors.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        failures = getattr(each, "worker_failures", None)  # Ray Train's, by rank
        others = [each.__cause__, getattr(each, "cause", None), getattr(each, "orig", None)]  # Ray's, SQLAlchemy's
        others += failures.values() if isinstance(failures, Mapping) else []
        open_errors += [other for other in others if isinstance(other, BaseException)]


def _is_machine_fault(error: BaseException) -> bool:
    if _is_a(error, "RayTaskError"):
        return False  # the error of the task decides, which is one of its causes
    if _is_a(error, "RayActorError"):
        return _lost_by_machine(error)  # otherwise its process crashed, and nobody knows why
    if isinstance(error, OSError) or _is_a(error, "RayError"):
        return True
    return _tells_machine_fault(str(error))


def _tells_machine_fault(text: str) -> bool:
    return bool(_QUOTED_OS_ERROR.search(text)) or any(phrase in text for phrase in _PHRASES)


def _is_a(error: BaseException, name: str) -> bool:
    """Return True if an error is an instance of the class `name` of `ray.exceptions`, without importing Ray."""
    return any(kind.__name__ == name and kind.__module__ == "ray.exceptions" for kind in type(error).__mro__)
