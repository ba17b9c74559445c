"""`coldtune study preview`: a search space as a table, ten of its points, and the cost of a study."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from coldtune.cli import run
from coldtune.cli.common import Commands, add_home_flag, find_home

if TYPE_CHECKING:
    from coldtune.studies.estimate.timing import Timing
    from coldtune.studies.preflight.checks import Checked


def add(verbs: Commands) -> None:
    """Add the verb to `coldtune study`."""
    preview = add_home_flag(
        verbs.add_parser("preview", help="show a search space as a table, ten of its points, and a cost estimate")
    )
    preview.add_argument("space", metavar="SPACE", help="a search space: a YAML file, or the name of a shipped space")
    preview.add_argument("--dataset", metavar="NAME", help="digits, mnist, cifar10, celeba, afhq, folder or parquet")
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


def _preview(options: argparse.Namespace, console: Console) -> int:
    import torch

    from coldtune.studies.estimate.preview import preview
    from coldtune.studies.estimate.timing import time_base
    from coldtune.studies.preflight.checks import check_study
    from coldtune.studies.preflight.options import RunOptions, read_replicates
    from coldtune.studies.spec.build import build_spec
    from coldtune.training.device import use_threads

    space_file = run.find_space(options.space, "study preview")
    spec = build_spec("preview", space_file, dataset=options.dataset, settings=options.settings)
    run_options = RunOptions(
        home=find_home(options),
        command="",
        trials=options.trials,
        replicates=read_replicates("--replicates", options.replicates),
        confirm=options.confirm,
        data_dir=options.data_dir,
    )
    checked = check_study(spec, run_options, runs=False)
    use_threads(1)
    base = checked.space.resolve(checked.space.first)
    with console.status("timing a few steps of the base"):
        device = "cuda" if torch.cuda.device_count() else "cpu"
        timing = time_base(base, checked.dataset, next(iter(checked.sources.values()), None), device=device)
    with console.status("drawing points of the space"):
        costs = list(_describe_costs(checked, timing, options.confirm))
    about = list(_describe_study(checked, space_file))
    console.print(preview(checked.space, checked.protocol, timing, costs, about), highlight=False)
    return 0


def _describe_costs(checked: Checked, timing: Timing, confirm: int) -> Iterator[str]:
    """Yield the cost of the study, and that of its confirmation by `confirm` trainings, if that is not 0."""
    import torch

    from coldtune.studies.designs.confirm import MOST_CONFIRMED
    from coldtune.studies.estimate.cost import count_trainings, estimate_confirmation, estimate_cost
    from coldtune.studies.estimate.disk import describe_snapshots
    from coldtune.studies.estimate.preview import MOST_DRAWN, likely
    from coldtune.studies.preflight.capacity import plan_resources

    gpus = torch.cuda.device_count()
    machine = {"CPU": float(os.cpu_count() or 1), "GPU": float(gpus)}
    slots = plan_resources([machine], 1, float(gpus > 0), checked.trials * checked.replicates).count
    study = (checked.space, checked.dataset, checked.sources)
    points = likely(checked.space, checked.spec, checked.trials)
    estimate = estimate_cost(points, *study, timing, replicates=checked.replicates)
    if len(points) == MOST_DRAWN:  # fewer points are all that there are
        estimate = estimate.scale_to(checked.trials, shared=count_trainings(*study) is not None)
    base = checked.space.resolve(checked.space.first)
    if kept := describe_snapshots(base, estimate.trainings, checked.dataset.image_shape):
        yield kept
    yield estimate.describe(slots)
    if confirm:
        confirmation = estimate_confirmation(points, *study, timing, confirm, MOST_CONFIRMED)
        yield f"the confirmation: {confirmation.describe(slots)}"


def _describe_study(checked: Checked, space_file: Path) -> Iterator[str]:
    """Yield lines about the space: its base, its search or design, and its race."""
    from coldtune.studies.designs.describe import describe_design
    from coldtune.studies.designs.pilot import describe_detectable, find_pilot

    spec, space = checked.spec, checked.space
    objectives = " and ".join(objective.metric.upper() for objective in spec.objectives)
    asked = "each arm is tried" if spec.design else f"searched by {spec.search.algorithm.upper()}"
    around = space.config.base if isinstance(space.config.base, str) else "an inline base"
    yield f"{space_file}: around {around}, {asked}, judged by {objectives}"
    if spec.design is not None:
        yield from (f"{head}: {text}" for head, text in describe_design(spec))
        pilot = find_pilot(checked.options.home, spec, space, checked.protocol)
        yield from describe_detectable(spec, pilot, checked.replicates)
    if (race := spec.race) is not None:
        yield f"a race with {race.first} to {race.most} trainings each. The estimate is that of {race.most} each"
