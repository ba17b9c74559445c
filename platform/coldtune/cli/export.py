"""`coldtune export`: write the network of a finished trial for diffusers."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console
from rich.text import Text

from coldtune.cli.common import Commands
from coldtune.cli.finished_run import RUN, add_run_flags, find_finished
from coldtune.cli.outputs import new_folder

DESCRIPTION = f"""
Write the network of a finished trial into a folder: its averaged weights (safetensors) and a config.json, which
diffusers.UNet2DModel.from_pretrained(DIR) loads, and a README.md, which says how to sample with it.
{RUN}"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="write the network of a finished trial for diffusers",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_run_flags(parser)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new or empty folder")
    parser.set_defaults(call=_export)


def _export(options: argparse.Namespace, console: Console) -> int:
    folder = new_folder(options.folder, "export")

    from coldtune.stages.export import export

    run, store, _ = find_finished(options)
    if missing := export(run, store, folder):
        console.print(Text(f"README.md lists no values: {missing}"), soft_wrap=True)
    for name in sorted(os.listdir(folder)):
        console.print(Text(str(folder / name)), soft_wrap=True)
    return 0
