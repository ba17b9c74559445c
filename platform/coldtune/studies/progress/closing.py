"""What a study prints before and after: what it is about to do and where it writes; its trials, and what to do next."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.text import Text

from coldtune import tracking
from coldtune.environment import runner
from coldtune.metrics import Judgement, compare
from coldtune.reports.paper.text import TerminalTable, latex, markdown
from coldtune.reports.tables import markdown_table, trial_table
from coldtune.studies.designs.paper_table_report import fill_table
from coldtune.studies.progress.savings import not_trained, saved_by
from coldtune.studies.progress.table import _best_numbers, _columns, rows
from coldtune.studies.progress.text import _line, _with_interval
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import dashboard_command
from coldtune.studies.storage.record import StudyRecord, TrialRecord, promoted_from
from coldtune.studies.trials.ledger import Ledger
from coldtune.studies.trials.reading import StudyReader
from coldtune.tracking import Target

_LISTED = ("fid", "fid_direct", "nfe", "seconds_saved")
"""Metrics that MLflow's list of trials shows beside the objectives: few, since the parameters stand to their right."""


def closing(
    console: Console, folder: StudyFolder, ledger: Ledger, trials: int, command: str, target: Target, finished: bool
) -> None:
    """Print the table of trials, the best one, and the commands to look closer, to resume or to extend."""
    print_table(console, ledger)
    written = write_table(folder, ledger)
    commands = [
        ("runs in MLflow", tracking.ui_command(target.uri)),
        ("its trials", _trials_page(target, folder.name, ledger)),
        ("in Optuna", dashboard_command(folder.path, folder.start()["storage"])),
        ("look closer", f"{runner()}coldtune study show {folder.name} --home {shlex.quote(str(folder.home))}"),
        ("judge further", f"{runner()}coldtune evaluate {folder.name} --home {shlex.quote(str(folder.home))}"),
    ]
    taken = {promoted_from(trial) for trial in ledger.trials()}
    if pruned := [t.number for t in ledger.trials() if t.state == TrialState.PRUNED and t.number not in taken]:
        promote = f"{runner()}coldtune study promote {folder.name} {pruned[-1]} --home {shlex.quote(str(folder.home))}"
        commands.append(("take further", promote))
    if ledger.spec.table is not None:
        commands.insert(0, ("the table", ", ".join(map(str, written))))
    ended = ledger.finished()
    if others := ledger.lease.others():
        console.print(f"{ended} of {trials} trials ended; goes on: {', '.join(map(str, others))}", soft_wrap=True)
    if not finished:
        console.print(f"[yellow]interrupted with {ended} of {trials} trials ended; nothing is lost[/]")
        commands.insert(0, ("resume", resume(command)))
    elif (ledger.points or math.inf) > max(trials, ended):
        more = min(max(trials, ended) + 8, ledger.points or math.inf)
        commands.append(("more trials", f"{_without(command, '--trials')} --trials {more}"))
    for head, text in commands:
        _line(console, head, text)


def gone(console: Console, why: Exception, command: str) -> None:
    """Say that the study's storage is gone, and how to resume; its table cannot be read."""
    console.print(Text(f"\n{why}; the study ends here, and nothing that it had told is lost", "red"), soft_wrap=True)
    _line(console, "resume", resume(command))


def resume(command: str) -> str:
    """What a person types to go on with a study that `command` started."""
    return command if "--resume" in shlex.split(command) else f"{command} --resume"


def _trials_page(target: Target, study: str, ledger: Ledger) -> str:
    metrics = dict.fromkeys([*(objective.metric for objective in ledger.spec.objectives), *_LISTED])
    minimize = ledger.spec.objective.direction == "minimize"
    return tracking.trials_page(target, study, list(ledger.space.distributions), list(metrics), minimize=minimize)


def print_table(console: Console, reader: StudyReader) -> None:
    """The table of a study's trials, the best one's place on test, and what failed; or the paper's table, filled."""
    if reader.spec.table is not None:
        console.print(TerminalTable(fill_table(reader)))
        return
    console.print(trial_table(rows(reader), best=_best_numbers(reader), columns=_columns(reader)))
    best = reader.best()
    if best is None:
        return
    for line in (saved_by(reader.trials()), not_trained(reader)):
        if line:
            console.print(line, highlight=False)
    if line := _against_runner_up(reader, best):
        console.print(line, highlight=False)
    record = TrialRecord.of(best)
    if test := StudyRecord.of(reader.study).test:
        protocol = test.judged_under
        shown = dict.fromkeys(["fid", reader.spec.objective.metric, "ssim", "rmse"])
        values = ", ".join(_with_interval(key, test.metrics) for key in shown if key in test.metrics)
        console.print(
            f"Trial {test.trial}, measured once on test: {values} (N = {protocol.num_images:,}, "
            f"protocol {protocol.key[:12]})",
            highlight=False,
        )
    if record.images:
        _line(console, "its images", record.images["sampled"])
        _line(console, "its restorer", str(record.checkpoint))


def write_table(folder: StudyFolder, reader: StudyReader) -> list[Path]:
    """Write the study's table into its folder: as Markdown, one of the paper's also as LaTeX; gives the files."""
    if reader.spec.table is None:
        found = saved_by(reader.trials())
        table = markdown_table(rows(reader), _best_numbers(reader), _columns(reader))
        texts = {"table.md": table + (f"- {found}\n" if found else "")}
    else:
        filled = fill_table(reader)
        texts = {"table.md": markdown(filled), "table.tex": latex(filled)}
    for name, text in texts.items():
        (folder.path / name).write_text(text)
    return [folder.path / name for name in texts]


def _against_runner_up(reader: StudyReader, best: FrozenTrial) -> str:
    """The best trial against the next one on the same images; empty where there is none, or no paired interval."""
    second = reader.best(but=best.number)
    if second is None or len(reader.spec.objectives) > 1 or second.params == best.params:
        return ""
    try:
        folders = [reader.local_folder(TrialRecord.of(trial).measured["sampled"]) for trial in (best, second)]
        a, b = (Judgement.load(folder) for folder in folders)
        names = (f"Trial {best.number}", f"trial {second.number}")
        return str(compare(a, b, reader.spec.objective.metric, names))
    except (KeyError, OSError, ValueError):  # measured by an older version, moved, or a metric without an interval
        return ""


def _without(command: str, flag: str) -> str:
    words = shlex.split(command)
    kept = [
        w
        for i, w in enumerate(words)
        if not (w in (flag, "--resume") or (i and words[i - 1] == flag) or w.startswith(f"{flag}="))
    ]
    return shlex.join(kept)
