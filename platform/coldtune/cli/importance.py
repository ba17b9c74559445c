"""`coldtune importance`: the keys of a study that matter, and the findings of its health checks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from coldtune.cli.common import Commands, add_home_flag, find_home, find_study
from coldtune.cli.json_output import add_json_flag, print_json
from coldtune.cli.tables import ListTable

if TYPE_CHECKING:
    from coldtune.studies.insight.importance import Importance


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_home_flag(
        commands.add_parser("importance", help="which keys of a study matter, and the findings of health checks")
    )
    parser.add_argument("study", metavar="STUDY", help="name of the study")
    add_json_flag(parser)
    parser.set_defaults(call=_print)


def _print(options: argparse.Namespace, console: Console) -> int:
    import dataclasses

    from coldtune.studies.insight.health import health_checks
    from coldtune.studies.insight.study_importance import study_importance
    from coldtune.studies.trials.reading import read_study

    home = find_home(options)
    folder = find_study(home, options.study)
    reader = read_study(folder)
    importance = study_importance(reader, home, folder.path)
    findings = health_checks(reader, home)
    if options.json:
        print_json(
            {
                "importance": dataclasses.asdict(importance),
                "health_checks": [dataclasses.asdict(finding) for finding in findings],
            }
        )
        return 0
    if importance.rows:
        console.print(_table(importance), highlight=False)
    for sentence in importance.sentences():
        console.print(sentence, highlight=False, soft_wrap="coldtune " in sentence)  # a command is copied whole
    for finding in findings:
        console.print(f"\n{finding.name}: {finding.sentence}", highlight=False)
        console.print(f"  {finding.advice}", highlight=False, soft_wrap=True)
    return 0


def _table(importance: Importance) -> ListTable:
    """Return the keys from the most to the least important."""
    intervals = any(row.low is not None for row in importance.rows)
    of_resamples = ["90 % interval", "rank held"] if intervals else []
    notes = ("",) if any(row.by_chance for row in importance.rows) else ()
    table = ListTable("", ("rank", "key", "stage"), ("share", *of_resamples), notes, names=2)
    for rank, row in enumerate(importance.rows, 1):
        interval = [] if row.low is None or row.high is None else [f"{100 * row.low:.0f} to {100 * row.high:.0f} %"]
        held = [""] if row.rank_held is None else [f"{100 * row.rank_held:.0f} %"]
        note = ["perhaps by chance" if row.by_chance else ""] if notes else []
        table.add_row(
            str(rank), row.key, row.stage, f"{100 * row.share:.0f} %", *interval, *(held if intervals else []), *note
        )
    return table
