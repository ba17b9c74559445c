"""A study's table: its trials, or the table of the paper that the study fills."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState
from rich.console import RenderableType

from coldtune.files import write_file
from coldtune.reports.paper.text import TerminalTable, latex, markdown
from coldtune.reports.tables import COLUMNS, Column, TrialRow, markdown_table, trial_table
from coldtune.studies.designs.paper_table_report import fill_table
from coldtune.studies.progress.savings import describe_reuse
from coldtune.studies.progress.text import STATE_NAMES, metric_name
from coldtune.studies.storage.outcome import Effort
from coldtune.studies.storage.record import TrialRecord, is_imported
from coldtune.studies.trials.reading import StudyReader


@dataclass(frozen=True)
class StudyTable:
    """A study's table, for the terminal and for files.

    Attributes:
        terminal: The table for a terminal of any width.
        files: The same table as text, by the name of its file.
    """

    terminal: RenderableType
    files: Mapping[str, str]

    def write(self, folder: Path) -> list[Path]:
        """Write the files of the table into a study's folder, and return their paths."""
        for name, text in self.files.items():
            write_file(folder / name, text)
        return [folder / name for name in self.files]


def build_table(reader: StudyReader) -> StudyTable:
    """Build the table of a study. A table of the paper is also written as LaTeX."""
    if reader.spec.table is not None:
        filled = fill_table(reader)
        return StudyTable(TerminalTable(filled), {"table.md": markdown(filled), "table.tex": latex(filled)})
    rows, columns = _rows(reader), _columns(reader)
    best = [trial.number for trial in reader.front()]
    text = markdown_table(rows, best, columns)
    for sentence in filter(None, (describe_reuse(reader.trials()), describe_unknown_threads(reader))):
        text += f"- {sentence}\n"
    return StudyTable(trial_table(rows, best, columns), {"table.md": text})


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


def _rows(reader: StudyReader) -> list[TrialRow]:
    interrupted = set(reader.interrupted())
    return [_row(trial, interrupted) for trial in reader.trials() if trial.state != TrialState.WAITING]


def _row(trial: FrozenTrial, interrupted: Collection[int]) -> TrialRow:
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
        note=_note(record),
        train=_training(record.effort),
        saved=record.effort.saved,
        protocol=record.judged_under,
    )


def _training(effort: Effort) -> float | str | None:
    """Return the seconds of a trial's own training, or "found" if another trial had trained the network."""
    return "found" if effort.trained is None and effort.found.get("train") else effort.trained


def _note(record: TrialRecord) -> str:
    """Return the trial that this trial continues, and why it failed or at which rung it was pruned."""
    if record.promoted_from is not None:
        return f"promoted from trial {record.promoted_from}" + (f"; {record.reason}" if record.reason else "")
    return record.reason


def _state(trial: FrozenTrial, interrupted: Collection[int]) -> str:
    if is_imported(trial):
        return "imported"
    return "interrupted" if trial.number in interrupted else STATE_NAMES[trial.state]


def _columns(reader: StudyReader) -> Sequence[Column]:
    """Return the usual columns, and a column for each objective that these do not show."""
    metrics = [objective.metric for objective in reader.spec.objectives]
    others = [metric for metric in metrics if metric not in ("fid", "ssim", "rmse", "nfe")]
    return [*COLUMNS[:-1], *(Column(metric, ("", metric_name(metric)), 3) for metric in others), COLUMNS[-1]]
