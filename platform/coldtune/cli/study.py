"""`coldtune study`: preview and run a search space; list, show, promote and resume studies."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coldtune.cli import promote, run
from coldtune.cli.common import Commands, add_home_flag, find_home, find_study
from coldtune.cli.entry import describe, print_error

if TYPE_CHECKING:
    from coldtune.studies.spec.replicates import Racing


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("study", help="preview or run a search space, list, show, promote or resume studies")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    preview = add_home_flag(
        verbs.add_parser("preview", help="show a search space as a table, ten of its points, and a cost estimate")
    )
    preview.add_argument("space", type=Path, metavar="FILE", help="the space, such as search_spaces/blur.yaml")
    preview.add_argument("--dataset", metavar="NAME", help="digits, mnist, cifar10, celeba, afhq or folder")
    preview.add_argument("--data-dir", type=Path, metavar="PATH", help="folder with the dataset's published files")
    preview.add_argument(
        "--trials", type=int, metavar="N", help="trials for the cost estimate (default 12, or all points of a grid)"
    )
    preview.add_argument(
        "--replicates",
        metavar="K",
        help="trainings of each setting, or a race such as 2..10 (default: as the space says, else 1)",
    )
    preview.add_argument(
        "--confirm",
        type=int,
        default=0,
        metavar="K",
        help="also estimate the cost of confirming the best settings of a search by K new trainings each (default 0)",
    )
    preview.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="change the base, search or pruning, for example training.steps=400",
    )
    preview.set_defaults(call=_preview)
    run.add(verbs)
    add_home_flag(verbs.add_parser("list", help="list the studies of a home")).set_defaults(call=_list)
    show = add_home_flag(
        verbs.add_parser("show", help="show a study's table of trials, and the files of its best trial")
    )
    show.add_argument("name", help="name of the study")
    show.add_argument(
        "--equal-within",
        type=float,
        metavar="D",
        help="a difference of the objective that does not matter, so that settings can be practically equal (default: "
        "comparisons.equal_within of the space)",
    )
    show.set_defaults(call=_show)
    promote.add(verbs)
    resume = add_home_flag(verbs.add_parser("resume", help="resume a study with the options of its last start"))
    resume.add_argument("name", help="name of the study")
    resume.add_argument("--trials", type=int, metavar="N", help="trials in all (default: as in the last start)")
    resume.add_argument("--replicates", metavar="K", help="trainings of each setting (default: as in the last start)")
    resume.add_argument(
        "--confirm",
        type=int,
        metavar="K",
        help="new trainings of the best settings of a search, judged on test (default: as in the last start)",
    )
    resume.add_argument(
        "--join", action="store_true", help="if another driver already runs the study, run trials beside it"
    )
    resume.add_argument("--retry-failed", action="store_true", help="ask every failed trial of the study again, once")
    resume.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="file with the passwords of the study's database and MLflow server (default: that of the last start, and "
        "PGPASSWORD, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)",
    )
    resume.set_defaults(call=_resume)


def _preview(options: argparse.Namespace, console: Console) -> int:
    import torch

    from coldtune.studies.designs.confirm import MOST_CONFIRMED
    from coldtune.studies.designs.describe import describe_design
    from coldtune.studies.designs.pilot import describe_detectable, find_pilot
    from coldtune.studies.estimate.cost import count_trainings, estimate_confirmation, estimate_cost
    from coldtune.studies.estimate.preview import MOST_DRAWN, likely, preview
    from coldtune.studies.estimate.timing import time_base
    from coldtune.studies.preflight.capacity import plan_resources
    from coldtune.studies.preflight.checks import check_study
    from coldtune.studies.preflight.options import RunOptions
    from coldtune.studies.spec.build import build_spec
    from coldtune.training.device import use_threads

    spec = build_spec("preview", options.space, dataset=options.dataset, settings=options.settings)
    run_options = RunOptions(
        home=find_home(options),
        command="",
        trials=options.trials,
        replicates=_read_replicates(options),
        confirm=options.confirm,
        data_dir=options.data_dir,
    )
    checked = check_study(spec, run_options, runs=False)
    space, gpus = checked.space, torch.cuda.device_count()
    machine = {"CPU": float(os.cpu_count() or 1), "GPU": float(gpus)}
    resources = plan_resources([machine], 1, float(gpus > 0), checked.trials * checked.replicates)
    use_threads(1)
    base = space.resolve(space.first)
    with console.status("timing a few steps of the base"):
        timing = time_base(
            base, checked.dataset, next(iter(checked.sources.values()), None), device="cuda" if gpus else "cpu"
        )
    with console.status("drawing points of the space"):
        points = likely(space, spec, checked.trials)
        estimate = estimate_cost(points, space, checked.dataset, checked.sources, timing, replicates=checked.replicates)
        if len(points) == MOST_DRAWN:  # fewer points are all that there are
            shared = count_trainings(space, checked.dataset, checked.sources) is not None
            estimate = estimate.scale_to(checked.trials, shared=shared)
        costs = [estimate.describe(resources.count)]
        if options.confirm:
            study = (space, checked.dataset, checked.sources)
            confirmation = estimate_confirmation(points, *study, timing, options.confirm, MOST_CONFIRMED)
            costs.append(f"the confirmation: {confirmation.describe(resources.count)}")
    objectives = " and ".join(objective.metric.upper() for objective in spec.objectives)
    asked = "each arm is tried" if spec.design else f"searched by {spec.search.algorithm.upper()}"
    about = [
        f"{options.space}: around {space.config.base if isinstance(space.config.base, str) else 'an inline base'}, "
        f"{asked}, judged by {objectives}",
    ]
    if spec.design is not None:
        about += [f"{head}: {text}" for head, text in describe_design(spec)]
        pilot = find_pilot(run_options.home, spec, space, checked.protocol)
        about += describe_detectable(spec, pilot, checked.replicates)
    if (race := checked.spec.race) is not None:
        about.append(
            f"a race with {race.first} to {race.most} trainings each. The estimate is that of {race.most} each"
        )
    console.print(preview(space, checked.protocol, timing, costs, about), highlight=False)
    return 0


def _read_replicates(options: argparse.Namespace) -> int | Racing | None:
    from coldtune.studies.spec.replicates import parse_replicates

    return None if options.replicates is None else parse_replicates("--replicates", options.replicates)


def _list(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.spec.folder import studies
    from coldtune.studies.trials.reading import summary

    home = find_home(options)
    table = Table(
        "study", "dataset", "ended", "of", "best", "run now by", title=Text(str(home)), title_justify="left", box=None
    )
    problems = []
    for folder in studies(home):
        try:
            table.add_row(*map(Text, summary(folder)))
        except (ValueError, OSError) as error:  # an unreadable study must not hide the others
            table.add_row(Text(folder.name), "-", "-", "-", Text("cannot be read", style="red"))
            problems.append(f"study {folder.name}: {describe(error)}")
    console.print(table, highlight=False)
    for problem in problems:
        print_error(problem)
    return 1 if problems else 0


def _show(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.progress.results import print_results
    from coldtune.studies.progress.table import build_table
    from coldtune.studies.spec.comparisons import check_equal_within
    from coldtune.studies.trials.reading import read_study

    if options.equal_within is not None:
        check_equal_within(options.equal_within)
    reader = read_study(find_study(find_home(options), options.name))
    print_results(console, reader, build_table(reader, equal_within=options.equal_within))
    return 0


def _resume(options: argparse.Namespace, console: Console) -> int:
    from coldtune.metrics.extractors import check_origin
    from coldtune.readback import checked
    from coldtune.studies.preflight.options import RunOptions
    from coldtune.studies.run import run_study
    from coldtune.studies.spec.folder import START_FILE
    from coldtune.studies.storage.backends import load_started_study
    from coldtune.studies.trials.reading import check_unchanged

    folder = find_study(find_home(options), options.name)
    file = options.password_file
    start = folder.start() | {"storage": folder.storage(file), "tracking_uri": folder.tracking_uri(file)}
    if file is not None:
        start["password_file"] = str(file.expanduser().absolute())
    if options.confirm is not None:
        start["confirm"] = options.confirm
    given = {
        "name": folder.name,
        "resume": True,
        "by_name": True,
        "trials": options.trials,
        "replicates": _read_replicates(options),
        "join": options.join,
        "retry_failed": options.retry_failed,
    }
    run_options = checked(folder.path / START_FILE, lambda: RunOptions.from_start(folder.home, start, **given))
    spec = folder.spec()
    extractor = str(spec.base.get("protocol", {}).get("extractor", ""))
    check_origin(extractor, f"{folder.path / 'spec.yaml'}", "start its job again, which resumes it too")
    check_unchanged(load_started_study(folder.path, folder.name, start["storage"]), spec, folder)
    return run_study(spec, run_options, console)
