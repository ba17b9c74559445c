"""What the commands share: where a home is, and which study is meant."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from coldtune import environment

if TYPE_CHECKING:
    from coldtune.store.store import Store
    from coldtune.studies.spec.folder import StudyFolder

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def with_home(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """`parser`, with `--home`."""
    parser.add_argument("--home", type=Path, metavar="DIR", help="default $COLDTUNE_HOME or ./runs")
    return parser


def home_of(options: argparse.Namespace) -> Path:
    """The home that the command line means, absolute."""
    return options.home.expanduser().absolute() if options.home else environment.default_home()


def with_store(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """`parser`, with `--home` and `--store`."""
    with_home(parser).add_argument(
        "--store", metavar="PLACE", help="a folder, or s3://BUCKET/PREFIX (default: that of the home's studies)"
    )
    return parser


def store_of(options: argparse.Namespace) -> Store:
    """The store that the command line means; ValueError where it cannot be reached."""
    from coldtune.cli.stores import store_of_home
    from coldtune.store.store import Store

    at = store_of_home(home_of(options), options.store)
    at.check()
    return Store(at)


def study_folder(home: Path, name: str) -> StudyFolder:
    """The study called `name` of a home; ValueError naming those that are there for another one."""
    from coldtune.studies.spec.folder import StudyFolder, studies

    folder = StudyFolder(home, name)
    if not folder.exists:
        there = ", ".join(study.name for study in studies(home)) or "none"
        raise ValueError(f"study {name}: not in {home} (there are: {there})")
    return folder
