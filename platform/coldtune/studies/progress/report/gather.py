"""The report of a study, gathered from its home."""

from __future__ import annotations

from coldtune.config import plain
from coldtune.reports.page.document import Figure, Report
from coldtune.studies.progress.report.answer import describe_answer
from coldtune.studies.progress.report.content import StudyContent
from coldtune.studies.progress.report.figures import effects_forest, headline, ranking, search_figures
from coldtune.studies.progress.report.insight import (
    describe_keys,
    explain_left_out,
    find_importance,
    show_checks,
    show_importance,
)
from coldtune.studies.progress.report.pictures import show_pictures
from coldtune.studies.progress.report.provenance import describe_provenance, find_protocol, list_commands
from coldtune.studies.progress.report.question import describe_question, keys_table
from coldtune.studies.progress.report.tables import effects_table, number_rows, paper_table, results_table
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.trials.reading import StudyReader, read_study


def gather_report(
    folder: StudyFolder, reader: StudyReader | None = None, equal_within: float | None = None, quick: bool = False
) -> Report:
    """Return the report of a study. Nothing is computed anew: all numbers are those of the study and its store.

    Args:
        reader: The study, if it is open already.
        equal_within: A difference of the first objective that does not matter. None takes that of the spec.
        quick: True to leave out the importance of keys if it may take more than seconds.

    Raises:
        ValueError: If the study cannot be read. The message names the file.
    """
    content = StudyContent(reader or read_study(folder), folder, folder.start(), equal_within)
    importance = find_importance(content, quick)
    effects, paper, results = content.effects, paper_table(content), results_table(content)
    protocol = find_protocol([TrialRecord.of(trial) for trial in content.reader.trials()])
    first = headline(content)
    figure: Figure | None = None
    if effects is not None:  # the headline shows the effects, or the settings before there are any effects
        shown = first is not None and first.kind == "forest" and first.zero
        figure = ranking(content) if shown else effects_forest(effects)
    return Report(
        study=content.name,
        state=f"{content.state}.",
        complete=content.complete,
        question=tuple(describe_question(content)),
        keys=keys_table(content),
        answer=tuple(describe_answer(content, describe_keys(importance))),
        headline=first,
        table=results if paper is None else paper,
        trials=None if paper is None else results,
        rows=number_rows(content),
        pictures=show_pictures(content),
        importance=show_importance(importance) or explain_left_out(content),
        effects=None if effects is None else effects_table(effects),
        effects_figure=figure,
        search=tuple(search_figures(content)),
        checks=show_checks(content),
        provenance=tuple(describe_provenance(content)),
        protocol=None if protocol is None else plain(protocol),
        commands=tuple(list_commands(content)),
    )
