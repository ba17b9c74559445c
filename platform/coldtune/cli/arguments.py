"""The parser of command lines, which reports an error in a single line as every other error is reported."""

from __future__ import annotations

import argparse
from typing import NoReturn

_LONGEST = 500  # characters of a message, because it repeats what was typed


class Parser(argparse.ArgumentParser):
    """A parser that prints one line for a wrong command line, without the list of all flags."""

    def error(self, message: str) -> NoReturn:
        """Print the error on stderr, and exit with code 2."""
        text = " ".join(message.split())
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        self.exit(2, f"error: {text} (see {self.prog} --help)\n")
