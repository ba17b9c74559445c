"""The `coldtune` command: studies, datasets, presets and records, from a terminal."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

import coldtune
from coldtune.studies import cluster
from coldtune.studies.job import complain


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0, or 2 with one line for a user's error."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
    try:
        sys.exit(options.call(options, console))
    except ValueError as error:
        if os.environ.get("COLDTUNE_DEBUG"):
            raise
        complain(error)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="coldtune", description=coldtune.__doc__)
    top.add_argument("--version", action="version", version=f"coldtune {coldtune.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _study(commands.add_parser("study", help="list, look at, resume"))
    _data(commands.add_parser("data", help="prepare and verify datasets"))
    presets = commands.add_parser("presets", help="list the named base configurations")
    presets.set_defaults(call=_presets_list)
    _gallery(commands.add_parser("gallery", help="pictures of every degradation and sampler"))
    _tracking(commands.add_parser("tracking", help="deliver records that wait"))
    return top


def _home(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--home", type=Path, metavar="DIR", help="default $COLDTUNE_HOME or ./runs")
    return parser


def _study(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _home(verbs.add_parser("list", help="the studies of a home")).set_defaults(call=_study_list)
    show = _home(verbs.add_parser("show", help="a study's table of trials, and where its best one lies"))
    show.add_argument("name")
    show.set_defaults(call=_study_show)
    resume = _home(verbs.add_parser("resume", help="go on with a study as it was last started"))
    resume.add_argument("name")
    resume.add_argument("--trials", type=int, metavar="N", help="trials in all (default: as last time)")
    resume.set_defaults(call=_study_resume)


def _data(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    prepare = _home(verbs.add_parser("prepare", help="download or read, resize, split and fingerprint"))
    prepare.add_argument("name")
    prepare.add_argument("--image-size", type=int, default=16, metavar="PX")
    prepare.add_argument("--resize", default="bilinear")
    prepare.add_argument("--data-dir", type=Path, metavar="PATH", help="where the published files lie")
    prepare.set_defaults(call=_data_prepare)
    verify = _home(verbs.add_parser("verify", help="read every pixel and compare with the manifest"))
    verify.add_argument("name", help="a dataset's name, or the path of a prepared folder")
    verify.set_defaults(call=_data_verify)


def _gallery(parser: argparse.ArgumentParser) -> None:
    _home(parser).add_argument("--out", type=Path, metavar="DIR", help="where to write (default: gallery in the home)")
    parser.add_argument(
        "--dataset",
        nargs="+",
        metavar="NAME",
        help="datasets, shown at 32 px, and `photos`, two of scikit-learn's at 128 px (default: digits photos)",
    )
    parser.set_defaults(call=_gallery_make)


def _tracking(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    sync = _home(verbs.add_parser("sync", help="deliver what an outage or a killed driver left in the spools"))
    sync.add_argument("--tracking-uri", metavar="URI", help="default: that of each study")
    sync.set_defaults(call=_tracking_sync)


def _resolved_home(options: argparse.Namespace) -> Path:
    return options.home.expanduser().absolute() if options.home else cluster.default_home()


def _folder(options: argparse.Namespace) -> Any:
    from coldtune.studies.folder import StudyFolder, studies

    home = _resolved_home(options)
    folder = StudyFolder(home, options.name)
    if not folder.exists:
        there = ", ".join(study.name for study in studies(home)) or "none"
        raise ValueError(f"study {options.name}: not in {home} (there are: {there})")
    return folder


def _study_list(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.folder import studies
    from coldtune.studies.view import summary

    home = _resolved_home(options)
    table = Table("study", "dataset", "ended", "of", "best", title=str(home), title_justify="left", box=None)
    for folder in studies(home):
        try:
            table.add_row(*summary(folder))
        except ValueError as error:  # one that cannot be read must not hide the others
            table.add_row(folder.name, "-", "-", "-", Text(str(error).splitlines()[0], style="red"))
    console.print(table, highlight=False)
    return 0


def _study_show(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.show import print_table
    from coldtune.studies.view import read

    print_table(console, read(_folder(options)))
    return 0


def _study_resume(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.run import RunOptions, run_study

    folder = _folder(options)
    start = folder.start()
    run = RunOptions(
        home=folder.home,
        command=start["command"],
        trials=options.trials,
        name=folder.name,
        resume=True,
        data_dir=Path(start["data_dir"]) if start["data_dir"] else None,
        tracking_uri=start["tracking_uri"],
        storage=start["storage"],
        workers=start["workers"],
        gpus_per_trial=start["gpus_per_trial"],
    )
    return run_study(folder.spec(), run, console)


def _data_prepare(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data import prepare

    config = {"name": options.name, "image_size": options.image_size, "resize": options.resize}
    dataset = prepare(config, _resolved_home(options), options.data_dir)
    console.print(f"{dataset.path}\n  fingerprint {dataset.fingerprint}", highlight=False, soft_wrap=True)
    for split, size in dataset.sizes.items():
        console.print(f"  {split:<11} {size:>7,} images {'x'.join(map(str, dataset.image_shape))}", highlight=False)
    return 0


def _data_verify(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data import prepared, verify

    paths = [Path(options.name)] if "/" in options.name else prepared(_resolved_home(options), options.name)
    if not paths:
        raise ValueError(f"data verify {options.name}: nothing prepared under that name in {_resolved_home(options)}")
    reports = [verify(path) for path in paths]
    for report in reports:
        sizes = ", ".join(f"{split} {size:,}" for split, size in report.sizes.items())
        console.print(f"{report.path}: {sizes or 'unreadable'}", highlight=False, soft_wrap=True)
        for problem in report.problems or ("as its manifest says",):
            console.print(f"  {problem}", highlight=False, soft_wrap=True)
    return 1 if any(report.problems for report in reports) else 0


def _presets_list(options: argparse.Namespace, console: Console) -> int:
    from coldtune import presets

    table = Table("name", "degradation", "T", "leftover", "table", "what it is", box=None, pad_edge=False)
    for preset in map(presets.summary, presets.names()):
        leftover = "-" if preset.leftover is None else f"{preset.leftover:.2g}"
        place = ", ".join(preset.tables) or "-"
        table.add_row(preset.name, preset.kind, str(preset.steps), leftover, place, preset.title)
    console.print(table, highlight=False)
    return 0


def _gallery_make(options: argparse.Namespace, console: Console) -> int:
    from coldtune.reports.gallery import DEFAULT, load_source, make_gallery

    home = _resolved_home(options)
    sources = [load_source(name, home) for name in options.dataset or DEFAULT]
    index = make_gallery(sources, options.out.expanduser().absolute() if options.out else home / "gallery")
    console.print(str(index), highlight=False, soft_wrap=True)
    return 0


def _tracking_sync(options: argparse.Namespace, console: Console) -> int:
    from coldtune import tracking
    from coldtune.studies.folder import studies
    from coldtune.studies.run import EXPERIMENT

    home = _resolved_home(options)
    left = 0
    for folder in studies(home):
        uri = options.tracking_uri or folder.start()["tracking_uri"] or tracking.default_uri(home)
        drained = tracking.drain(folder.spool, tracking.prepare(uri, EXPERIMENT, home / "artifacts"))
        left += drained.pending
        state = f"{drained.pending:,} bytes wait: {drained.error}" if drained.pending else "all delivered"
        console.print(f"{folder.name}: {state}", highlight=False)
    return 1 if left else 0
