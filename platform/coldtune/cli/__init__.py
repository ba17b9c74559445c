"""The `coldtune` command: studies, datasets, presets and records, from a terminal.

A new command is a file here with `add(commands)`, and its name in `COMMANDS`. What is slow to import (torch, Ray,
MLflow) is imported where a command runs, so that `--help` and a wrong flag answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console

import coldtune
from coldtune.cli import data, evaluate, gallery, presets, store, study, tracking
from coldtune.cli.job import complain

COMMANDS = (study, evaluate, store, data, presets, gallery, tracking)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0, 2 with one line for a user's error, or 130 where it was interrupted."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
    try:
        sys.exit(options.call(options, console))
    except ValueError as error:
        if os.environ.get("COLDTUNE_DEBUG"):
            raise
        complain(error)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("\ninterrupted")
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="coldtune", description=coldtune.__doc__)
    top.add_argument("--version", action="version", version=f"coldtune {coldtune.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top
