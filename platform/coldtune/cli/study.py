"""`coldtune study`: preview and run a search space; list, show, promote and resume studies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from coldtune.cli import preview, promote, run
from coldtune.cli.common import Commands, add_home_flag, find_home, find_study
from coldtune.cli.entry import describe, print_error
from coldtune.cli.json_output import add_json_flag, print_json
from coldtune.cli.tables import ListTable

if TYPE_CHECKING:
    from coldtune.studies.progress.listing import StudySummary
    from coldtune.studies.spec.folder import StudyFolder
    from coldtune.studies.trials.reading import StudyReader

_HEADS = ("study", "dataset", "ended", "of", "best", "last change", "states", "varies", "run now by")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("study", help="preview or run a search space, list, show, promote or resume studies")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    preview.add(verbs)
    run.add(verbs)
    _add_list(verbs)
    _add_show(verbs)
    promote.add(verbs)
    _add_resume(verbs)


def _add_list(verbs: Commands) -> None:
    listed = add_home_flag(
        verbs.add_parser("list", help="list the studies of a home: states, best values, what varies, who runs them")
    )
    add_json_flag(listed).set_defaults(call=_list)


def _add_show(verbs: Commands) -> None:
    show = add_home_flag(
        verbs.add_parser("show", help="show a study's table of trials, the files of its best trial, and its addresses")
    )
    show.add_argument("name", help="name of the study")
    show.add_argument(
        "--equal-within",
        type=float,
        metavar="D",
        help="a difference of the objective that does not matter, so that settings can be practically equal (default: "
        "comparisons.equal_within of the space)",
    )
    show.add_argument("--all", action="store_true", help="show all rows of the table (default: the best 50)")
    add_json_flag(show).set_defaults(call=_show)


def _add_resume(verbs: Commands) -> None:
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
    resume.add_argument(
        "--stop-when-settled",
        action=argparse.BooleanOptionalAction,
        help="ask no more settings as soon as the search gains no more than its noise (default: as in the last start)",
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


def _list(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.progress.listing import summarize
    from coldtune.studies.spec.folder import studies

    home = find_home(options)
    found: dict[str, StudySummary | str] = {}
    for folder in studies(home):
        try:
            found[folder.name] = summarize(folder)
        except (ValueError, OSError) as error:  # an unreadable study must not hide the others
            found[folder.name] = describe(error)
    if options.json:
        print_json([{"name": name, "error": it} if isinstance(it, str) else it.record() for name, it in found.items()])
    else:
        _print_studies(str(home), found, console)
    problems = [f"study {name}: {error}" for name, error in found.items() if isinstance(error, str)]
    for problem in problems:
        print_error(problem)
    return 1 if problems else 0


def _print_studies(home: str, found: dict[str, StudySummary | str], console: Console) -> None:
    """Print a row for each study."""
    rows = []
    for name, study in found.items():
        if isinstance(study, str):
            rows.append([Text(name), *map(Text, "---"), Text("cannot be read", style="red"), *map(Text, "----")])
            continue
        best = "-" if study.best is None else study.best.describe(study.replicated)
        drivers = ", ".join(map(str, study.drivers)) or "-"
        changed = "-" if study.changed is None else f"{study.changed.astimezone():%Y-%m-%d %H:%M}"
        cells = (name, study.dataset, study.ended_text(), str(study.trials), best, changed)
        rows.append([*map(Text, (*cells, study.states_text(), study.varies_text(), drivers))])
    console.print(ListTable(home, _HEADS[:-3], last=_HEADS[-3:], rows=rows, edge=True), highlight=False)


def _show(options: argparse.Namespace, console: Console) -> int:
    from coldtune.studies.spec.comparisons import check_equal_within
    from coldtune.studies.trials.reading import read_study

    if options.equal_within is not None:
        check_equal_within(options.equal_within)
    folder = find_study(find_home(options), options.name)
    reader = read_study(folder)
    if options.json:
        from coldtune.studies.progress.addresses import list_addresses
        from coldtune.studies.progress.json_record import study_record

        record = study_record(reader, folder, options.equal_within)
        print_json({**record, "addresses": dict(list_addresses(reader, folder))})
        return 0
    show_study(reader, folder, console, options.equal_within, everything=options.all)
    return 0


def show_study(
    reader: StudyReader,
    folder: StudyFolder,
    console: Console,
    equal_within: float | None = None,
    everything: bool = False,
) -> None:
    """Print the results of a study, and the addresses and commands that show more of it.

    Args:
        everything: True to print all rows of a long table.
    """
    from coldtune.studies.progress.addresses import list_addresses
    from coldtune.studies.progress.results import print_results
    from coldtune.studies.progress.table import MOST_SHOWN, build_table
    from coldtune.studies.progress.text import print_line

    table = build_table(reader, equal_within=equal_within, most=None if everything else MOST_SHOWN)
    print_results(console, reader, table)
    for head, text in list_addresses(reader, folder):
        print_line(console, head, text)


def _resume(options: argparse.Namespace, console: Console) -> int:
    from coldtune.metrics.extractors import check_origin
    from coldtune.readback import checked
    from coldtune.studies.preflight.options import RunOptions, read_replicates
    from coldtune.studies.run import run_study
    from coldtune.studies.spec.folder import START_FILE
    from coldtune.studies.storage.backends import load_started_study
    from coldtune.studies.trials.reading import check_unchanged

    folder = find_study(find_home(options), options.name)
    file = options.password_file
    start = folder.start() | {"storage": folder.storage(file), "tracking_uri": folder.tracking_uri(file)}
    start["data_dir"] = folder.data_dir()
    if file is not None:
        start["password_file"] = str(file.expanduser().absolute())
    if options.confirm is not None:
        start["confirm"] = options.confirm
    if options.stop_when_settled is not None:
        start["stop_when_settled"] = options.stop_when_settled
    given = {
        "name": folder.name,
        "resume": True,
        "by_name": True,
        "trials": options.trials,
        "replicates": read_replicates("--replicates", options.replicates),
        "join": options.join,
        "retry_failed": options.retry_failed,
    }
    run_options = checked(folder.path / START_FILE, lambda: RunOptions.from_start(folder.home, start, **given))
    spec = folder.spec()
    extractor = str(spec.base.get("protocol", {}).get("extractor", ""))
    check_origin(extractor, f"{folder.path / 'spec.yaml'}", "start its job again, which resumes it too")
    check_unchanged(load_started_study(folder.path, folder.name, start["storage"]), spec, folder)
    return run_study(spec, run_options, console)
