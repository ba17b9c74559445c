"""GitHub's Markdown: texts that stay as they are, and rows of tables."""

from __future__ import annotations

import re
from collections.abc import Iterable

from coldtune.reports.escape import FORBIDDEN, split_code

# What begins a cell, emphasis, code, a formula, a link, HTML or an entity. Underscores inside a word begin nothing.
_MARKUP = re.compile(r"[\\|*`$]|(?<=\])\(|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
_ENTITIES = {"<": "&lt;", "&": "&amp;"}


def one_line(text: str) -> str:
    """Return a text in a single line, without characters that no format shows."""
    return " ".join(FORBIDDEN.sub(" ", text).splitlines())


def md(text: str) -> str:
    """Return a text for Markdown, in a single line. It is shown as it is, and cannot make markup or another cell."""
    return _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), one_line(text))


def md_code(text: str) -> str:
    """Return a text as code. Its fence is longer than any run of backticks in it."""
    text = one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def md_prose(sentence: str) -> str:
    """Return a sentence for Markdown. Its words between backticks, such as a command, are code."""
    return "".join(md_code(part) if code else md(part) for part, code in split_code(one_line(sentence)))


def md_row(cells: Iterable[str]) -> str:
    """Return a row of a table. The cells are Markdown already."""
    return f"| {' | '.join(cells)} |"
