"""`coldtune study`: list, look at, resume."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coldtune.cli.common import Commands, home_of, study_folder, with_home


def add(commands: Commands) -> None:
    """Add the command."""
    verbs = commands.add_parser("study", help="list, look at, resume").add_subparsers(required=True, metavar="VERB")
    with_home(verbs.add_parser("list", help="the studies of a home")).set_defaults(call=_list)
    show = with_home(verbs.add_parser("show", help="a study's table of trials, and where its best one lies"))
    show.add_argument("name")
    show.set_defaults(call=_show)
    resume = with_home(verbs.add_parser("resume", help="go on with a study as it was last started"))
    resume.add_argument("name")
    resume.add_argument("--trials", type=int, metavar="N", help="trials in all (default: as last time)")
    resume.set_defaults(call=_resume)


def _list(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.folder import studies
    from coldtune.studies.view import summary

    home = home_of(options)
    table = Table("study", "dataset", "ended", "of", "best", title=str(home), title_justify="left", box=None)
    for folder in studies(home):
        try:
            table.add_row(*summary(folder))
        except ValueError as error:  # one that cannot be read must not hide the others
            table.add_row(folder.name, "-", "-", "-", Text(str(error).splitlines()[0], style="red"))
    console.print(table, highlight=False)
    return 0


def _show(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.show import print_table
    from coldtune.studies.view import read

    print_table(console, read(study_folder(home_of(options), options.name)))
    return 0


def _resume(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.run import RunOptions, run_study

    folder = study_folder(home_of(options), options.name)
    start = folder.start()
    run = RunOptions(
        home=folder.home,
        command=start["command"],
        trials=options.trials,
        name=folder.name,
        resume=True,
        data_dir=Path(start["data_dir"]) if start["data_dir"] else None,
        tracking_uri=start["tracking_uri"],
        storage=start["storage"],
        workers=start["workers"],
        gpus_per_trial=start["gpus_per_trial"],
    )
    return run_study(folder.spec(), run, console)
