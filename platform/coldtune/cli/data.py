"""`coldtune data`: prepare and verify datasets."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from coldtune.cli.common import Commands, home_of, with_home


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("data", help="prepare and verify datasets")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    prepare = with_home(verbs.add_parser("prepare", help="download or read, resize, split and fingerprint"))
    prepare.add_argument("name")
    prepare.add_argument("--image-size", type=int, default=16, metavar="PX")
    prepare.add_argument("--resize", default="bilinear")
    prepare.add_argument("--data-dir", type=Path, metavar="PATH", help="where the published files lie")
    prepare.set_defaults(call=_prepare)
    verify = with_home(verbs.add_parser("verify", help="read every pixel and compare with the manifest"))
    verify.add_argument("name", help="a dataset's name, or the path of a prepared folder")
    verify.set_defaults(call=_verify)


def _prepare(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data import prepare

    config = {"name": options.name, "image_size": options.image_size, "resize": options.resize}
    dataset = prepare(config, home_of(options), options.data_dir)
    console.print(f"{dataset.path}\n  fingerprint {dataset.fingerprint}", highlight=False, soft_wrap=True)
    for split, size in dataset.sizes.items():
        console.print(f"  {split:<11} {size:>7,} images {'x'.join(map(str, dataset.image_shape))}", highlight=False)
    return 0


def _verify(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data import prepared, verify

    home = home_of(options)
    paths = [Path(options.name)] if "/" in options.name else prepared(home, options.name)
    if not paths:
        raise ValueError(f"data verify {options.name}: nothing prepared under that name in {home}")
    reports = [verify(path) for path in paths]
    for report in reports:
        sizes = ", ".join(f"{split} {size:,}" for split, size in report.sizes.items())
        console.print(f"{report.path}: {sizes or 'unreadable'}", highlight=False, soft_wrap=True)
        for problem in report.problems or ("as its manifest says",):
            console.print(f"  {problem}", highlight=False, soft_wrap=True)
    return 1 if any(report.problems for report in reports) else 0
