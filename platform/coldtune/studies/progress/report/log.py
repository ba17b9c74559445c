"""The report of a study on its MLflow run."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coldtune import tracking
from coldtune.faults import describe_error
from coldtune.reports.page.document import Report
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.trials.reading import StudyReader
from coldtune.tracking import NOTE, Target, Tracker


def log_report(folder: StudyFolder, reader: StudyReader, tracker: Tracker, equal_within: float | None = None) -> None:
    """Log the page of a finished study on its run. Only warn if it cannot be made, because the study has succeeded.

    Args:
        equal_within: A difference of the first objective that does not matter. None takes that of the spec.
    """
    with _warn(folder):
        from coldtune.studies.progress.report.gather import gather_report

        _log_page(gather_report(folder, reader, equal_within, quick=True), tracker)


def log_confirmed(search: StudyFolder, target: Target, equal_within: float | None = None) -> None:
    """Log the page and the description of a search anew, because its confirmation has ended.

    Only warn if that fails, because the confirmation has succeeded. A record that the tracking server does not take
    stays in the spool of the search.

    Args:
        equal_within: As in `log_report`.
    """
    with _warn(search):
        from coldtune.studies.progress.report.gather import gather_report

        report = gather_report(search, equal_within=equal_within, quick=True)
        with Tracker(search.spool, search.name, running=False) as tracker:
            _log_page(report, tracker)
            first, *others = report.answer
            tracker.tags({NOTE: "\n\n".join([f"**{first}**", *others])})
        tracking.drain(search.spool, target)


@contextmanager
def _warn(folder: StudyFolder) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        message = "the report of study %s was not made: %s. `coldtune report` makes it again."
        logging.getLogger("coldtune.studies").warning(message, folder.name, describe_error(error))


def _log_page(report: Report, tracker: Tracker) -> None:
    from coldtune.reports.page.html import as_html

    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "report.html"
        page.write_bytes(as_html(report).encode("utf-8", "replace"))
        tracker.artifact(page)
