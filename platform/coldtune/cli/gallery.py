"""`coldtune gallery`: draw pictures of every degradation and sampler."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from coldtune.cli.common import Commands, add_home_flag, find_home
from coldtune.environment import expand_path
from coldtune.places import check_folder


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_home_flag(commands.add_parser("gallery", help="draw pictures of every degradation and sampler"))
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the pictures (default: gallery in the home)")
    parser.add_argument(
        "--dataset",
        nargs="+",
        metavar="NAME",
        help="datasets (at 32 px) and `photos` (two photos of scikit-learn at 128 px) to use (default: digits photos)",
    )
    parser.add_argument("--data-dir", type=Path, metavar="PATH", help="folder with the datasets' published files")
    parser.set_defaults(call=_make)


def _make(options: argparse.Namespace, console: Console) -> int:
    from coldtune.reports.gallery.images import DEFAULT, load_source, make_gallery

    home = find_home(options)
    folder = expand_path(options.out, "--out") if options.out else home / "gallery"
    flag = "--out" if options.out else "--home"
    check_folder(folder, flag, write=False)
    sources = [load_source(name, home, options.data_dir) for name in options.dataset or DEFAULT]
    check_folder(folder, flag)
    index = make_gallery(sources, folder)
    console.print(str(index), highlight=False, soft_wrap=True)
    return 0
