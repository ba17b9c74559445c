"""A study's table: its trials, or the table of the paper that the study fills."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState
from rich.console import RenderableType

from coldtune.files import write_file
from coldtune.reports.markdown import md_prose
from coldtune.reports.paper.text import TerminalTable, latex, markdown
from coldtune.reports.settings import as_csv, as_parquet, secondary_metrics, settings_frame, settings_latex
from coldtune.reports.tables import COLUMNS, P_HEAD, Column, TrialRow, markdown_table, trial_table
from coldtune.studies.designs.effect_report import report_effects
from coldtune.studies.designs.paper_table_report import fill_table
from coldtune.studies.progress.racing import racing_state
from coldtune.studies.progress.savings import describe_reuse
from coldtune.studies.progress.text import STATE_NAMES, metric_name
from coldtune.studies.progress.verdicts import StudyVerdicts, judge_settings
from coldtune.studies.storage.outcome import Effort
from coldtune.studies.storage.record import TrialRecord, is_imported
from coldtune.studies.storage.settings import Setting, spreads_of
from coldtune.studies.trials.reading import StudyReader

MOST_SHOWN = 50
"""How many rows of a table a terminal shows."""

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class StudyTable:
    """A study's table, for the terminal and for files.

    Attributes:
        terminal: The table for a terminal of any width.
        files: The same table as the content of files, by their names.
        verdicts: The verdicts on settings, as sentences.
    """

    terminal: RenderableType
    files: Mapping[str, str | bytes]
    verdicts: Sequence[str] = ()

    def write(self, folder: Path) -> list[Path]:
        """Write the files of the table into a study's folder, and return their paths.

        Raises:
            OSError: If a file cannot be written. An earlier version of it stays as it was.
        """
        for name, text in self.files.items():
            write_file(folder / name, text)
        return [folder / name for name in self.files]


@dataclass(frozen=True)
class TableContent:
    """The content of a study's table, for any output.

    Attributes:
        rows: The trials, or the settings of a study with replicates.
        best: The numbers of the best rows.
        columns: The columns of metrics.
        what: What a row is: `trial` or `setting`.
        bold: The numbers of the rows that cannot be told apart from the best, the best included.
        judged: The verdicts on settings.
        notes: Lines below the table that say what the study compares.
    """

    rows: Sequence[TrialRow]
    best: Sequence[int]
    columns: Sequence[Column]
    what: str
    bold: Sequence[int]
    judged: StudyVerdicts
    notes: Sequence[str]

    @property
    def verdicts(self) -> Sequence[str]:
        """The verdicts on settings, as sentences."""
        return self.judged.sentences

    @property
    def rows_with_p_values(self) -> Sequence[TrialRow]:
        """The rows for files, with the p-values of settings."""
        if self.what == "trial":
            return self.rows
        return [replace(row, p_value=self.judged.p_values.get(row.number)) for row in self.rows]


def table_content(
    reader: StudyReader, stopped: Collection[int] = (), equal_within: float | None = None
) -> TableContent:
    """Return the content of a study's table. Its arguments are those of `build_table`."""
    best, columns = [setting.number for setting in reader.front()], _columns(reader)
    what = "setting" if reader.replicated else "trial"
    rows = setting_rows(reader, stopped) if reader.replicated else _rows(reader, stopped)
    if reader.replicated:  # the interval of a single network says nothing about a setting
        columns = [column for column in columns if column.key != "fid_reach"]
    verdicts = judge_settings(reader, equal_within)
    bold, notes = list(verdicts.rivals) or best, _notes(reader, rows, columns, verdicts)
    return TableContent(rows, best, columns, what, bold, verdicts, notes)


def build_table(
    reader: StudyReader,
    stopped: Collection[int] = (),
    equal_within: float | None = None,
    most: int | None = MOST_SHOWN,
) -> StudyTable:
    """Build the table of a study. A table of the paper is also written as LaTeX.

    Args:
        stopped: The numbers of trials that this process ran until it stopped. They are shown as interrupted.
        equal_within: A difference of the first objective that does not matter. None takes that of the spec.
        most: A terminal shows the base and this many rows, the best. None shows all rows. The files have all rows.
    """
    if reader.spec.table is not None:
        filled = fill_table(reader)
        return StudyTable(TerminalTable(filled), {"table.md": markdown(filled), "table.tex": latex(filled)})
    content = table_content(reader, stopped, equal_within)
    best, columns, what, bold = content.best, content.columns, content.what, content.bold
    filed, verdicts = content.rows_with_p_values, content.judged
    text = markdown_table(filed, best, columns, what, bold, content.notes)
    for sentence in filter(
        None, (*content.verdicts, describe_reuse(reader.trials()), describe_unknown_threads(reader))
    ):
        text += f"- {md_prose(sentence)}\n"
    if (effects := report_effects(reader)) is not None:
        text += f"\n{effects.markdown()}"
    files: dict[str, str | bytes] = {"table.md": text}
    if reader.replicated:
        frame = settings_frame(filed, best, verdicts.rivals, reader.spec.objective.metric, verdicts.family)
        files["table.tex"] = settings_latex(filed, best, columns, bold, (*content.notes, *content.verdicts))
        files |= {"table.csv": as_csv(frame), "table.parquet": as_parquet(frame)}
    shown, left_out = _shown(reader, content, most)
    terminal = trial_table(shown, best, columns, what=what, bold=bold, notes=left_out, partial=bool(left_out))
    return StudyTable(terminal, files, content.verdicts)


def _shown(reader: StudyReader, content: TableContent, most: int | None) -> tuple[Sequence[TrialRow], list[str]]:
    """Return the rows that a terminal shows, and a line about the others."""
    rows, what = content.rows, content.what
    if most is None or len(rows) <= most:
        return rows, []
    ranked = [setting.number for setting in reader.ranked_settings()]
    first = min(row.number for row in rows)
    kept = {*content.best, *([*ranked, *(row.number for row in rows)][:most]), first}
    states = Counter(row.state.partition(" (")[0] for row in rows if row.number not in kept)
    counts = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
    left_out = f"{sum(states.values()):,} of {len(rows):,} {what}s are not shown ({counts})"
    where = f"`coldtune study show {reader.study.study_name} --all` and table.md in the study's folder have all"
    return [row for row in rows if row.number in kept], [f"{left_out}. {where}"]


def _notes(
    reader: StudyReader, rows: Sequence[TrialRow], columns: Sequence[Column], verdicts: StudyVerdicts
) -> list[str]:
    """Return the lines below a table of settings that say what the study compares, and what its columns are."""
    if not verdicts.family:
        return []
    shown = {column.key: column for column in columns if any(row.metrics.get(column.key) is not None for row in rows)}
    others = [" ".join(shown[key].head).strip() for key in secondary_metrics(shown, reader.spec.objective.metric)]
    notes = [verdicts.family]
    if verdicts.p_values:
        against = "base" if verdicts.reference == "base" else "best setting, among all pairs"
        notes.append(f"{' '.join(P_HEAD)}: p-value of the comparison with the {against}, adjusted by Holm")
    return [*notes, *([f"secondary, unadjusted: {', '.join(others)}"] if others else [])]


def setting_rows(reader: StudyReader, stopped: Collection[int] = ()) -> list[TrialRow]:
    """Return a row for each setting of a study with replicates.

    Args:
        stopped: The numbers of trials that this process ran until it stopped.
    """
    interrupted = {*reader.interrupted(), *stopped}
    return [_setting_row(reader, setting, interrupted) for setting in reader.settings() if setting.asked]


def _setting_row(reader: StudyReader, setting: Setting, interrupted: Collection[int]) -> TrialRow:
    asked = [trial for trial in setting.trials.values() if trial.state != TrialState.WAITING]
    records = [TrialRecord.of(trial) for trial in setting.finished.values()]
    spreads = {} if setting.pruned else spreads_of([record.metrics for record in records])
    if "fid" in spreads:
        spreads["fid_sampled"] = spreads["fid"]
    efforts = [TrialRecord.of(trial).effort for trial in asked]
    return TrialRow(
        number=setting.number,
        state=_setting_state(reader, setting, interrupted),
        params=dict(setting.point),
        metrics={name: spread.mean for name, spread in spreads.items()},
        seconds=_sum([effort.seconds for effort in efforts]),
        note=_setting_note(reader, setting),
        train=_sum([effort.trained for effort in efforts]) or next(map(_training, efforts), None),
        saved=_sum([effort.saved for effort in efforts]),
        protocol=records[0].judged_under if records and spreads else None,
        spreads={name: (spread.sd, spread.n) for name, spread in spreads.items()},
    )


def _setting_state(reader: StudyReader, setting: Setting, interrupted: Collection[int]) -> str:
    """Return the state of a setting: `finished`, `3 of 5 trainings`, `pruned (1 of 5)` or `failed (1 of 5)`.

    In a race: `3 of up to 5 trainings`, `decided (3 of 5)` or `undecided (5 of 5)`.
    """
    if setting.imported:
        return "imported"
    replicates = reader.replicates
    stopped = any(trial.number in interrupted for trial in setting.running())
    planned = max(replicates, len(setting.in_state(*_ENDED)))
    if setting.pruned:
        return f"pruned ({len(setting.in_state(TrialState.PRUNED))} of {planned})"
    if not setting.finished and not reader.missing(setting):
        return f"failed ({len(setting.in_state(TrialState.FAIL))} of {planned})"
    if reader.race is not None:
        return f"{racing_state(reader, setting)}{', interrupted' * stopped}"
    if len(setting.finished) >= replicates:
        return STATE_NAMES[TrialState.COMPLETE]
    return f"{len(setting.finished)} of {planned} trainings{', interrupted' * stopped}"


def _setting_note(reader: StudyReader, setting: Setting) -> str:
    """Return how a setting belongs to others, which of its trainings failed, and at which rung one was pruned."""
    parts = [] if setting.promoted_from is None else [f"promoted from setting {reader.label(setting.promoted_from)}"]
    for trial in setting.in_state(TrialState.FAIL, TrialState.PRUNED).values():
        ended = "failed" if trial.state == TrialState.FAIL else "pruned"
        parts.append(f"{reader.label(trial.number)} {ended}: {TrialRecord.of(trial).reason or 'no reason known'}")
    return "; ".join(parts)


def _sum(seconds: Sequence[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if known else None


def describe_unknown_threads(reader: StudyReader) -> str:
    """Return a sentence about the trials whose number of threads nobody recorded, or "" if there are none."""
    if reader.spec.threads is not None:
        return ""
    records = {trial.number: TrialRecord.of(trial) for trial in reader.trials()}
    unknown = [number for number, record in records.items() if record.protocol and not record.computed]
    if not unknown:
        return ""
    return (
        f"{len(unknown)} of {len(records)} trials ran on an unknown number of CPU threads, which decides the last bits "
        "of a result. New trials of this study may use their trainings."
    )


def _rows(reader: StudyReader, stopped: Collection[int]) -> list[TrialRow]:
    interrupted, retried = {*reader.interrupted(), *stopped}, reader.retried()
    return [
        _row(trial, interrupted, retried.get(trial.number))
        for trial in reader.trials()
        if trial.state != TrialState.WAITING
    ]


def _row(trial: FrozenTrial, interrupted: Collection[int], asked_again: int | None) -> TrialRow:
    record = TrialRecord.of(trial)
    metrics: dict[str, float | None] = dict(record.metrics)
    if "fid" in record.metrics:
        high = record.metrics.get("fid_high")
        metrics["fid_sampled"] = record.metrics["fid"]
        metrics["fid_reach"] = None if high is None else high - record.metrics["fid"]
    return TrialRow(
        number=trial.number,
        state=_state(trial, interrupted),
        params=trial.params,
        metrics=metrics,
        seconds=record.effort.seconds,
        note=_note(record, asked_again),
        train=_training(record.effort),
        saved=record.effort.saved,
        protocol=record.judged_under,
    )


def _training(effort: Effort) -> float | str | None:
    """Return the seconds of a trial's own training, or "found" if another trial had trained the network."""
    return "found" if effort.trained is None and effort.found.get("train") else effort.trained


def _note(record: TrialRecord, asked_again: int | None) -> str:
    """Return how a trial belongs to other trials, and why it failed or at which rung it was pruned.

    Args:
        asked_again: The number of the trial that was asked in its place after it failed.
    """
    parts = [
        "" if record.promoted_from is None else f"promoted from trial {record.promoted_from}",
        "" if record.retry_of is None else f"trial {record.retry_of} again",
        "" if asked_again is None else f"asked again as trial {asked_again}",
        record.reason,
    ]
    return "; ".join(filter(None, parts))


def _state(trial: FrozenTrial, interrupted: Collection[int]) -> str:
    if is_imported(trial):
        return "imported"
    return "interrupted" if trial.number in interrupted else STATE_NAMES[trial.state]


def _columns(reader: StudyReader) -> Sequence[Column]:
    """Return the usual columns, and a column for each objective that these do not show."""
    metrics = [objective.metric for objective in reader.spec.objectives]
    others = [metric for metric in metrics if metric not in ("fid", "ssim", "rmse", "nfe")]
    return [*COLUMNS[:-1], *(Column(metric, ("", metric_name(metric)), 3) for metric in others), COLUMNS[-1]]
