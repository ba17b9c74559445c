"""The output of a study when it ends: its results, and commands to look closer, to resume and to extend it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator

from optuna.trial import TrialState
from rich.console import Console
from rich.text import Text

from coldtune import tracking
from coldtune.environment import coldtune_command
from coldtune.studies.preflight.checks import Checked
from coldtune.studies.progress.results import print_results
from coldtune.studies.progress.table import build_table
from coldtune.studies.progress.text import print_line
from coldtune.studies.storage.backends import dashboard_command
from coldtune.studies.storage.record import StudyRecord, promoted_from
from coldtune.studies.trials.ledger import Ledger
from coldtune.tracking import Target

_COLUMNS = ("fid", "fid_direct", "nfe", "seconds_saved")
"""The metrics that MLflow's list of trials shows beside the objectives. They are few, because the parameters follow."""

_MORE_TRIALS = 8  # how many further trials the command to extend the study suggests


def print_closing(console: Console, checked: Checked, ledger: Ledger, target: Target, finished: bool) -> None:
    """Print the results of a study, write its table, and print the commands that a person may want next.

    Args:
        finished: False if the run was interrupted.
    """
    table = build_table(ledger)
    print_results(console, ledger, table)
    written = table.write(checked.folder.path)
    ended = ledger.finished()
    if others := ledger.lease.others():
        running = ", ".join(map(str, others))
        console.print(Text(f"{ended} of {checked.trials} trials ended; goes on: {running}"), soft_wrap=True)
    if not finished:
        text = f"interrupted with {ended} of {checked.trials} trials ended; nothing is lost"
        console.print(Text(text, style="yellow"))
        print_line(console, "resume", resume_command(checked))
    if ledger.spec.table is not None:
        print_line(console, "the table", ", ".join(map(str, written)))
    for head, command in _look_closer(checked, ledger, target):
        print_line(console, head, command)
    if finished and (more := _extend_command(checked, ledger)):
        print_line(console, "more trials", more)


def print_failure(console: Console, reason: str) -> None:
    """Print why the study stopped before its last trial."""
    console.print(Text(f"\n{reason}", style="red"), soft_wrap=True)


def print_storage_lost(console: Console, error: Exception, checked: Checked) -> None:
    """Print that the study's storage is gone, and how to resume. The table cannot be read then."""
    print_failure(console, f"{error}; the study ends here, and nothing that it had told is lost")
    print_line(console, "resume", resume_command(checked))


def _look_closer(checked: Checked, ledger: Ledger, target: Target) -> Iterator[tuple[str, str]]:
    """Yield the commands that show more of a study, each with its heading."""
    folder = checked.folder
    yield "runs in MLflow", tracking.ui_command(target.uri)
    yield "its trials", _trials_page(target, folder.name, ledger)
    yield "in Optuna", dashboard_command(folder.path, checked.options.storage)
    yield "look closer", coldtune_command("study show", folder.home, folder.name)
    if ledger.best() is not None:
        yield "judge further", coldtune_command("evaluate", folder.home, folder.name)
    promoted = {promoted_from(trial) for trial in ledger.trials()}
    pruned = [trial.number for trial in ledger.trials() if trial.state == TrialState.PRUNED]
    if candidates := [number for number in pruned if number not in promoted]:
        yield "take further", coldtune_command("study promote", folder.home, folder.name, candidates[-1])


def _trials_page(target: Target, study: str, ledger: Ledger) -> str:
    metrics = dict.fromkeys([*(objective.metric for objective in ledger.spec.objectives), *_COLUMNS])
    minimize = ledger.spec.objective.direction == "minimize"
    return tracking.trials_page(
        target,
        study,
        list(ledger.space.distributions),
        list(metrics),
        minimize=minimize,
        study_id=StudyRecord.of(ledger.study).identity,
    )


def resume_command(checked: Checked) -> str:
    """Return the command that resumes the study, for a person who pastes it into a shell."""
    command = checked.options.command
    if checked.options.by_name:
        return coldtune_command("study resume", checked.folder.home, checked.folder.name)
    return command if "--resume" in shlex.split(command) else f"{command} --resume"


def _extend_command(checked: Checked, ledger: Ledger) -> str:
    """Return the command that asks more trials, or "" if all points of a grid or list were asked."""
    trials, most = max(checked.trials, ledger.finished()), ledger.points or math.inf
    if trials >= most:
        return ""
    wanted = min(trials + _MORE_TRIALS, most)
    if checked.options.by_name:
        return coldtune_command("study resume", checked.folder.home, checked.folder.name, flags=("--trials", wanted))
    return f"{_without(checked.options.command, '--trials')} --trials {wanted}"


def _without(command: str, flag: str) -> str:
    """Return a command without `flag`, its value, and `--resume`."""
    words = shlex.split(command)
    kept = [
        word
        for i, word in enumerate(words)
        if not (word in (flag, "--resume") or (i and words[i - 1] == flag) or word.startswith(f"{flag}="))
    ]
    return shlex.join(kept)
