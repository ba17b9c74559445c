"""The report of a study on its MLflow run."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from coldtune.faults import describe_error
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.trials.reading import StudyReader
from coldtune.tracking import Tracker


def log_report(folder: StudyFolder, reader: StudyReader, tracker: Tracker, equal_within: float | None = None) -> None:
    """Log the page of a finished study on its run. Only warn if it cannot be made, because the study has succeeded.

    Args:
        equal_within: A difference of the first objective that does not matter. None takes that of the spec.
    """
    try:
        from coldtune.reports.page.html import as_html
        from coldtune.studies.progress.report.gather import gather_report

        with tempfile.TemporaryDirectory() as scratch:
            page = Path(scratch) / "report.html"
            page.write_bytes(
                as_html(gather_report(folder, reader, equal_within, quick=True)).encode("utf-8", "replace")
            )
            tracker.artifact(page)
    except Exception as error:
        message = "the report of study %s was not made: %s. `coldtune report` makes it again."
        logging.getLogger("coldtune.studies").warning(message, folder.name, describe_error(error))
