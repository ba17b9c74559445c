"""The question of a study: its objectives, its keys, and its rungs."""

from __future__ import annotations

from collections.abc import Iterator

from coldtune.dotted import leaves
from coldtune.reports.page.document import Table, TableRow
from coldtune.studies.designs.describe import describe_design
from coldtune.studies.designs.paper_table import describe_table
from coldtune.studies.estimate.preview import SPACE_HEADS, describe_space
from coldtune.studies.progress.opening import describe_asked
from coldtune.studies.progress.report.content import StudyContent, write
from coldtune.studies.progress.text import metric_name
from coldtune.studies.space.config import VARIANT
from coldtune.studies.spec.pruning_checks import describe_rungs, rungs_of
from coldtune.studies.storage.record import StudyRecord, TrialRecord


def describe_question(content: StudyContent) -> Iterator[str]:
    """Yield the question in sentences."""
    spec, reader = content.spec, content.reader
    better = {"minimize": "smaller", "maximize": "larger"}
    goals = [f"{metric_name(each.metric)} ({better[each.direction]} is better)" for each in spec.objectives]
    what = "setting" if reader.replicated else "trial"
    if len(goals) > 1:
        yield f"Which {what}s does no other beat in {' and '.join(goals)} on {spec.base['data']['name']}?"
    else:
        yield f"Which {what} has the best {goals[0]} on {spec.base['data']['name']}?"
    yield f"Asked: {describe_asked(spec, reader.space, content.planned, reader.replicates)}."
    if spec.race is not None:
        yield f"The settings race: each is trained {spec.race.first} to {reader.replicates} times, until it is decided."
    elif reader.replicates > 1:
        yield f"Each setting is trained {reader.replicates} times, with different training seeds."
    for head, text in (*describe_table(spec), *describe_design(spec)):
        yield f"{head}: {text}" if head else text
    records = (TrialRecord.of(trial) for trial in reader.trials())
    protocol = next((record.judged_under for record in records if record.protocol), None)
    if rungs := describe_rungs(spec, rungs_of(spec).num_images if protocol is None else protocol.num_images):
        yield f"Rungs: {rungs}."
    for study, said in StudyRecord.of(reader.study).imported.items():
        yield f"Imported from {study}: {said}."


def keys_table(content: StudyContent) -> Table | None:
    """Return the keys that vary, with their values. None if the study only lists variants."""
    space = content.reader.space
    if space.size is not None:
        return None
    base = {**dict(leaves(space.with_defaults(content.spec.base))), VARIANT: space.first.get(VARIANT)}
    rows = [(*row, write(base[row[0]]) if row[0] in base else "") for row in describe_space(space)]
    heads = (*SPACE_HEADS, "base")
    shown = [place for place in range(len(heads)) if any(row[place] for row in rows)]  # most studies have no conditions
    cells = [TableRow(tuple(row[place] for place in shown)) for row in rows]
    return Table("The keys that vary", tuple(heads[place] for place in shown), (False,) * len(shown), tuple(cells))
