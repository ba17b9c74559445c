"""The command line that every job shares."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.text import Text

from coldtune import environment
from coldtune.studies.preflight.options import RunOptions

if TYPE_CHECKING:
    from coldtune.studies.spec.study import StudySpec

_BEGUN = time.monotonic()  # before a job imports anything that takes its time


def parser(doc: str, trials: int, generate: bool = False) -> argparse.ArgumentParser:
    """The flags of every job that searches; generate: of one whose question may be asked of generation too."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--trials", type=int, metavar="N", help=f"trials in all (default {trials}; more extends a study)")
    made.add_argument("--dataset", metavar="NAME", help="digits, mnist, cifar10 (default: the base's)")
    if generate:
        made.add_argument("--generate", action="store_true", help="judge generation from a prior, not restoration")
    return add_common(made, "change the base or the search, e.g. training.steps=400 search.startup=8")


def add_common(made: argparse.ArgumentParser, settings: str) -> argparse.ArgumentParser:
    """Add the flags that every job shares.

    Args:
        settings: The help text of `--set`, which says what a job lets one change.
    """
    RunOptions.add_flags(made)
    made.add_argument("--seed", type=int, metavar="N", help="of the search and of the trainings (default 0)")
    made.add_argument(
        "--import", nargs="+", action="extend", default=[], metavar="STUDY", dest="imports",
        help="begin a new study with the trials of others (of this home or --storage) that mean the same in it; N of "
        "--trials counts its own only. Part of what the study is: give it again to go on",
    )  # fmt: skip
    made.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="settings", help=settings
    )
    return made


def main(
    job: str,
    space: Path,
    doc: str | None,
    trials: int = 12,
    arguments: Sequence[str] | None = None,
    generate: Path | None = None,
) -> None:
    """Run the study of a job's space as the command line says, and exit.

    generate: the space that `--generate` asks instead, where there is one.

    Exit codes: 0 the study has its trials; 2 the command was wrong, and nothing was spent; 3 it stopped by itself
    (--max-failures, --wait-for-nodes); 130 interrupted, or Ray died. After 3 and 130 the same command resumes it.
    """
    options = parser((doc or "").strip(), trials, generate is not None).parse_args(arguments)
    asked = generate if generate and options.generate else space

    def spec() -> StudySpec:
        from coldtune.studies.spec.build import build_spec

        return build_spec(job, asked, dataset=options.dataset, seed=options.seed, settings=options.settings)

    run_guarded(spec, options, trials)


def run_guarded(build: Callable[[], StudySpec], options: argparse.Namespace, trials: int) -> NoReturn:
    """Run the study that `build` specifies with the flags given, and exit as `main` does; trials: the default."""
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
    sys.exit(_guarded(build, options, trials, console))


def _guarded(build: Callable[[], StudySpec], options: argparse.Namespace, trials: int, console: Console) -> int:
    # Late: --help and a wrong flag should not wait for torch.
    from coldtune.studies.run import run_study

    try:
        spec = build().model_copy(update={"imports": tuple(sorted(set(options.imports)))})
        run = RunOptions.from_flags(
            options, home=environment.default_home(), command=command(), trials=getattr(options, "trials", None),
            default_trials=trials, begun=_BEGUN,
        )  # fmt: skip
        return run_study(spec, run, console)
    except ValueError as error:
        if os.environ.get("COLDTUNE_DEBUG"):
            raise
        complain(error)
        return 2
    except KeyboardInterrupt:
        console.print("\ninterrupted before anything was spent")
        return 130


def complain(error: Exception) -> None:
    """Print a user's error as it is: brackets in it are not markup."""
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))


def command() -> str:
    """What a person types to run this process's command again."""
    python = "uv run" if "UV" in os.environ else "python"
    line = shlex.join([python.split()[0], *python.split()[1:], sys.argv[0], *sys.argv[1:]])
    if not environment.submitted():
        return line
    where = "--working-dir . " if environment.in_ray_copy(Path.cwd()) else ""
    return f"ray job submit {where}-- {line}"
