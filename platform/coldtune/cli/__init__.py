"""The `coldtune` command: studies, datasets, presets and records, from a terminal.

A new command is a file here with a function `add(commands)`, and its name in `COMMANDS`. Each command imports slow
libraries (torch, Ray, MLflow) only when it runs, so that `--help` and a wrong flag answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console

import coldtune
from coldtune.cli import data, evaluate, gallery, presets, store, study, tracking
from coldtune.cli.job import print_error

COMMANDS = (study, evaluate, store, data, presets, gallery, tracking)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit.

    The exit code is 0, or 1 if the command found a problem. It is 2, with a line on stderr, after an error of the
    user, and 130 after an interruption.

    Args:
        arguments: The command line. None means `sys.argv`.
    """
    options = build_parser().parse_args(arguments)
    # Without markup, because names of studies, files and drivers may contain brackets.
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")), markup=False)
    try:
        sys.exit(options.call(options, console))
    except ValueError as error:
        if os.environ.get("COLDTUNE_DEBUG"):
            raise
        print_error(error)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("\ninterrupted")
        sys.exit(130)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the `coldtune` command with all its commands."""
    parser = argparse.ArgumentParser(prog="coldtune", description=coldtune.__doc__)
    parser.add_argument("--version", action="version", version=f"coldtune {coldtune.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
