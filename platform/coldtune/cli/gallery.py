"""`coldtune gallery`: pictures of every degradation and sampler."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from coldtune.cli.common import Commands, home_of, with_home


def add(commands: Commands) -> None:
    """Add the command."""
    parser = with_home(commands.add_parser("gallery", help="pictures of every degradation and sampler"))
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: gallery in the home)")
    parser.add_argument(
        "--dataset",
        nargs="+",
        metavar="NAME",
        help="datasets, shown at 32 px, and `photos`, two of scikit-learn's at 128 px (default: digits photos)",
    )
    parser.set_defaults(call=_make)


def _make(options: argparse.Namespace, console: Console) -> int:
    from coldtune.reports.gallery.images import DEFAULT, load_source, make_gallery

    home = home_of(options)
    sources = [load_source(name, home) for name in options.dataset or DEFAULT]
    index = make_gallery(sources, options.out.expanduser().absolute() if options.out else home / "gallery")
    console.print(str(index), highlight=False, soft_wrap=True)
    return 0
