"""The command line that every job shares."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from coldtune import environment
from coldtune.addresses import words_without_passwords
from coldtune.cli import entry
from coldtune.cli.arguments import Parser
from coldtune.cli.common import check_threads
from coldtune.studies.preflight.options import RunOptions

if TYPE_CHECKING:
    from coldtune.studies.spec.study import StudySpec

DEFAULT_TRIALS = 12
_BEGUN = time.monotonic()  # before a job imports slow libraries


def parser(doc: str, trials: int, generate: bool = False) -> argparse.ArgumentParser:
    """Build the parser of a job that searches a space.

    Args:
        doc: The docstring of the job, which `--help` shows.
        trials: The default of `--trials`.
        generate: True adds `--generate`, for a job whose question makes sense for generation too.
    """
    parser = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if generate:
        parser.add_argument("--generate", action="store_true", help="judge generation from a prior, not restoration")
    return add_search_flags(parser, trials)


def add_search_flags(parser: argparse.ArgumentParser, trials: int) -> argparse.ArgumentParser:
    """Add the flags of a job that searches a space, and return the parser.

    Args:
        parser: The parser of a job, or of `coldtune study run`.
        trials: The default of `--trials`.
    """
    parser.add_argument(
        "--trials", type=int, metavar="N", help=f"trials in all (default {trials}), a larger number extends the study"
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="digits, mnist, cifar10, celeba, afhq, or folder or parquet for your own images in --data-dir (default: "
        "the base's)",
    )
    return add_common_flags(
        parser, "change the base, search or pruning, for example training.steps=400 search.startup=8"
    )


def add_common_flags(parser: argparse.ArgumentParser, set_help: str) -> argparse.ArgumentParser:
    """Add the flags that every job shares, and return the parser.

    Args:
        parser: The parser of the job.
        set_help: The help text of `--set`, which names the settings that the job can change.
    """
    RunOptions.add_flags(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the search and of the trainings (default 0)")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="CPU threads of each process, which decide the last bits of its results, so another number is another "
        "study (default 1; a GPU needs none)",
    )
    parser.add_argument(
        "--import",
        nargs="+",
        action="extend",
        default=[],
        metavar="STUDY",
        dest="imports",
        help="begin a new study with trials of other studies (of this home or --storage) that mean the same in it. "
        "They do not count toward --trials. Repeat the flag to resume the study",
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="settings", help=set_help
    )
    return parser


def main(
    job: str,
    space: Path,
    doc: str | None,
    trials: int = DEFAULT_TRIALS,
    arguments: Sequence[str] | None = None,
    generate: Path | None = None,
    confirm: int = 0,
) -> None:
    """Run the study of a job as the command line says, and exit.

    The exit code is 0 if the study has its trials, and 2 if the command was wrong and nothing was spent. It is 3 if the
    study stopped by itself (`--max-failures`, `--wait-for-nodes`), by a fault of the machine such as a full disk, or if
    none of its trials finished. It is 130 if the study was interrupted or Ray died. After 3 and 130, the same command
    resumes the study.

    Args:
        job: The name of the job.
        space: The file of the search space.
        doc: The docstring of the job, which `--help` shows.
        trials: The default of `--trials`.
        arguments: The command line. None means `sys.argv`.
        generate: The file of the space that `--generate` searches instead. None means that the job has no such flag.
        confirm: The default of `--confirm`, for a study that can be confirmed.
    """
    options = parser((doc or "").strip(), trials, generate is not None).parse_args(arguments)
    space_file = generate if generate and options.generate else space

    def build() -> StudySpec:
        from coldtune.studies.spec.build import build_spec

        return build_spec(job, space_file, dataset=options.dataset, seed=options.seed, settings=options.settings)

    run_and_exit(build, options, trials, confirm)


def run_and_exit(
    build: Callable[[], StudySpec], options: argparse.Namespace, trials: int, confirm: int = 0
) -> NoReturn:
    """Run a study with the options of a command line, and exit with the codes of `main`.

    Args:
        build: Builds the spec of the study. Its ValueError is reported as an error of the user.
        options: The parsed command line.
        trials: The default of `--trials`.
        confirm: The default of `--confirm`.
    """
    console = entry.make_console()
    sys.exit(entry.run(lambda: _run(build, options, trials, confirm, console), "interrupted before anything was spent"))


def _run(
    build: Callable[[], StudySpec], options: argparse.Namespace, trials: int, confirm: int, console: Console
) -> int:
    from coldtune.studies.run import run_study  # imports torch, which --help and a wrong flag must not wait for
    from coldtune.studies.spec.confirmation_checks import can_confirm

    imports, threads = tuple(sorted(set(options.imports))), check_threads(options.threads)
    spec = build().model_copy(update={"imports": imports, "threads": threads})
    run_options = RunOptions.from_flags(
        options,
        home=environment.default_home(),
        command=command_line(),
        trials=getattr(options, "trials", None),
        default_trials=trials,
        confirm=confirm if can_confirm(spec) else 0,  # unless the command line says it
        begun=_BEGUN,
    )
    return run_study(spec, run_options, console)


def command_line() -> str:
    """Return the command that a person types to run this process again."""
    script, *flags = words_without_passwords(sys.argv)
    program = [] if environment.runner() else ["python"]
    if Path(script).name == "coldtune" and not script.endswith(".py"):
        program, script = [], "coldtune"  # the command of the package, which is no file in the current folder
    elif Path(script).parts[-2:] == ("coldtune", "__main__.py"):
        program, script, flags = ["python"], "-m", ["coldtune", *flags]
    line = environment.shell_command(*program, script, *flags)
    if not environment.submitted():
        return line
    working_dir = "--working-dir . " if environment.in_ray_copy(Path.cwd()) else ""
    return f"ray job submit {working_dir}-- {line}"
