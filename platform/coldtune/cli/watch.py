"""`coldtune watch`: the progress of a study that runs elsewhere."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.text import Text

from coldtune.cli.common import Commands, add_home_flag, find_home, find_study
from coldtune.durations import parse_duration

DESCRIPTION = """
Show the progress of a study that another process runs: its trials, the rate of training, the time left and the best
value. Only the study's home and storage are read, so watching changes nothing. Without a terminal, every change is a
line. The command ends with the study and prints its table, and the command that watches its confirmation. Ctrl-C ends
the watching and not the study.
"""
STOPPED = 3  # as for a job whose study stopped before its last trial
INTERRUPTED = 130


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "watch",
        help="show the progress of a study that runs elsewhere",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="STUDY", help="name of the study")
    parser.add_argument("--every", default="2s", metavar="TIME", help="time between two looks (default 2s)")
    add_home_flag(parser).set_defaults(call=_watch)


def _watch(options: argparse.Namespace, console: Console) -> int:
    every = parse_duration("--every", options.every)
    folder = find_study(find_home(options), options.name)

    from coldtune.cli.study import show_study
    from coldtune.environment import coldtune_command
    from coldtune.studies.progress.text import print_line
    from coldtune.studies.progress.watching import find_confirmation, watch_study
    from coldtune.studies.storage.errors import StorageGoneError
    from coldtune.studies.trials.reading import read_study

    reader = read_study(folder)
    try:
        done = watch_study(reader, folder, console, every)
    except KeyboardInterrupt:
        console.print(Text(f"\nstopped watching; {folder.name} goes on"), soft_wrap=True)
        return INTERRUPTED
    except StorageGoneError as error:
        raise ValueError(f"study {folder.name}: {error}. Watch it again when its storage answers.") from None
    show_study(reader, folder, console)
    if done:
        if (confirmation := find_confirmation(reader, folder)) is not None:
            print_line(console, "confirmation", coldtune_command("watch", folder.home, confirmation))
        return 0
    text = f"{reader.ended()} trials ended, others are missing, and no driver runs the study"
    console.print(Text(text, style="yellow"), soft_wrap=True)
    print_line(console, "resume", coldtune_command("study resume", folder.home, folder.name))
    return STOPPED
