"""`coldtune data`: prepare, list and verify datasets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from coldtune.cli.common import Commands, add_home_flag, find_home
from coldtune.cli.entry import describe, print_error
from coldtune.cli.json_output import add_json_flag, print_json
from coldtune.cli.tables import ListTable
from coldtune.places import check_folder


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("data", help="prepare, list and verify datasets")
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
    listed = add_home_flag(verbs.add_parser("list", help="list the datasets that a home has prepared"))
    add_json_flag(listed).set_defaults(call=_list)
    verify = add_home_flag(verbs.add_parser("verify", help="read every pixel and compare with the manifest"))
    verify.add_argument("name", help="name of a dataset, or path of a prepared folder")
    add_json_flag(verify).set_defaults(call=_verify)


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


def _list(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data import Dataset, prepared

    home = find_home(options)
    records: list[dict[str, Any]] = []
    for path in prepared(home):
        try:
            dataset = Dataset.open(path)
        except (ValueError, OSError) as error:  # a damaged dataset must not hide the others
            records.append({"path": path, "error": describe(error)})
            continue
        records.append(
            {
                "name": dataset.name,
                "path": path,
                "image_shape": dataset.image_shape,
                "resize": dataset.manifest.resize,
                "classes": dataset.num_classes,
                "sizes": dataset.sizes,
                "fingerprint": dataset.fingerprint,
            }
        )
    if options.json:
        print_json(records)
    else:
        console.print(_dataset_table(home, records), highlight=False)
    problems = [record["error"] for record in records if "error" in record]
    for problem in problems:
        print_error(problem)
    return 1 if problems else 0


def _dataset_table(home: Path, records: Sequence[Mapping[str, Any]]) -> ListTable:
    table = ListTable(
        str(home / "data"), ("dataset", "images", "resize"), ("classes",), ("splits", "fingerprint", "in")
    )
    for record in records:
        if "error" in record:
            table.add_row("-", "-", "-", "-", Text("cannot be read", style="red"), "-", record["path"].name)
            continue
        shape = "x".join(map(str, record["image_shape"]))
        sizes = ", ".join(f"{split} {size:,}" for split, size in record["sizes"].items())
        cells = (record["name"], shape, record["resize"], str(record["classes"]), sizes)
        table.add_row(*cells, record["fingerprint"][:12], record["path"].name)
    return table


def _verify(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data import prepared, verify

    home = find_home(options)
    paths = [Path(options.name)] if "/" in options.name else prepared(home, options.name)
    if not paths:
        raise ValueError(f"data verify {options.name}: no dataset of this name is prepared in {home}")
    reports = [verify(path) for path in paths]
    failed = any(report.problems for report in reports)
    if options.json:
        print_json([asdict(report) for report in reports])
        return 1 if failed else 0
    for report in reports:
        sizes = ", ".join(f"{split} {size:,}" for split, size in report.sizes.items())
        console.print(f"{report.path}: {sizes or 'unreadable'}", highlight=False, soft_wrap=True)
        for problem in report.problems or ("as its manifest says",):
            console.print(f"  {problem}", highlight=False, soft_wrap=True)
    return 1 if failed else 0
