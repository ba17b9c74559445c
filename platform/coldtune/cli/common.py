"""Flags that several commands share, and the home, store and study that they refer to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from coldtune import environment
from coldtune.errors import describe_obstacle, file_above

if TYPE_CHECKING:
    from coldtune.store.store import Store
    from coldtune.studies.spec.folder import StudyFolder

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def check_threads(count: int) -> int:
    """Return the number of `--threads`. ValueError if it is not allowed."""
    if not 1 <= count <= environment.MOST_THREADS:
        raise ValueError(f"--threads {count}: allowed: 1 to {environment.MOST_THREADS:,}")
    return count


def add_home_flag(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add `--home` to `parser`, and return the parser."""
    parser.add_argument("--home", type=Path, metavar="DIR", help="folder of studies (default $COLDTUNE_HOME or ./runs)")
    return parser


def find_home(options: argparse.Namespace) -> Path:
    """Return the absolute path of the home that the command line means.

    Raises:
        ValueError: If the home, or a folder above it, is a file.
    """
    name = "--home" if options.home else "home"
    home = environment.expand_path(options.home, name) if options.home else environment.default_home()
    if (file := file_above(home)) is not None:
        raise ValueError(f"{name} {home}: {describe_obstacle(file)}. Name another home.")
    return home


def add_store_flag(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add `--home` and `--store` to `parser`, and return the parser."""
    add_home_flag(parser).add_argument(
        "--store",
        metavar="PLACE",
        help="store of finished work: a folder, or s3://BUCKET/PREFIX (default: the store of the home's studies)",
    )
    return parser


def open_store(options: argparse.Namespace) -> Store:
    """Open the store that the command line means.

    Raises:
        ValueError: If the store cannot be reached, or the studies of the home use several stores.
    """
    from coldtune.cli.store_lookup import locate_store
    from coldtune.store.store import Store

    location = locate_store(find_home(options), options.store)
    location.check()
    if options.store is not None and not location.remote and not location.path.exists():
        raise ValueError(f"--store {location.shown}: there is no such folder")
    return Store(location)


def find_study(home: Path, name: str) -> StudyFolder:
    """Return the folder of the study `name`.

    Raises:
        ValueError: If the home has no such study. The message lists its studies.
    """
    from coldtune.studies.spec.folder import StudyFolder, studies

    folder = StudyFolder(home, name)
    if not folder.exists and not folder.left_behind:
        names = ", ".join(study.name for study in studies(home)) or "none"
        raise ValueError(f"study {name}: not in {home} (there are: {names})")
    return folder
