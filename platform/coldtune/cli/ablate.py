"""`coldtune ablate`: take the best setting of a search back to its base, one change at a time."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from coldtune.cli import entry, job
from coldtune.cli.common import Commands, check_threads, find_home, find_study

if TYPE_CHECKING:
    from coldtune.studies.spec.folder import StudyFolder

DESCRIPTION = """
Which changes of a search's best setting matter? Take it back to the base, one change at a time, and try each change
alone on the base. The order is that of the space, or of --order, and is printed before anything is trained. Trainings
that the store already has are not repeated. The ablation is a study of its own, and the same command resumes it.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "ablate",
        help="take the best setting of a search back to its base, one change at a time",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("search", metavar="STUDY", help="name of a finished search")
    parser.add_argument(
        "--order", metavar="KEY,KEY", help="keys to take back first, the others follow in the order of the space"
    )
    parser.add_argument("--trial", type=int, metavar="N", help="number of the trial to take back (default: the best)")
    job.add_common_flags(parser, "change every trial, for example protocol.split=test")
    parser.set_defaults(call=_ablate, threads=None)


def _ablate(options: argparse.Namespace, console: Console) -> int:
    return entry.run(lambda: _run(options, console), "interrupted before anything was spent")


def _run(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.designs.ablate import build_ablation
    from coldtune.studies.preflight.options import RunOptions, read_replicates
    from coldtune.studies.run import run_study
    from coldtune.studies.trials.reading import read_study

    home = find_home(options)
    folder = find_study(home, options.search)
    order = [key.strip() for key in (options.order or "").split(",") if key.strip()]
    spec = build_ablation(
        read_study(folder),
        folder,
        trial=options.trial,
        order=order,
        seed=options.seed,
        settings=options.settings,
        replicated=read_replicates("--replicates", options.replicates) not in (None, 1),
    )
    changes: dict[str, Any] = {"imports": tuple(sorted(set(options.imports)))}
    if options.threads is not None:  # the default is that of the search, whose trainings are then found
        changes["threads"] = check_threads(options.threads)
    # What is not given is as in the last start of the search, so that its finished work is found.
    run_options = RunOptions.from_flags(
        options, home=home, command=job.command_line(), default_trials=1, **_options_of_search(folder, options)
    )
    return run_study(spec.model_copy(update=changes), run_options, console)


def _options_of_search(folder: StudyFolder, options: argparse.Namespace) -> dict[str, Any]:
    """Return the places and the resources with which the search was last started."""
    start = folder.start()
    kept: dict[str, Any] = {name: start[name] for name in ("store", "workers", "gpus_per_trial") if start.get(name)}
    kept |= {"password_file": Path(start["password_file"])} if start.get("password_file") else {}
    kept |= {"data_dir": place} if (place := folder.data_dir()) is not None else {}
    addresses = {
        "storage": folder.storage(options.password_file),
        "tracking_uri": folder.tracking_uri(options.password_file),
    }
    return kept | {name: address for name, address in addresses.items() if address}
