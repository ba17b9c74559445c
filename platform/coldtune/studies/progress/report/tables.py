"""The tables of a report: its trials or settings, the table of the paper, and the effects of a design."""

from __future__ import annotations

from coldtune.environment import coldtune_command
from coldtune.metrics.registry import label
from coldtune.reports.page.document import Row, Spread, Table, TableRow
from coldtune.reports.paper.text import foot_of, rows_of
from coldtune.reports.tables import REPEATED, Grid, TrialRow, build_grid
from coldtune.studies.designs.effect_report import HEADS, EffectReport
from coldtune.studies.designs.paper_table_report import fill_table
from coldtune.studies.progress.report.content import StudyContent

_MOST_NOTES = 10  # below the table


def results_table(content: StudyContent) -> Table:
    """Return the table of trials or settings, from the best on."""
    table = content.table
    grid = build_grid(table.rows_with_p_values, table.best, table.columns, table.what, table.bold, table.notes)
    order = _order_columns(content, grid)
    cells = {row.number: [line[i] for i in order] for row, line in zip(grid.rows, grid.cells, strict=True)}
    bold = table.bold or table.best
    rows = tuple(TableRow(tuple(cells[row.number]), row.number in bold) for row in content.rows)
    heads = tuple(" ".join(filter(None, grid.heads[i])) for i in order)
    numeric = tuple(grid.numeric[i] for i in order)
    ranking = "from the best on" if content.ranked else "by number"
    noted = sum(bool(row.note) for row in grid.rows)  # their notes end the lines below the table
    more = max(noted - _MOST_NOTES, 0)
    foot = (*grid.foot[: len(grid.foot) - more], *([f"{more:,} more notes are in the JSON form."] if more else []))
    return Table(f"{len(rows):,} {content.what}{'s' * (len(rows) != 1)}, {ranking}", heads, numeric, rows, foot)


def _order_columns(content: StudyContent, grid: Grid) -> list[int]:
    """Return the order of the columns: the row's number, the objectives with their intervals, then all others.

    A narrow window shows the left columns only.
    """
    objectives = [objective.metric for objective in content.spec.objectives]
    shown = {*objectives, *(REPEATED if "fid" in objectives else ())}
    first = [i for i, key in enumerate(grid.keys) if key in shown]
    return [0, *first, *(i for i in range(1, len(grid.heads)) if i not in first)]


def paper_table(content: StudyContent) -> Table | None:
    """Return the table of the paper that the study fills. None if it fills none."""
    if content.spec.table is None:
        return None
    filled = fill_table(content.reader)
    columns = filled.table.columns
    rows = tuple(TableRow((name, *map(str, cells)), name == filled.ours) for name, cells in rows_of(filled))
    foot = tuple(f"{head}: {text}" for head, text in foot_of(filled))
    heads = ("Dataset", *(column.title for column in columns))
    return Table(filled.heading, heads, (False, *(True for _ in columns)), rows, foot)


def effects_table(report: EffectReport) -> Table:
    """Return the effects of a design."""
    rows, groups = [], report.groups()
    for group, members in groups.items():
        rows += [TableRow((HEADS[group],))] * (len(groups) > 1)
        rows += [TableRow((row.effect.name, *row.cells())) for row in members]
    heads = ("effect", label(report.metric), "95 % CI")
    return Table(f"Effects on mean {label(report.metric)}", heads, (False, True, False), tuple(rows), report.notes)


def number_rows(content: StudyContent) -> tuple[Row, ...]:
    """Return the numbers behind the table, in its order."""
    return tuple(_number_row(content, row) for row in content.rows)


def _number_row(content: StudyContent, row: TrialRow) -> Row:
    table, reader = content.table, content.reader
    setting = content.settings.get(row.number)
    finished = [] if setting is None else list(setting.finished.values())
    return Row(
        number=row.number,
        name=f"{content.what} {row.number}",
        state=row.state,
        params=dict(row.params),
        metrics={name: value for name, value in row.metrics.items() if name not in REPEATED},
        spreads={name: Spread(*spread) for name, spread in row.spreads.items() if name not in REPEATED},
        seconds=row.seconds,
        saved=row.saved,
        note=row.note,
        best=row.number in table.best,
        as_good_as_best=row.number in table.judged.rivals if table.judged.rivals else None,
        p_value=table.judged.p_values.get(row.number),
        repeat=tuple(repeat_command(content, reader.label(trial.number)) for trial in finished),
    )


def repeat_command(content: StudyContent, label: str) -> str:
    """Return the command that repeats a finished trial."""
    return coldtune_command("rerun", content.folder.home, f"{content.name}/{label}")
