"""A run of a study, from its spec to its table."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import replace

import torch
from rich.console import Console

from coldtune.faults import describe_error, machine_fault
from coldtune.studies.designs.confirm import build_confirmation, describe_earlier
from coldtune.studies.execution.cluster import Cluster, NotStartedError
from coldtune.studies.execution.ray_watchdog import INTERRUPTED
from coldtune.studies.execution.session import Session, is_new, open_session, prepare_target
from coldtune.studies.execution.stopping import STOPPED
from coldtune.studies.execution.study_run import is_complete, run_trials
from coldtune.studies.preflight.checks import Checked, check_places, check_study
from coldtune.studies.preflight.options import RunOptions
from coldtune.studies.progress.closing import (
    ended_in_vain,
    print_closing,
    print_failure,
    print_machine_fault,
    print_resume,
    print_storage_lost,
)
from coldtune.studies.progress.events import StoppedError
from coldtune.studies.progress.opening import print_opening
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.errors import StorageGoneError


def run_study(spec: StudySpec, options: RunOptions, console: Console) -> int:
    """Run or resume a study until it has its trials, then confirm its best settings if the options say so.

    The confirmation is a study of its own. If several drivers run the search, the leading driver confirms.

    Returns:
        The exit code of the process. 0: the study has its trials. 130: the run was interrupted, or Ray died or did not
        start. 3: the study stopped by its own limits, by a fault of the machine such as a full disk, or none of its
        trials finished. After 130 and 3, the output says how to resume.

    Raises:
        ValueError: If anything in the spec, the options or the machine would make the study fail. It is raised before
            Ray starts and before anything is spent.
    """
    torch.set_num_threads(1)  # the driver computes nothing large, and its trials need the cores
    code, confirmation = _run_to_end(spec, options, console)
    if confirmation is None:
        return code
    again = _options_of_confirmation(confirmation, options)
    console.print()
    return _run_to_end(confirmation, again, console)[0]


def _options_of_confirmation(spec: StudySpec, options: RunOptions) -> RunOptions:
    """Return the options of the search for its confirmation."""
    started = StudyFolder(options.home, spec.name).exists
    return replace(
        options,
        name=None,
        trials=None,
        resume=False,
        confirm=0,
        stop_when_settled=False,
        replicates=options.confirm,
        retry_failed=options.retry_failed and started,
        begun=time.monotonic(),
    )


def _run_to_end(spec: StudySpec, options: RunOptions, console: Console) -> tuple[int, StudySpec | None]:
    """Run a study. Return the exit code, and the study that this process has to run afterwards."""
    checked = _check(spec, options)
    try:
        new = is_new(checked)  # reads the study's storage, before anything is made
        target = prepare_target(checked)
        with closing(Cluster(checked.folder.name, console)) as ray:
            if new:  # start Ray first, so that no study is left behind if Ray does not start
                try:
                    ray.open()
                except NotStartedError as error:
                    print_failure(console, f"{error} Nothing was written. Start the same command again.")
                    return INTERRUPTED, None
            with open_session(checked, target, console) as session:
                code = _run(session, ray, console)
                return code, None if code else _confirmation(session, console)
    except StorageGoneError as error:
        print_storage_lost(console, error, checked)
        return INTERRUPTED, None
    except Exception as error:
        fault = _machine_fault(error)
        if fault is None:
            raise
        with suppress(OSError):  # the output may go to the same disk
            print_machine_fault(console, checked, fault)
            print_resume(console, checked)
        return STOPPED, None


def _check(spec: StudySpec, options: RunOptions) -> Checked:
    try:
        check_places(spec, options, write=False)
        checked = check_study(spec, options)
        check_places(spec, options, write=True)
        return checked
    except OSError as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{options.home}: {describe_error(error)}; nothing was started") from error


def _run(session: Session, ray: Cluster, console: Console) -> int:
    """Run an open study and print how it ended. Return the exit code."""
    checked, ledger, target = session.checked, session.ledger, session.target
    print_opening(console, checked, ledger, target.uri)
    try:
        finished = is_complete(session) or run_trials(session, ray, console)
        code = 0 if finished else INTERRUPTED
    except StorageGoneError:
        raise
    except NotStartedError as error:
        print_failure(console, str(error))
        code = INTERRUPTED
    except StoppedError as error:
        print_failure(console, f"stopped: {error}")
        code = STOPPED
    except Exception as error:
        fault = _machine_fault(error)
        if fault is None:
            raise
        print_machine_fault(console, checked, fault)
        return _close_after_fault(session, console)
    print_closing(console, checked, ledger, target, finished=code == 0)
    return STOPPED if code == 0 and ended_in_vain(checked, ledger) else code


def _close_after_fault(session: Session, console: Console) -> int:
    """Print how a study ended that a fault of the machine stopped. Return the exit code.

    The results may be out of reach because of the same fault. It was told already, so it is not told again.
    """
    try:
        print_closing(console, session.checked, session.ledger, session.target, finished=False)
    except Exception as error:
        if _machine_fault(error) is None:
            raise
        with suppress(OSError):
            print_resume(console, session.checked)
    return STOPPED


def _confirmation(session: Session, console: Console) -> StudySpec | None:
    """Return the confirmation of a finished search. None if there is nothing to confirm, or another driver does it."""
    confirm, ledger = session.checked.options.confirm, session.ledger
    if not confirm:
        return None
    if not ledger.lease.leads():
        console.print("The leading driver confirms the best settings.")
        return None
    spec = build_confirmation(ledger, confirm)
    for sentence in () if spec is None else describe_earlier(session.checked.folder, spec):
        console.print(sentence, highlight=False, soft_wrap=True)
    return spec


def _machine_fault(error: Exception) -> str | None:
    """Return the fault of the machine behind an error in one line. A ValueError is for the user, whatever caused it."""
    return None if isinstance(error, ValueError) else machine_fault(error)
