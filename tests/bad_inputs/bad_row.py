"""The rows of the table of bad inputs, and the small functions that write them.

A row is what a user typed, and what coldtune answers. It reads like this:

    flag("trial-timeout-months", "--trial-timeout=2months", says="--trial-timeout 2months: not a duration")
    setting("steps-bool", "training.steps=true", says="training.steps = True: must be an integer")
    space("duplicate-section", "base: digits-quick\nvary: {}\nvary: {}\n", says=["{dir}/space.yaml", "vary", "line 3"])
    command("show-unknown", "study show nosuch", says="study nosuch: not in {home}")

Every row stands in a file `rows_*.py` of its kind, in the list `ROWS`. To add a case, add a line to a list. To add a
kind, add a file `rows_KIND.py`. `test_bad_inputs.py` runs every row in this process, through the real command line. It
asserts that

- the exit code is 2,
- the only line on stderr begins with `error: ` and contains every fragment of `says`,
- neither Ray was started nor a dataset was prepared or opened (unless the row has `data=True`),
- nothing was written in the home (unless the row has `data=True`, and then only below `data/`).

`says` names the key or file, the value, and what is allowed or what to do. In the command and in `says`, these words
are replaced: `{dir}` by an empty scratch folder, `{home}` by the home, `{study}` by the name of the finished study, and
`{long}` by 300 letters. Braces around anything else stay as they are.

Arguments of every function below, besides the name, the input and `says`:

- `files`: A mapping of file names in the scratch folder to text, bytes, or a function that makes the file at a path.
- `prepare`: A function that is called with a `Place` before the command. It may do anything in its folders.
- `home`: `"none"` (the home does not exist), `"empty"`, `"digits"` (the digits are prepared), or `"study"` (a copy of
  the finished study, which costs a little time).
- `data`: True if the dataset itself is the input, so it must be read.
- `env`: Environment variables of the command.
- `needs_user`: True if the row means nothing for root, who may read and write everything.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Content = str | bytes | Callable[[Path], object]


@dataclass(frozen=True)
class Place:
    """The folders of a row while it runs.

    Attributes:
        dir: The scratch folder, which is empty before the row.
        home: The home of the command.
        study: The name of the finished study in the home. Empty if the home has none.
    """

    dir: Path
    home: Path
    study: str = ""

    def fill(self, text: str) -> str:
        """Replace the words in braces."""
        words = {"{dir}": str(self.dir), "{home}": str(self.home), "{study}": self.study, "{long}": "x" * 300}
        for word, value in words.items():
            text = text.replace(word, value)
        return text

    @property
    def folder(self) -> Path:
        """The folder of the finished study."""
        return self.home / "studies" / self.study


@dataclass(frozen=True)
class Row:
    """A bad input. The module's docstring explains the attributes that are not explained here.

    Attributes:
        program: `coldtune`, the name of a job under jobs/, or `space` for a job with the space `{dir}/space.yaml`.
        arguments: Its command line, without `--home`.
        own_home: True if the arguments say which home is meant.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    says: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict)
    prepare: Callable[[Place], object] | None = None
    home: str = "none"
    own_home: bool = False
    data: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    needs_user: bool = False


def row(name: str, program: str, arguments: Sequence[str], says: str | Sequence[str], **more: Any) -> Row:
    """Return a row from separate arguments, which the functions below write more shortly."""
    fragments = (says,) if isinstance(says, str) else tuple(says)
    own_home = any(word.partition("=")[0] == "--home" for word in arguments) or "COLDTUNE_HOME" in more.get("env", {})
    return Row(name, program, tuple(arguments), fragments, own_home=own_home, **more)


def job(name: str, line: str, says: str | Sequence[str], *, program: str = "sweep_blur", **more: Any) -> Row:
    """Return a row for the command line of a job, as it is typed in a shell."""
    return row(name, program, shlex.split(line), says, **more)


def flag(name: str, word: str, says: str | Sequence[str], *others: str, **more: Any) -> Row:
    """Return a row for flags of a job, each in a string of its own. Nothing in them is split."""
    return row(name, "sweep_blur", (word, *others), says, **more)


def setting(name: str, text: str, says: str | Sequence[str], *others: str, **more: Any) -> Row:
    """Return a row for settings of a job: the texts after `--set`."""
    return row(name, "sweep_blur", ("--set", text, *others), says, **more)


def space(name: str, text: Content, says: str | Sequence[str], *arguments: str, **more: Any) -> Row:
    """Return a row for a job with the space `text`, which becomes the file `{dir}/space.yaml`."""
    return row(name, "space", arguments, says, files={"space.yaml": text}, **more)


def config(name: str, text: Content, says: str | Sequence[str], **more: Any) -> Row:
    """Return a row for `coldtune evaluate` on the configuration `text`, which becomes `{dir}/config.yaml`."""
    return row(name, "coldtune", ("evaluate", "{dir}/config.yaml"), says, files={"config.yaml": text}, **more)


def command(name: str, line: str, says: str | Sequence[str], **more: Any) -> Row:
    """Return a row for the command `coldtune`, as it is typed in a shell."""
    return row(name, "coldtune", shlex.split(line), says, **more)


def on_study(name: str, change: Callable[[Place], object], line: str, says: str | Sequence[str], **more: Any) -> Row:
    """Return a row for a command on a finished study that `change` has damaged."""
    return row(name, "coldtune", shlex.split(line), says, prepare=change, home="study", **more)


# --- contents of files


def fifo(path: Path) -> None:
    """Make a pipe, whose reader waits for ever."""
    os.mkfifo(path)


def folder(path: Path) -> None:
    """Make a folder where a file is expected."""
    path.mkdir()


def link(target: str) -> Callable[[Path], None]:
    """Return a function that makes a link to `target`."""
    return lambda path: path.symlink_to(target)


def with_mode(mode: int, text: str = "") -> Callable[[Path], None]:
    """Return a function that makes a file with the permissions `mode`."""

    def make(path: Path) -> None:
        path.write_text(text)
        path.chmod(mode)

    return make
