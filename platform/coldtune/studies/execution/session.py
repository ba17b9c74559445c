"""A driver's session with a study: the storage, the driver's lease and the tracking server, all open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import optuna
from rich.console import Console

from coldtune import tracking
from coldtune.addresses import without_password
from coldtune.environment import expand_path
from coldtune.store.location import StoreLocation
from coldtune.store.store import Store
from coldtune.studies.drivers.election import DriverLease, driver_lease
from coldtune.studies.drivers.registry import registry_of
from coldtune.studies.execution.joined import set_up_by_others
from coldtune.studies.insight.settling import WatchedSearch
from coldtune.studies.preflight.checks import Checked
from coldtune.studies.progress.addresses import trials_page
from coldtune.studies.search.paired_test import judgements_of
from coldtune.studies.storage.backends import JOURNAL, load_started_study, open_storage, stored_study
from coldtune.studies.storage.record import StudyRecord, write_study
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.trials.retrying import retry_failed
from coldtune.studies.trials.setup import check_judge, check_spec, open_study

EXPERIMENT = "coldtune"
"""The MLflow experiment of all studies."""


@dataclass(frozen=True)
class Session:
    """A study that this process drives.

    Attributes:
        checked: The study, with the numbers of trials and replicates that its drivers run.
        ledger: The study's trials. Its lease says that this process is a driver of the study.
        target: The tracking server.
    """

    checked: Checked
    ledger: Ledger
    target: tracking.Target


def prepare_target(checked: Checked) -> tracking.Target:
    """Prepare the tracking server of a study. ValueError if it cannot be used."""
    options = checked.options
    return tracking.prepare(
        options.tracking_uri or tracking.default_uri(options.home), EXPERIMENT, options.home / "artifacts"
    )


def is_new(checked: Checked) -> bool:
    """Return True if no driver has set the study up. ValueError if its storage cannot be reached."""
    folder = checked.folder
    return not folder.exists and stored_study(folder.path, folder.name, checked.options.storage) is None


@contextmanager
def open_session(checked: Checked, target: tracking.Target, console: Console) -> Iterator[Session]:
    """Become a driver of the study until the block ends. The first driver also sets the study up.

    Args:
        target: The study's tracking server, from `prepare_target`.

    Raises:
        ValueError: If another driver runs the study and `--join` is not given, or if the storage has another study of
            this name, or trials that were judged under another protocol.
    """
    with ExitStack() as stack:
        with checked.folder.starting():
            session = _open(checked, target, stack, console)
        yield session


def _open(checked: Checked, target: tracking.Target, stack: ExitStack, console: Console) -> Session:
    spec, folder, options = checked.spec, checked.folder, checked.options
    here = options.storage and without_password(options.storage)
    started = folder.exists and folder.start()["storage"] == here
    if started and options.storage is None and not (folder.path / JOURNAL).exists():
        load_started_study(folder.path, folder.name, None)  # raises, before an empty journal is made
    storage = open_storage(folder.path, options.storage)
    if started:
        load_started_study(folder.path, folder.name, options.storage, storage)
    study = open_study(folder.name, spec, storage)
    check_spec(study, spec)

    def say(text: str) -> None:
        console.print(text, style="dim", highlight=False, soft_wrap=True)

    registry = registry_of(study, folder.path, options.storage)
    lease = stack.enter_context(driver_lease(registry, study.study_name, options.join, say))
    of_others = _numbers_of_others(checked, study, lease)
    trials, replicates = of_others or (checked.trials, checked.replicates)
    stops = options.stop_when_settled if of_others is None else StudyRecord.of(study).stop_when_settled
    ledger = open_ledger(
        folder.name, spec, checked.space, storage, judgements_of(Store(checked.store)),
        lease=lease, imports=checked.imports, fingerprint=checked.dataset.fingerprint, store=checked.store,
        replicates=replicates,
    )  # fmt: skip
    if stops:
        ledger.stop_when(WatchedSearch(ledger, folder.home).why_settled)
    if lease.leads():
        _retry_failed(ledger, options.retry_failed, say)
    elif options.retry_failed:
        raise ValueError("--retry-failed: joins a study that another driver leads; retry once that driver has ended")
    checked = replace(checked, trials=min(trials, ledger.max_trials() or trials), replicates=replicates)
    if not ledger.is_done(checked.trials):
        check_judge(folder.name, ledger.trials(), checked.protocol)
    _save_start(checked, ledger, target, lease.leads())
    return Session(checked, ledger, target)


def _retry_failed(ledger: Ledger, whatever_failed: bool, say: Callable[[str], None]) -> None:
    """Ask failed trials again, and tell the user which."""
    again = retry_failed(ledger, whatever_failed)
    if again:
        by_number = ledger.retried()
        names = [(ledger.label(trial.number), ledger.label(by_number[trial.number])) for trial in again[:10]]
        listed = ", ".join(name if name == new else f"{name} as trial {new}" for name, new in names)
        more = f" and {len(again) - 10} more" if len(again) > 10 else ""
        why = "" if whatever_failed else ", because a fault of the machine made them fail"
        say(f"asks failed trials again{why}: {listed}{more}")
    elif whatever_failed:
        say("--retry-failed: no trial has failed, so none is asked again")


def _numbers_of_others(checked: Checked, study: optuna.Study, lease: DriverLease) -> tuple[int, int] | None:
    """Return for how many trials and replicates the leading driver runs the study, or None if this driver leads.

    Raises:
        ValueError: If `--trials` or `--replicates` is another number.
    """
    if not set_up_by_others(study, lease):
        return None
    record, options = StudyRecord.of(study), checked.options
    trials, replicates = record.trials or checked.trials, record.replicates[-1] if record.replicates else 1
    if options.trials not in (None, trials):
        raise ValueError(f"--trials {options.trials}: joins a study of {trials} trials; extend it once it has them")
    if options.replicates not in (None, replicates):
        raise ValueError(
            f"--replicates {options.replicates}: joins a study of {replicates} trainings of each setting; extend it "
            "once it has them"
        )
    if options.stop_when_settled and not record.stop_when_settled:
        raise ValueError("--stop-when-settled: joins a study whose leading driver does not stop so. Leave it out.")
    return trials, replicates


def _planned(ledger: Ledger) -> list[int]:
    """Return the numbers of replicates that the study was given so far, the present number last."""
    before = list(StudyRecord.of(ledger.study).replicates)
    if not before and ledger.ended():
        before = [1]  # the study began with a version that knew no replicates
    return before if before and before[-1] == ledger.replicates else [*before, ledger.replicates]


def _place_of_data(checked: Checked) -> str | None:
    """Return the absolute path of the folder with the dataset's files, so that a resume finds it from any folder."""
    path = checked.options.data_dir or checked.spec.base["data"].get("path")
    place = None if path is None else expand_path(path, "data.path")
    return str(place) if place is not None and place.exists() else None


def _save_start(checked: Checked, ledger: Ledger, target: tracking.Target, leads: bool) -> None:
    """Write start.json, from which the study is resumed. A driver that joins writes it only into a new home."""
    options, folder = checked.options, checked.folder
    if leads:
        write_study(ledger.study, replicates=_planned(ledger), trials=checked.trials)
        if options.stop_when_settled != StudyRecord.of(ledger.study).stop_when_settled:
            write_study(ledger.study, stop_when_settled=options.stop_when_settled)
    elif folder.exists:
        return
    in_home = checked.store == StoreLocation.in_home(options.home, None)
    start = {
        "trials": max(checked.trials, ledger.finished()),
        "replicates": checked.replicates,
        "fingerprint": checked.dataset.fingerprint,
        "command": options.command,
        **options.to_start(),
        "data_dir": _place_of_data(checked),
        "store": None if in_home else checked.store.where,
        "experiment": {
            "id": target.experiment_id,
            "born": target.born,
            "view": trials_page(ledger).save(target),
        },
    }
    folder.save(checked.spec, start)
