"""`coldtune data`: prepare and verify datasets."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from coldtune.cli.common import Commands, add_home_flag, find_home
from coldtune.places import check_folder


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("data", help="prepare and verify datasets")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    prepare = add_home_flag(verbs.add_parser("prepare", help="download or read, resize, split and fingerprint"))
    prepare.add_argument("name", help="digits, mnist, cifar10, celeba, afhq or folder")
    prepare.add_argument("--image-size", type=int, default=16, metavar="PX", help="width and height (default 16)")
    prepare.add_argument("--resize", default="bilinear", help="filter that resizes images (default: bilinear)")
    prepare.add_argument(
        "--data-dir",
        type=Path,
        metavar="PATH",
        help="folder with the published files, or with your own images for `folder`",
    )
    prepare.set_defaults(call=_prepare)
    verify = add_home_flag(verbs.add_parser("verify", help="read every pixel and compare with the manifest"))
    verify.add_argument("name", help="name of a dataset, or path of a prepared folder")
    verify.set_defaults(call=_verify)


def _prepare(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data import prepare

    home = find_home(options)
    check_folder(home / "data", "--home", write=False)
    config = {"name": options.name, "image_size": options.image_size, "resize": options.resize}
    dataset = prepare(config, home, options.data_dir)
    console.print(f"{dataset.path}\n  fingerprint {dataset.fingerprint}", highlight=False, soft_wrap=True)
    for split, size in dataset.sizes.items():
        console.print(f"  {split:<11} {size:>7,} images {'x'.join(map(str, dataset.image_shape))}", highlight=False)
    return 0


def _verify(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data import prepared, verify

    home = find_home(options)
    paths = [Path(options.name)] if "/" in options.name else prepared(home, options.name)
    if not paths:
        raise ValueError(f"data verify {options.name}: no dataset of this name is prepared in {home}")
    reports = [verify(path) for path in paths]
    for report in reports:
        sizes = ", ".join(f"{split} {size:,}" for split, size in report.sizes.items())
        console.print(f"{report.path}: {sizes or 'unreadable'}", highlight=False, soft_wrap=True)
        for problem in report.problems or ("as its manifest says",):
            console.print(f"  {problem}", highlight=False, soft_wrap=True)
    return 1 if any(report.problems for report in reports) else 0
