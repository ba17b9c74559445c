"""The `coldtune` command: studies, datasets, presets and records, from a terminal.

A new command is a file here with a function `add(commands)`, and its name in `COMMANDS`. Each command imports slow
libraries (torch, Ray, MLflow) only when it runs, so that `--help` and a wrong flag answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import coldtune
from coldtune.cli import (
    ablate,
    data,
    evaluate,
    export,
    gallery,
    grid,
    importance,
    presets,
    report,
    rerun,
    restore,
    store,
    study,
    tracking,
    watch,
)
from coldtune.cli.arguments import Parser
from coldtune.cli.entry import make_console, run

COMMANDS = (
    study,
    report,
    ablate,
    importance,
    watch,
    evaluate,
    grid,
    rerun,
    restore,
    export,
    store,
    data,
    presets,
    gallery,
    tracking,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit.

    The exit code is 0, or 1 if the command found a problem. It is 2, with a line on stderr, after an error of the
    user, and 130 after an interruption.

    Args:
        arguments: The command line. None means `sys.argv`.
    """
    console = make_console()
    options = build_parser().parse_args(arguments)
    sys.exit(run(lambda: int(options.call(options, console))))


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the `coldtune` command with all its commands."""
    parser = Parser(prog="coldtune", description=coldtune.__doc__)
    parser.add_argument("--version", action="version", version=f"coldtune {coldtune.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
