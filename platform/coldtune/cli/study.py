"""`coldtune study`: preview, list, look at, promote, resume."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coldtune.cli import promote
from coldtune.cli.common import Commands, home_of, study_folder, with_home


def add(commands: Commands) -> None:
    """Add the command."""
    study = commands.add_parser("study", help="preview, list, look at, promote, resume")
    verbs = study.add_subparsers(required=True, metavar="VERB")
    ahead = with_home(verbs.add_parser("preview", help="a space as a table, ten of its points, and what it would cost"))
    ahead.add_argument("space", type=Path, metavar="FILE", help="such as search_spaces/blur.yaml")
    ahead.add_argument("--dataset", metavar="NAME", help="digits, mnist, cifar10, ... (default: the base's)")
    ahead.add_argument("--data-dir", type=Path, metavar="PATH", help="where the dataset's published files lie")
    ahead.add_argument("--trials", type=int, metavar="N", help="to estimate the cost of (default 12, or all of a grid)")
    ahead.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="settings")
    ahead.set_defaults(call=_preview)
    with_home(verbs.add_parser("list", help="the studies of a home")).set_defaults(call=_list)
    show = with_home(verbs.add_parser("show", help="a study's table of trials, and where its best one lies"))
    show.add_argument("name")
    show.set_defaults(call=_show)
    promote.add(verbs)
    resume = with_home(verbs.add_parser("resume", help="go on with a study as it was last started"))
    resume.add_argument("name")
    resume.add_argument("--trials", type=int, metavar="N", help="trials in all (default: as last time)")
    resume.add_argument("--join", action="store_true", help="beside the driver that runs it, where there is one")
    resume.set_defaults(call=_resume)


def _preview(options: argparse.Namespace, console: Console) -> int:
    import torch

    from coldtune.studies.estimate.cost import estimate_cost
    from coldtune.studies.estimate.preview import likely, preview
    from coldtune.studies.estimate.timing import time_base
    from coldtune.studies.preflight.capacity import plan_resources
    from coldtune.studies.preflight.checks import check_study
    from coldtune.studies.preflight.options import RunOptions
    from coldtune.studies.spec.build import build_spec

    spec = build_spec("preview", options.space, dataset=options.dataset, settings=options.settings)
    run = RunOptions(home=home_of(options), command="", trials=options.trials, data_dir=options.data_dir)
    checked = check_study(spec, run)
    space, gpus = checked.space, torch.cuda.device_count()
    resources = plan_resources(
        [{"CPU": float(os.cpu_count() or 1), "GPU": float(gpus)}], 1, float(gpus > 0), checked.trials
    )
    torch.set_num_threads(resources.cpus)
    base = space.resolve(space.first)
    with console.status("timing a few steps of the base"):
        timing = time_base(
            base, checked.dataset, next(iter(checked.sources.values()), None), device="cuda" if gpus else "cpu"
        )
    whole = estimate_cost(likely(space, spec, checked.trials), space, checked.dataset, checked.sources, timing)
    objectives = " and ".join(objective.metric.upper() for objective in spec.objectives)
    about = [
        f"{options.space}: around {space.config.base if isinstance(space.config.base, str) else 'an inline base'}, "
        f"searched by {spec.search.algorithm.upper()}, judged by {objectives}",
    ]
    console.print(preview(space, checked.protocol, timing, whole, resources.count, about), highlight=False)
    return 0


def _list(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.spec.folder import studies
    from coldtune.studies.trials.reading import summary

    home = home_of(options)
    table = Table(
        "study", "dataset", "ended", "of", "best", "run now by", title=str(home), title_justify="left", box=None
    )
    for folder in studies(home):
        try:
            table.add_row(*summary(folder))
        except ValueError as error:  # one that cannot be read must not hide the others
            table.add_row(folder.name, "-", "-", "-", Text(str(error).splitlines()[0], style="red"))
    console.print(table, highlight=False)
    return 0


def _show(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.progress.closing import print_table
    from coldtune.studies.trials.reading import read

    print_table(console, read(study_folder(home_of(options), options.name)))
    return 0


def _resume(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.preflight.options import RunOptions
    from coldtune.studies.run import run_study

    folder = study_folder(home_of(options), options.name)
    run = RunOptions.from_start(
        folder.home, folder.start(), name=folder.name, resume=True, trials=options.trials, join=options.join
    )
    return run_study(folder.spec(), run, console)
