"""`coldtune study run`: search a space without writing a job."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import coldtune
from coldtune.cli import job
from coldtune.cli.common import Commands

if TYPE_CHECKING:
    from coldtune.studies.spec.study import StudySpec

DESCRIPTION = """
Search a space: the same as a job, with the flags of a job. SPACE is a YAML file, or the name of a shipped space:
{names}. The study is called after the space. The same command resumes it, and a larger --trials extends it.
"""


def add(verbs: Commands) -> None:
    """Add the verb to `coldtune study`."""
    names = ", ".join(sorted(shipped_spaces()))
    parser = verbs.add_parser(
        "run",
        help="search a space, with the flags of a job",
        description=DESCRIPTION.format(names=names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("space", metavar="SPACE", help="a search space: a YAML file, or the name of a shipped space")
    job.add_search_flags(parser, job.DEFAULT_TRIALS)
    parser.set_defaults(call=_run)


def shipped_spaces() -> dict[str, Path]:
    """Return the search spaces that come with coldtune by name: of the installed package, or of a checkout.

    The name of a space in a folder begins with the folder: `ablations/loss`.
    """
    package = Path(coldtune.__file__).parent
    folders = [package / "search_spaces", package.parents[1] / "search_spaces"]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return (
        {}
        if folder is None
        else {str(path.relative_to(folder).with_suffix("")): path for path in folder.rglob("*.yaml")}
    )


def find_space(text: str, command: str = "study run") -> Path:
    """Return the file of a space.

    Args:
        text: The path of the file, or the name of a shipped space.
        command: The command, for the error message.

    Raises:
        ValueError: If it is neither a file nor the name of a shipped space.
    """
    path, shipped = Path(text).expanduser(), shipped_spaces()
    if text in shipped and path.is_dir():  # a folder `training` is no search space
        return shipped[text]
    if path.exists() or path.is_symlink():
        return path
    if text in shipped:
        return shipped[text]
    raise ValueError(f"{command} {text}: no such file; shipped spaces are {', '.join(sorted(shipped)) or 'missing'}")


def _run(options: argparse.Namespace, console: Console) -> int:
    space = find_space(options.space)
    name = re.sub(r"[^\w.\-]+", "-", space.stem).strip("-.") or "space"

    def build() -> StudySpec:
        from coldtune.studies.spec.build import build_spec

        return build_spec(name, space, dataset=options.dataset, seed=options.seed, settings=options.settings)

    return job.run_and_exit(build, options, job.DEFAULT_TRIALS)
