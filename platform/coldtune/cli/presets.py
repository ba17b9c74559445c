"""`coldtune presets`: list the named base configurations."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from coldtune.cli.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    commands.add_parser("presets", help="list the named base configurations").set_defaults(call=_list)


def _list(options: argparse.Namespace, console: Console) -> int:
    from coldtune import presets

    table = Table("name", "degradation", "T", "leftover", "table", "what it is", box=None, pad_edge=False)
    for preset in map(presets.summary, presets.names()):
        leftover = "-" if preset.leftover is None else f"{preset.leftover:.2g}"
        place = ", ".join(preset.tables) or "-"
        table.add_row(preset.name, preset.kind, str(preset.steps), leftover, place, preset.title)
    console.print(table, highlight=False)
    return 0
