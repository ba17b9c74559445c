"""Where people can look at a study that was started: MLflow, Ray's dashboard and optuna-dashboard."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from coldtune import tracking
from coldtune.addresses import redact
from coldtune.processes import here
from coldtune.studies.drivers.election import Driver
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import dashboard_command
from coldtune.studies.storage.record import StudyRecord
from coldtune.studies.trials.reading import StudyReader
from coldtune.tracking.spool import STUDY, Spool

_COLUMNS = ("sampled/fid", "direct/fid", "sampled/nfe", "seconds/saved")
"""The metrics that MLflow's list of trials shows beside the objectives. They are few, because the parameters follow."""

_ANSWER_S = 0.5
_THIS_MACHINE = ("localhost", "127.0.0.1", "0.0.0.0")


def list_addresses(reader: StudyReader, folder: StudyFolder) -> Iterator[tuple[str, str]]:
    """Yield the addresses of a study and the commands that open its pages, each with its heading.

    Ray's dashboard is named if a driver runs the study now, and the dashboard answers. Nothing is written.
    """
    try:
        uri = folder.tracking_uri() or tracking.default_uri(folder.home)
        yield "runs in MLflow", tracking.ui_command(uri)
        experiment = folder.start()["experiment"]
        if experiment is not None:
            target = tracking.Target(uri, experiment["id"], experiment["born"])
            yield from mlflow_pages(reader, folder, target, view=experiment["view"])
    except (ValueError, OSError) as error:  # the study can be shown without its MLflow server
        yield "runs in MLflow", redact(f"not known ({error})")
    for address in dict.fromkeys(filter(None, map(_live_dashboard, reader.lease.others()))):
        yield "Ray dashboard", address
    yield "in Optuna", dashboard_command(folder.path, folder.storage())


def mlflow_pages(
    reader: StudyReader, folder: StudyFolder, target: tracking.Target, view: bool
) -> Iterator[tuple[str, str]]:
    """Yield the addresses of a study's pages in MLflow, each with its heading.

    Args:
        view: Whether the view of its trials was saved on the server.
    """
    trials = trials_page(reader).address(target, view)
    yield "its trials", trials
    yield "its charts", tracking.charts_page(trials)
    if (run_id := Spool(folder.spool, STUDY).state(target.key, target.born).run_id) is not None:
        yield "its summary", tracking.run_page(target, run_id)


def trials_page(reader: StudyReader) -> tracking.TrialsPage:
    """Return the page of a study's trials, with columns for the keys that vary and for its objectives."""
    objectives = [tracking.mlflow_name(objective.metric) for objective in reader.spec.objectives]
    return tracking.TrialsPage(
        reader.study.study_name,
        list(reader.space.distributions),
        list(dict.fromkeys([*objectives, *_COLUMNS])),
        minimize=reader.spec.objective.direction == "minimize",
        study_id=StudyRecord.of(reader.study).identity,
        group_by="setting" if reader.replicated else None,
        partial=reader.space.conditional,
    )


def _live_dashboard(driver: Driver) -> str:
    """Return the address of the dashboard of a driver's Ray, or "" if it has none or does not answer."""
    host, _, port = driver.dashboard.rpartition(":")
    if not host or not port.isdecimal() or (host in _THIS_MACHINE and not here(driver.process)):
        return ""
    try:
        socket.create_connection((host, int(port)), _ANSWER_S).close()
    except (OSError, OverflowError, UnicodeError):  # it does not answer, or this is no address
        return ""
    return f"http://{driver.dashboard}"
