"""Running a study from its spec to its table: check everything, then spend."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import optuna
import torch
from rich.console import Console
from rich.text import Text

from coldtune import tracking
from coldtune.store.location import StoreLocation
from coldtune.store.store import Store
from coldtune.studies.drivers.election import DriverLease, driver_lease
from coldtune.studies.drivers.registry import registry_of
from coldtune.studies.execution.cluster import NotStartedError
from coldtune.studies.execution.joined import set_up_by_others
from coldtune.studies.execution.ray_watchdog import INTERRUPTED
from coldtune.studies.execution.stopping import STOPPED
from coldtune.studies.execution.study_run import run_trials
from coldtune.studies.preflight.checks import Checked, check_study
from coldtune.studies.preflight.options import RunOptions
from coldtune.studies.progress import closing, opening
from coldtune.studies.progress.events import StoppedError
from coldtune.studies.progress.reconcile import wrapped_up
from coldtune.studies.search.paired_test import judgements_of
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.errors import StorageGoneError
from coldtune.studies.storage.record import StudyRecord, write_study
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.trials.setup import check_judge, check_spec, open_study

EXPERIMENT = "coldtune"


def run_study(spec: StudySpec, options: RunOptions, console: Console) -> int:
    """Run or resume the study until it has its trials; gives the process's exit code.

    0: it has them; 130: interrupted, or Ray died, or did not come up; 3: it stopped by its own limits. The latter two
    say how to resume.

    Raises ValueError, before Ray starts or anything is spent, for whatever in the spec, the options or the machine
    would make it fail.
    """
    torch.set_num_threads(1)  # the driver computes nothing large, and its trials want the cores
    checked = check_study(spec, options)
    with ExitStack() as stack:
        with checked.folder.starting():
            checked, ledger, target = _set_up(checked, options, stack, console)
        opening.opening(console, checked, ledger, options, target.uri)
        close = partial(closing.closing, console, checked.folder, ledger, checked.trials, options.command, target)
        try:
            finished = _over(checked, ledger, target) or run_trials(checked, ledger, options, target, console, close)
        except StorageGoneError as gone:
            closing.gone(console, gone, options.command)
            return INTERRUPTED
        except NotStartedError as why:
            console.print(Text(f"\n{why}", style="red"), soft_wrap=True)
            close(False)
            return INTERRUPTED
        except StoppedError as stopped:
            console.print(Text(f"\nstopped: {stopped}", style="red"), soft_wrap=True)
            close(False)
            return STOPPED
        close(finished)
        return 0 if finished else INTERRUPTED


def _set_up(
    checked: Checked, options: RunOptions, stack: ExitStack, console: Console
) -> tuple[Checked, Ledger, tracking.Target]:
    """Open what the study writes to, and join its drivers until the stack closes; the study is as they run it."""
    spec, folder = checked.spec, checked.folder
    storage = open_storage(folder.path, options.storage)
    uri = options.tracking_uri or tracking.default_uri(options.home)
    target = tracking.prepare(uri, EXPERIMENT, options.home / "artifacts")
    study = open_study(folder.name, spec, storage)
    check_spec(study, spec)
    registry = registry_of(study, folder.path, options.storage)
    lease = stack.enter_context(driver_lease(registry, study.study_name, options.join, partial(_dim, console)))
    checked = _joining(checked, study, lease, options)
    ledger = open_ledger(
        folder.name, spec, checked.space, storage, judgements_of(Store(checked.store)),
        lease=lease, imports=checked.imports, fingerprint=checked.dataset.fingerprint, store=checked.store,
    )  # fmt: skip
    checked = replace(checked, trials=min(checked.trials, ledger.max_trials() or checked.trials))
    if ledger.finished() < checked.trials:
        check_judge(folder.name, ledger.trials(), checked.protocol)
    _write_start(checked, options, ledger)
    return checked, ledger, target


def _over(checked: Checked, ledger: Ledger, target: tracking.Target) -> bool:
    """Whether nothing is left to do, but for delivering what a driver left that died at its very end."""
    spool = checked.folder.spool
    over = ledger.finished() >= checked.trials and wrapped_up(spool)
    if over and tracking.pending(spool, target):
        tracking.drain(spool, target)
    return over


def _joining(checked: Checked, study: optuna.Study, lease: DriverLease, options: RunOptions) -> Checked:
    """A driver that joins runs the study as whoever leads does, for the same number of trials."""
    if not set_up_by_others(study, lease):
        return checked
    trials = StudyRecord.of(study).trials
    assert trials is not None, "whoever leads has set the study up"
    if options.trials not in (None, trials):
        raise ValueError(f"--trials {options.trials}: joins a study of {trials} trials; extend it once it has them")
    return replace(checked, trials=trials)


def _write_start(checked: Checked, options: RunOptions, ledger: Ledger) -> None:
    """Write down how the study is run, where this driver leads or the home does not know the study."""
    if checked.folder.exists and not ledger.lease.leads():
        return
    if ledger.lease.leads():
        write_study(ledger.study, trials=checked.trials)
    start = {
        "trials": max(checked.trials, ledger.finished()),
        "fingerprint": checked.dataset.fingerprint,
        "command": options.command,
        **options.to_start(),
        "store": None if checked.store == StoreLocation.in_home(options.home, None) else checked.store.where,
    }
    checked.folder.save(checked.spec, start)


def _dim(console: Console, text: str) -> None:
    console.print(text, style="dim", highlight=False, soft_wrap=True)
