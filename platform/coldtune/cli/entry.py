"""The frame of every command: its console, and how errors become a line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from coldtune.addresses import redact
from coldtune.errors import describe_os_error, is_about_files

DEBUG = "COLDTUNE_DEBUG"
"""The environment variable that turns the line of an error into a traceback."""

_WIDTH = 160  # of tables that are not written to a terminal
_LEAST_SIZE, _MOST_SIZE = 10, 10_000
_PACKAGE = Path(__file__).resolve().parents[1]
_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))


def make_console() -> Console:
    """Return the console of a command.

    Without a terminal, tables are as wide as COLUMNS says, or 160 characters. A COLUMNS or LINES that is no sensible
    number is ignored. A locale or an encoding that lacks a character, such as a star in a table, shows `?` instead.
    """
    for name in ("COLUMNS", "LINES"):
        if not _is_size(os.environ.get(name, "")):
            os.environ.pop(name, None)  # rich would read it too
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", _WIDTH))
    return Console(width=width, markup=False)  # because names of studies, files and drivers may contain brackets


def run(command: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Run a command, and return its exit code.

    - A ValueError of coldtune and an OSError about a file are the user's. The code is 2, after a line on stderr that
      names the place and says what to do.
    - A ValueError that a library raised by itself has no such place. The code is 1, after a line that says where in
      coldtune it arose.
    - After an interruption, the code is 130.
    - Every other exception is an error in coldtune, and keeps its traceback.

    Args:
        interrupted: The message after an interruption.
    """
    warnings.formatwarning = _format_warning
    try:
        return command()
    except (ValueError, OSError) as error:
        if os.environ.get(DEBUG):
            raise
        if isinstance(error, BrokenPipeError):
            return _leave_closed_pipe()
        if isinstance(error, OSError) and is_about_files(error):
            print_error(f"{describe_os_error(error)}.")
        elif isinstance(error, ValueError) and _is_ours(error):
            print_error(str(error))
        else:
            print_error(_unexpected(error))
            return 1
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print(f"\n{interrupted}", highlight=False)
        return 130


def describe(error: Exception) -> str:
    """Return an error in one line, for commands that name a problem and carry on with the rest."""
    if isinstance(error, OSError) and is_about_files(error):
        return describe_os_error(error)
    return "; ".join(str(error).strip().splitlines()) or type(error).__name__


def print_error(text: str) -> None:
    """Print an error of the user on stderr, without passwords. Brackets in the message are not markup."""
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), redact(text)))


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and _LEAST_SIZE <= int(text) <= _MOST_SIZE


def _is_ours(error: ValueError) -> bool:
    """Return whether coldtune, or code of the user, wrote the message of an error.

    A subclass of ValueError, such as a Unicode error, is ours only if coldtune defines it. A plain ValueError is ours
    if a `raise` statement outside of libraries raised it. The last frame of its traceback shows that statement.
    """
    if type(error) is not ValueError:
        return type(error).__module__.partition(".")[0] == "coldtune"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    file = Path(frames[-1].filename)
    if file.is_relative_to(_PACKAGE):  # which an installation puts beside other libraries
        return "raise" in (frames[-1].line or "raise")
    library = "site-packages" in file.parts or file.is_relative_to(_STANDARD_LIBRARY) or file.name.startswith("<frozen")
    return not library and "raise" in (frames[-1].line or "raise")


def _unexpected(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    where = f" in {own[-1].name} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}{where}: {describe(error)}. {DEBUG}=1 shows the traceback"


def _leave_closed_pipe() -> int:
    """Return the exit code of a process whose reader, such as `head`, has closed the pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes the rest at its exit
    return 141


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return a warning as a line, without the source code that caused it."""
    text = "; ".join(str(message).splitlines())
    if not issubclass(category, UserWarning):
        text = f"{category.__name__}: {text} ({filename}, line {lineno})"
    return f"warning: {text}\n"
