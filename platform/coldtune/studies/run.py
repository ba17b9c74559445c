"""A run of a study, from its spec to its table."""

from __future__ import annotations

import torch
from rich.console import Console

from coldtune.studies.execution.cluster import NotStartedError
from coldtune.studies.execution.ray_watchdog import INTERRUPTED
from coldtune.studies.execution.session import open_session
from coldtune.studies.execution.stopping import STOPPED
from coldtune.studies.execution.study_run import is_complete, run_trials
from coldtune.studies.preflight.checks import check_study
from coldtune.studies.preflight.options import RunOptions
from coldtune.studies.progress.closing import print_closing, print_failure, print_storage_lost
from coldtune.studies.progress.events import StoppedError
from coldtune.studies.progress.opening import print_opening
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.errors import StorageGoneError


def run_study(spec: StudySpec, options: RunOptions, console: Console) -> int:
    """Run or resume a study until it has its trials.

    Returns:
        The exit code of the process. 0: the study has its trials. 130: the run was interrupted, or Ray died or did not
        start. 3: the study stopped by its own limits. After 130 and 3, the output says how to resume.

    Raises:
        ValueError: If anything in the spec, the options or the machine would make the study fail. It is raised before
            Ray starts and before anything is spent.
    """
    torch.set_num_threads(1)  # the driver computes nothing large, and its trials need the cores
    checked = check_study(spec, options)
    with open_session(checked, console) as session:
        checked, ledger, target = session.checked, session.ledger, session.target
        print_opening(console, checked, ledger, target.uri)
        try:
            finished = is_complete(session) or run_trials(session, console)
            code = 0 if finished else INTERRUPTED
        except StorageGoneError as error:
            print_storage_lost(console, error, checked)
            return INTERRUPTED
        except NotStartedError as error:
            print_failure(console, str(error))
            code = INTERRUPTED
        except StoppedError as error:
            print_failure(console, f"stopped: {error}")
            code = STOPPED
        print_closing(console, checked, ledger, target, finished=code == 0)
        return code
