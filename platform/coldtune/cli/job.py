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

if TYPE_CHECKING:
    from coldtune.studies.preflight.options import Limits
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
    """Add the flags that do not say what is asked, but where and how; settings: the help of --set."""
    made.add_argument("--data-dir", type=Path, metavar="PATH", help="where the dataset's published files lie")
    made.add_argument("--study", metavar="NAME", help="the study's name (default: the job's and a hash of its spec)")
    made.add_argument("--resume", action="store_true", help="go on with a study; an error where there is none")
    made.add_argument(
        "--import", nargs="+", action="extend", default=[], metavar="STUDY", dest="imports",
        help="begin a new study with the trials of others (of this home or --storage) that mean the same in it; N of "
        "--trials counts its own only. Part of what the study is: give it again to go on",
    )  # fmt: skip
    made.add_argument(
        "--join", action="store_true", help="where another driver runs the study already, run trials of it beside it"
    )
    made.add_argument("--seed", type=int, metavar="N", help="of the search and of the trainings (default 0)")
    made.add_argument(
        "--home", type=Path, metavar="DIR", help="where everything is written (default $COLDTUNE_HOME or ./runs)"
    )
    made.add_argument("--tracking-uri", metavar="URI", help="MLflow's (default: mlflow.db in the home)")
    made.add_argument(
        "--store",
        metavar="PLACE",
        help="of finished work: a folder, s3://BUCKET/PREFIX, ... (default: store in the home)",
    )
    made.add_argument("--storage", metavar="URL", help="Optuna's database (default: a journal file in the home)")
    made.add_argument("--workers", type=int, default=1, metavar="N", help="processes that train one trial (default 1)")
    made.add_argument("--gpus-per-trial", type=float, default=0.0, metavar="F", help="may be a fraction (default 0)")
    made.add_argument(
        "--retries",
        type=int,
        default=2,
        metavar="N",
        help="of a trial whose process died (default 2)",
    )
    made.add_argument(
        "--max-failures", type=int, default=5, metavar="N", help="in a row that stop the study (default 5; 0: never)"
    )
    made.add_argument("--trial-timeout", metavar="TIME", help="of one trial, such as 30m or 1h30m (default: none)")
    made.add_argument(
        "--wait-for-nodes",
        default="10m",
        metavar="TIME",
        help="while the cluster is too small for even one trial (default 10m)",
    )
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
    from coldtune.studies.preflight.options import RunOptions
    from coldtune.studies.run import run_study

    try:
        spec = build().model_copy(update={"imports": tuple(sorted(set(options.imports)))})
        run = RunOptions(
            home=options.home.expanduser().absolute() if options.home else environment.default_home(),
            command=command(),
            trials=getattr(options, "trials", None),
            default_trials=trials,
            name=options.study,
            resume=options.resume,
            join=options.join,
            data_dir=options.data_dir,
            tracking_uri=options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"),
            storage=options.storage,
            store=options.store,
            workers=options.workers,
            gpus_per_trial=options.gpus_per_trial,
            begun=_BEGUN,
            limits=_limits(options),
        )
        return run_study(spec, run, console)
    except ValueError as error:
        if os.environ.get("COLDTUNE_DEBUG"):
            raise
        complain(error)
        return 2
    except KeyboardInterrupt:
        console.print("\ninterrupted before anything was spent")
        return 130


def _limits(options: argparse.Namespace) -> Limits:
    from coldtune.studies.preflight.options import Limits, seconds

    timeout = options.trial_timeout
    return Limits(
        retries=options.retries,
        max_failures=options.max_failures,
        trial_timeout=None if timeout is None else seconds("--trial-timeout", timeout),
        patience=seconds("--wait-for-nodes", options.wait_for_nodes),
    )


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
