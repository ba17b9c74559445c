"""`--json`: the answer of a command as JSON on stdout, for programs."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def add_json_flag(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add `--json` to `parser`, and return the parser."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs instead of text for people")
    return parser


def print_json(answer: Any) -> None:
    """Print an answer as a single JSON document, and nothing else.

    Numbers are not rounded. A number that is not finite becomes null. A time becomes ISO 8601 text in UTC, and a path
    becomes text. The output is ASCII, so it does not depend on the locale.
    """
    print(json.dumps(to_json(answer), indent=1, allow_nan=False))


def at_time(seconds: float) -> datetime:
    """Return a time that is given in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def to_json(value: Any) -> Any:
    """Return a value as JSON can hold it. The rules are those of `print_json`."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds")
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
