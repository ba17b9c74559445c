"""Readers of the files that coldtune wrote. A power cut, a full disk or an editor may have changed them since.

Each reader bounds the size and the depth of a file, and refuses a file that is not regular. Its error is one line that
names the file, says what is wrong with it, and says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from coldtune.errors import describe_os_error
from coldtune.files import IrregularFileError, open_for_reading

LIMIT = 16 * 2**20
"""The largest file in bytes that is read as a whole, unless a caller names another limit. Ours have kilobytes."""

_MEBIBYTE = 2**20
_MOST_PROBLEMS = 3  # that a message lists

# The errors of code that takes for granted that its input has the right form.
_SURPRISES = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)


class UnreadableError(ValueError):
    """A file that coldtune wrote cannot be read back. The message names the file, the reason and what to do."""


def read_bytes(path: Path, *, limit: int = LIMIT, hint: str = "") -> bytes:
    """Read a whole file.

    Args:
        limit: The largest size in bytes.
        hint: A sentence that says what to do if the file cannot be read.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableError: If it is no regular file, is larger than `limit`, or cannot be read.
    """
    try:
        with open_for_reading(path) as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except IrregularFileError as error:
        what = "a folder is where a file must be" if error.kind == "a folder" else "is not a regular file"
        raise unreadable(path, what, hint) from None
    except OSError as error:
        raise UnreadableError(_with_hint(describe_os_error(error, path), hint)) from None
    if len(content) > limit:
        raise unreadable(path, f"is larger than {limit / _MEBIBYTE:g} MiB", hint)
    return content


def read_json(path: Path, *, limit: int = LIMIT, hint: str = "") -> Any:
    """Read a JSON file. Arguments and errors are those of `read_bytes`."""
    return parse_json(read_bytes(path, limit=limit, hint=hint), path, hint)


def read_model(path: Path, cls: type[ModelT], *, limit: int = LIMIT, hint: str = "") -> ModelT:
    """Read a JSON file as an instance of `cls`. Arguments and errors are those of `read_bytes`."""
    return check_model(read_json(path, limit=limit, hint=hint), cls, path, hint)


def decode(content: bytes, place: Path | str, hint: str = "") -> str:
    """Decode the content of a text file. UnreadableError names `place` if the content is empty or not UTF-8."""
    if not content.strip(b"\0 \t\r\n"):
        what = "contains only zero bytes" if b"\0" in content else "is empty"
        raise unreadable(place, f"{what}, as after a power cut or a full disk", hint)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise unreadable(place, f"is not text in UTF-8 (byte {error.start:,})", hint) from None


def parse_json(content: bytes, place: Path | str, hint: str = "") -> Any:
    """Parse JSON. UnreadableError names `place` if that is not possible."""
    text = decode(content, place, hint)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise unreadable(place, f"is not complete JSON ({error.msg} in {where})", hint) from None
    except RecursionError:
        raise unreadable(place, "is nested too deeply", hint) from None
    except ValueError as error:  # an integer of thousands of digits
        raise unreadable(place, f"cannot be read ({error})", hint) from None


def check_model(tree: Any, cls: type[ModelT], place: Path | str, hint: str = "") -> ModelT:
    """Return `tree` as an instance of `cls`. UnreadableError names `place` and each key that is wrong."""
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        raise unreadable(place, describe_problems(error), hint) from None


def checked(place: Path | str, build: Callable[[], T], hint: str = "") -> T:
    """Return `build()`, which interprets the content of a file.

    Raises:
        UnreadableError: If the content has the wrong form, whatever error that caused. It names `place`.
    """
    try:
        return build()
    except UnreadableError:
        raise
    except ValidationError as error:
        raise unreadable(place, describe_problems(error), hint) from None
    except _SURPRISES as error:
        text = "; ".join(str(error).strip().splitlines()) or "no message"
        if isinstance(error, RecursionError):
            text = "it is nested too deeply"
        elif type(error) is not ValueError and not isinstance(error, UnreadableError):
            text = f"{type(error).__name__}: {text}"
        raise unreadable(
            place, text if text.startswith(str(place)) else f"has the wrong content ({text})", hint
        ) from None


def describe_problems(error: ValidationError) -> str:
    """Return the wrong keys of a pydantic error in one line, each with its value and what is allowed."""
    problems = []
    for item in error.errors():
        key = ".".join(map(str, item["loc"]))
        if item["type"] == "missing":
            problems.append(f"{key} is missing")
        elif item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            problems.append(f"{key} is an unknown key, perhaps of a newer version of coldtune")
        else:
            shown = repr(item["input"])
            shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
            message = item["msg"].removeprefix("Value error, ").partition(" or instance of ")[0]
            problems.append(f"{key + ' = ' if key else ''}{shown}: {message[:1].lower()}{message[1:]}")
    more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
    return f"has wrong content: {'; '.join(problems[:_MOST_PROBLEMS])}{more}"


def unreadable(place: Path | str, what: str, hint: str = "") -> UnreadableError:
    """Return the error for the file `place`, which `what` describes."""
    return UnreadableError(_with_hint(what if what.startswith(str(place)) else f"{place}: {what}", hint))


def _with_hint(text: str, hint: str) -> str:
    return f"{text.rstrip('.')}. {hint}" if hint else text
