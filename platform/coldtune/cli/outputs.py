"""The files and folders that a command makes for its user. Nothing is overwritten unless the user says so."""

from __future__ import annotations

import argparse
from pathlib import Path

from coldtune.environment import expand_path
from coldtune.files import write_file
from coldtune.places import STREAMS, check_folder, check_output

STDOUT = "-"  # as other commands spell it


def add_overwrite_flag(parser: argparse.ArgumentParser, what: str = "the output file") -> None:
    """Add `--overwrite` to `parser`."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what} if it exists")


def new_file(path: Path, name: str, overwrite: bool) -> Path:
    """Return the absolute path of a file that a command will write. `-` is the standard output.

    Args:
        name: The flag of the path. Messages begin with it.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: If the file exists already, or cannot be written.
    """
    place = Path(STREAMS[0]) if str(path) == STDOUT else expand_path(path, name)
    check_output(place, name)
    if place.exists() and not overwrite and str(place) not in STREAMS:
        raise ValueError(f"{name} {path}: exists already. Name another file, or replace it with --overwrite.")
    return place


def new_folder(path: Path, name: str) -> Path:
    """Return the absolute path of a folder that a command will fill. It does not exist yet, or is empty.

    Args:
        name: The flag or argument of the path. Messages begin with it.

    Raises:
        ValueError: If the folder contains something, or cannot be made or written.
    """
    place = expand_path(path, name)
    check_folder(place, name, write=False)
    if place.is_dir() and any(place.iterdir()):
        raise ValueError(f"{name} {path}: must be a new or an empty folder, but contains files. Name another folder.")
    return place


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that `new_file` allowed."""
    if str(path) in STREAMS:
        with path.open("wb") as file:
            file.write(data)
    else:
        write_file(path, data)
