"""`coldtune tracking`: deliver records that have not reached MLflow, and register the best restorer of a study."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from coldtune.addresses import redact
from coldtune.cli.common import Commands, add_home_flag, find_home, find_study
from coldtune.cli.entry import describe

if TYPE_CHECKING:
    from coldtune.studies.spec.folder import StudyFolder
    from coldtune.tracking import Drained


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("tracking", help="deliver records to MLflow, and register a study's best restorer")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    sync = add_home_flag(
        verbs.add_parser(
            "sync",
            help="deliver the records that an outage or a killed driver left in the spools",
            description="Deliver the records that an outage or a killed driver left in the spools, once and in order, "
            "and end the runs that a killed driver left open. The records of a running study are delivered too, but "
            "its runs stay open.",
        )
    )
    sync.add_argument("--tracking-uri", metavar="URI", help="MLflow's server or database (default: that of each study)")
    sync.set_defaults(call=_sync)
    register = add_home_flag(
        verbs.add_parser(
            "register",
            help="put the best restorer of a study into MLflow's model registry",
            description="Put the logged model of a study, the restorer of its best trial, into MLflow's model "
            "registry, as the next version of NAME. A model that is registered under this name already keeps its "
            "version.",
        )
    )
    register.add_argument("study", metavar="STUDY", help="a finished study of the home")
    register.add_argument("name", metavar="NAME", help="the name of the registered model")
    register.add_argument("--tracking-uri", metavar="URI", help="MLflow's server or database (default: the study's)")
    register.set_defaults(call=_register)


def _register(options: argparse.Namespace, console: Console) -> int:
    from coldtune import tracking
    from coldtune.studies.execution.session import EXPERIMENT

    folder = find_study(find_home(options), options.study)
    target = tracking.prepare(_uri(folder, options.tracking_uri), EXPERIMENT, folder.home / "artifacts")
    version = tracking.register_model(target, folder.name, folder.spool, options.name)
    console.print(f"version {version} of {options.name}; load it with", highlight=False, markup=False)
    command = f'mlflow.pyfunc.load_model("models:/{options.name}/{version}")'
    console.print(f"  MLFLOW_TRACKING_URI={shlex.quote(redact(target.uri))}  {command}", soft_wrap=True, markup=False)
    return 0


def _uri(folder: StudyFolder, given: str | None) -> str:
    """Return the tracking URI of a study, or that of `--tracking-uri`."""
    from coldtune import tracking

    return _complete(given) if given else folder.tracking_uri() or tracking.default_uri(folder.home)


def _sync(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.spec.folder import studies

    home = find_home(options)
    folders = studies(home)
    if not folders:
        console.print(f"there are no studies in {home}", highlight=False, soft_wrap=True)
    delivered = [_deliver(folder, options.tracking_uri, console) for folder in folders]
    return 0 if all(delivered) else 1


def _deliver(folder: StudyFolder, uri: str | None, console: Console) -> bool:
    """End open runs of a study, deliver its records, and print the result.

    Problems are printed and not raised, so that they do not stop the other studies.

    Returns:
        True if no record is left, and the study could be read.
    """
    from coldtune import tracking
    from coldtune.studies.execution.session import EXPERIMENT

    def say(*texts: str | None) -> None:
        console.print(f"{folder.name}: {'; '.join(filter(None, texts))}", highlight=False, markup=False, soft_wrap=True)

    ended, problem = _end_open_runs(folder)
    try:
        target = tracking.prepare(_uri(folder, uri), EXPERIMENT, folder.home / "artifacts")
        drained = tracking.drain(folder.spool, target)
    except (ValueError, OSError) as error:
        say(ended, f"nothing delivered ({problem or describe(error)})")
        return False
    say(ended, problem, *_describe(drained))
    return not drained.pending and problem is None


def _complete(uri: str) -> str:
    """Return the value of `--tracking-uri` with an absolute path, or with the password of the environment."""
    from coldtune.addresses import Passwords, at_folder

    return Passwords.read(None).complete(at_folder(uri, Path.cwd()))


def _describe(drained: Drained) -> list[str | None]:
    delivered = f"{drained.records:,} records of {drained.runs:,} runs delivered" if drained.records else None
    busy = f"{drained.busy} runs are being delivered by another process" if drained.busy else None
    if drained.pending:
        return [delivered, busy, f"{drained.pending:,} bytes wait ({drained.error or 'for their writer to go on'})"]
    return [delivered or "there was nothing to deliver", busy, "nothing waits"]


def _end_open_runs(folder: StudyFolder) -> tuple[str | None, str | None]:
    """End the runs that a killed driver left open.

    Returns:
        A description of these runs or of the drivers that run the study, and the problem with the study. Either is None
        if there is nothing to say.
    """
    from coldtune.studies.drivers.election import DriverLease
    from coldtune.studies.drivers.registry import registry_of
    from coldtune.studies.progress.reconcile import end_torn_lines, reconcile_study, reconcile_trials
    from coldtune.studies.storage.backends import load_started_study

    try:
        with folder.starting():
            url = folder.storage()
            study = load_started_study(folder.path, folder.name, url)
            if drivers := DriverLease(registry_of(study, folder.path, url)).living_drivers():
                return f"is being run by {', '.join(map(str, drivers))}", None
            end_torn_lines(folder.spool)
            numbers = reconcile_trials(study.get_trials(deepcopy=False), folder.name, folder.spool)
            whole = reconcile_study(folder.name, folder.spool)
    except (ValueError, OSError) as error:  # a file of the study is damaged, or its database cannot be reached
        return None, describe(error)
    names = [*(f"trial {number}" for number in numbers), *["the study"] * whole]
    return (f"ended the runs of {', '.join(names)}, left open by a driver that died" if names else None), None
