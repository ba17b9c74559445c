"""The error of a prepared dataset whose files are not what they were when they were written."""

from __future__ import annotations

import errno
import shlex
from pathlib import Path

from coldtune import environment


class DamagedDataError(OSError, ValueError):
    """A prepared dataset that is damaged: a fault of the machine, not of a setting.

    It is an OSError (EIO), so a trial that meets it can be tried again after the data is repaired. It is also a
    ValueError, so commands report it as a line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.EIO


def advise_to_prepare(folder: Path, name: str, image_size: int, resize: str) -> str:
    """Return the sentence that says how to repair the prepared dataset in `folder`, which lies in a home's data/."""
    command = prepare_command(folder.absolute().parents[1], name, image_size, resize)
    return f"Repair it with `{command}`, which prepares damaged data again"


def prepare_command(home: Path, name: str, image_size: int, resize: str) -> str:
    """Return the command line that prepares a dataset in a home."""
    words = ["coldtune", "data", "prepare", name, "--image-size", str(image_size), "--resize", resize]
    return f"{environment.runner()}{shlex.join([*words, '--home', str(home)])}"
