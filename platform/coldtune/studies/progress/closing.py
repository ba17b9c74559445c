"""The output of a study when it ends: its results, and commands to look closer, to resume and to extend it."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from optuna.trial import TrialState
from rich.console import Console
from rich.text import Text

from coldtune import tracking
from coldtune.environment import coldtune_command
from coldtune.faults import describe_error
from coldtune.studies.preflight.checks import Checked
from coldtune.studies.progress.addresses import mlflow_pages, trials_page
from coldtune.studies.progress.results import describe_ended, print_results
from coldtune.studies.progress.table import StudyTable, build_table
from coldtune.studies.progress.text import describe_failed, print_line
from coldtune.studies.storage.backends import dashboard_command
from coldtune.studies.storage.record import promoted_from
from coldtune.studies.trials.ledger import Ledger
from coldtune.tracking import Target

_MORE_REPLICATES = 2  # how many further trainings the command for more trainings suggests

_MORE_TRIALS = 8  # how many further trials the command to extend the study suggests


def print_closing(console: Console, checked: Checked, ledger: Ledger, target: Target, finished: bool) -> None:
    """Print the results of a study, write its table, and print the commands that a person may want next.

    Args:
        finished: False if the run was interrupted.
    """
    table = build_table(ledger, () if finished else ledger.running(), checked.options.equal_within)
    print_results(console, ledger, table)
    written = _write_table(console, table, checked, finished)
    ended, done = ledger.ended(), describe_ended(checked.trials, ledger)
    if finished and (settled := ledger.settled_early(checked.trials)) is not None:
        console.print(f"stopped as settled, with {done}: {settled}", highlight=False, soft_wrap=True)
    if others := ledger.lease.others():
        running = ", ".join(map(str, others))
        console.print(Text(f"{done}; goes on: {running}"), soft_wrap=True)
    if failed := ledger.failed():
        name = ledger.label(failed[-1].number)
        in_vain = ended_in_vain(checked, ledger)
        text = describe_failed(failed, name, ended, in_vain)
        console.print(Text(text, style="red" if in_vain else "yellow"), soft_wrap=True)
    if not finished:
        console.print(Text(f"interrupted with {done}; nothing is lost", style="yellow"))
        print_resume(console, checked)
    if failed:
        print_line(console, "retry failed", resume_command(checked, "--retry-failed"))
    if ledger.spec.table is not None:
        print_line(console, "the table", ", ".join(map(str, written)))
    for head, command in _look_closer(checked, ledger, target):
        print_line(console, head, command)
    if finished and (more := _extend_command(checked, ledger)):
        print_line(console, "more settings" if ledger.replicated else "more trials", more)
    if finished and ledger.best() is not None and ledger.race is None:
        print_line(console, "more trainings", _replicate_command(checked, ledger))


def ended_in_vain(checked: Checked, ledger: Ledger) -> bool:
    """Return True if all trials of a study have ended, and none was measured."""
    return ledger.is_done(checked.trials) and not ledger.has_results()


def _write_table(console: Console, table: StudyTable, checked: Checked, finished: bool) -> list[Path]:
    """Write the table's files. If the study did not finish, say if they cannot be written, and go on."""
    try:
        return table.write(checked.folder.path)
    except OSError as error:
        if finished:
            raise
        text = f"the table was not written to {checked.folder.path}: {describe_error(error)}"
        console.print(Text(text, style="yellow"), soft_wrap=True)
        return []


def print_resume(console: Console, checked: Checked) -> None:
    """Print the command that resumes a study."""
    print_line(console, "resume", resume_command(checked))


def print_machine_fault(console: Console, checked: Checked, fault: str) -> None:
    """Print that a fault of the machine stopped the study, and the places of the study with the room on each.

    Args:
        fault: The fault in one line, from `coldtune.faults.machine_fault`.
    """
    places = {"home": checked.options.home} | ({} if checked.store.remote else {"store": checked.store.path})
    listed = ", ".join(f"{name} {path} ({_room(path)})" for name, path in places.items())
    remote = f", store {checked.store.shown}" if checked.store.remote else ""
    print_failure(
        console,
        f"stopped by a fault of the machine, not of a setting: {fault}. The study writes to: {listed}{remote}. "
        "Its open trials stay interrupted. Mend the machine, then resume.",
    )


def _room(path: Path) -> str:
    """Return how much room is left at a path, or why nobody can say."""
    try:
        disk = os.statvfs(path)
        if disk.f_files and not disk.f_favail:
            return "no more files fit, because no inodes are free"
        return f"{disk.f_bavail * disk.f_frsize / 2**20:,.0f} MiB free"
    except OSError as error:
        return (error.strerror or "cannot be read").lower()


def print_failure(console: Console, reason: str) -> None:
    """Print why the study stopped before its last trial."""
    console.print(Text(f"\n{reason}", style="red"), soft_wrap=True)


def print_storage_lost(console: Console, error: Exception, checked: Checked) -> None:
    """Print that the study's storage is gone, and how to resume. The table cannot be read then."""
    print_failure(console, f"{error}; the study ends here, and nothing that it had told is lost")
    print_resume(console, checked)


def _look_closer(checked: Checked, ledger: Ledger, target: Target) -> Iterator[tuple[str, str]]:
    """Yield the commands that show more of a study, each with its heading."""
    folder = checked.folder
    yield "runs in MLflow", tracking.ui_command(target.uri)
    yield from mlflow_pages(ledger, folder, target, view=trials_page(ledger).save(target))
    yield "in Optuna", dashboard_command(folder.path, checked.options.storage)
    yield "look closer", coldtune_command("study show", folder.home, folder.name)
    yield "on one page", coldtune_command("report", folder.home, folder.name)
    if ledger.best() is not None:
        yield "judge further", coldtune_command("evaluate", folder.home, folder.name)
    promoted = {promoted_from(trial) for trial in ledger.trials()}
    pruned = [trial.number for trial in ledger.trials() if trial.state == TrialState.PRUNED]
    if ledger.replicated:
        settings = ledger.settings()
        promoted = {each.number for each in settings if each.first.number in promoted}
        pruned = [each.number for each in settings if each.pruned]
    if candidates := [number for number in pruned if number not in promoted]:
        yield "take further", coldtune_command("study promote", folder.home, folder.name, candidates[-1])


def resume_command(checked: Checked, *flags: str) -> str:
    """Return the command that resumes the study, for a person who pastes it into a shell.

    Failed trials are asked again only once, so the flag for that goes unless it is in `flags`.
    """
    if checked.options.by_name:
        return coldtune_command("study resume", checked.folder.home, checked.folder.name, flags=flags)
    command = _without_switch(checked.options.command)
    resume = () if "--resume" in shlex.split(command) else ("--resume",)
    return " ".join((command, *resume, *flags))


def _without_switch(command: str, switch: str = "--retry-failed") -> str:
    """Return a command without a flag that has no value."""
    words = shlex.split(command)
    return shlex.join(word for word in words if word != switch) if switch in words else command


def _extend_command(checked: Checked, ledger: Ledger) -> str:
    """Return the command that asks more trials, or "" if all points of a grid or list were asked."""
    trials, most = max(checked.trials, ledger.finished()), ledger.points or math.inf
    if trials >= most:
        return ""
    wanted = min(trials + _MORE_TRIALS, most)
    stops = checked.options.stop_when_settled  # the larger study would stop at once, too
    if checked.options.by_name:
        flags = ("--trials", wanted, *("--no-stop-when-settled",) * stops)
        return coldtune_command("study resume", checked.folder.home, checked.folder.name, flags=flags)
    command = _without_switch(checked.options.command, "--stop-when-settled")
    return f"{_without(command, '--trials')} --trials {wanted}"


def _replicate_command(checked: Checked, ledger: Ledger) -> str:
    """Return the command that trains each setting more often."""
    wanted = ledger.replicates + _MORE_REPLICATES
    if checked.options.by_name:
        flags = ("--replicates", wanted)
        return coldtune_command("study resume", checked.folder.home, checked.folder.name, flags=flags)
    if ledger.spec.confirmation is not None:  # the command is that of the search
        return f"{_without(checked.options.command, '--confirm')} --confirm {wanted}"
    return f"{_without(checked.options.command, '--replicates')} --replicates {wanted}"


def _without(command: str, flag: str) -> str:
    """Return a command without `flag`, its value, and `--resume`."""
    words = shlex.split(_without_switch(command))
    kept = [
        word
        for i, word in enumerate(words)
        if not (word in (flag, "--resume") or (i and words[i - 1] == flag) or word.startswith(f"{flag}="))
    ]
    return shlex.join(kept)
