"""Durations as text: a parser, and the forms in which coldtune prints them.

| function          | 5 s       | 90 s      | 5,400 s    | 200,000 s       | used for                        |
|:------------------|:----------|:----------|:-----------|:----------------|:--------------------------------|
| `format_flag`     | `5s`      | `1m30s`   | `1h30m`    | `55h33m20s`     | values of command-line flags    |
| `format_clock`    | `0:05`    | `1:30`    | `1:30:00`  | `55:33:20`      | elapsed time and ETA            |
| `format_work`     | `0:00:05` | `0:01:30` | `1:30:00`  | `2 days, 7:...` | work that was saved             |
| `format_estimate` | `5 s`     | `90 s`    | `90 min`   | `55.6 h`        | cost estimates                  |
| `format_age`      | `5.0 s`   | `1.5 min` | `1.5 h`    | `2 d`           | ages and work in lists of files |
"""

from __future__ import annotations

import re
from datetime import timedelta

DAY_S = 86400.0

LONGEST_S = 3650 * DAY_S
"""The longest duration that a flag may have."""

_UNITS_S = {"d": DAY_S, "h": 3600.0, "m": 60.0, "s": 1.0}  # from the largest down, as they are written
_SPELLINGS = {
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
}
_SHORTEST_S = 0.001
_ALLOWED = "allowed are such as 90s, 30m, 2h, 1h30m, 1.5 days"
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*")


def parse_duration(flag: str, text: str) -> float:
    """Return the seconds of a duration such as `90s`, `30m`, `1h30m` or `1.5 hours`.

    The units are s, m, h and d, or the words sec, second, min, minute, hr, hour and day, also in the plural.

    Args:
        flag: The name under which the user gave `text`, for error messages.

    Raises:
        ValueError: If `text` is not a duration, names no unit or an unknown unit, names a unit twice, is zero, or is
            longer than ten years.
    """
    compact = text.strip().lower()
    parts = _PART.findall(compact)
    if _PART.sub("", compact) or not parts:
        unit = "; say the unit" if re.fullmatch(r"[\d.]+", compact) else ""
        raise ValueError(f"{flag} {text}: not a duration{unit}; {_ALLOWED}")
    if unknown := [word for _, word in parts if word not in _SPELLINGS]:
        raise ValueError(f"{flag} {text}: {unknown[0]} is no unit; {_ALLOWED}")
    units = [_SPELLINGS[word] for _, word in parts]
    if units != [unit for unit in _UNITS_S if unit in units]:
        raise ValueError(f"{flag} {text}: each unit may stand once, the largest first; {_ALLOWED}")
    total = sum(float(number) * _UNITS_S[unit] for (number, _), unit in zip(parts, units, strict=True))
    if total > LONGEST_S:
        raise ValueError(f"{flag} {text}: at most {LONGEST_S / DAY_S:.0f}d")
    if total < _SHORTEST_S:
        raise ValueError(f"{flag} {text}: must be longer than nothing, at least {_SHORTEST_S:g}s")
    return total


def format_flag(seconds: float) -> str:
    """Return a duration in the form that `parse_duration` reads: 5400 becomes `1h30m`."""
    parts, rest = [], seconds
    for unit, unit_s in (("h", 3600.0), ("m", 60.0)):
        whole, rest = divmod(rest, unit_s)
        parts += [f"{whole:.0f}{unit}"] if whole else []
    return "".join([*parts, f"{rest:g}s"] if rest or not parts else parts)


def format_clock(seconds: float) -> str:
    """Return whole seconds as `minutes:SS`, from an hour on as `hours:MM:SS`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_work(seconds: float) -> str:
    """Return rounded seconds as `hours:MM:SS`, from a day on as `2 days, hours:MM:SS`."""
    return str(timedelta(seconds=round(seconds)))


def format_estimate(seconds: float) -> str:
    """Return an estimate: seconds (at least 1) below 100 s, minutes below two hours, hours with a decimal above."""
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def format_age(seconds: float) -> str:
    """Return a duration in seconds, minutes, hours or days, with a decimal if there are fewer than ten of the unit."""
    for unit, next_unit in (("s", 60), ("min", 60), ("h", 48)):
        if seconds < next_unit - 0.5:
            return f"{seconds:.{1 if seconds < 9.95 else 0}f} {unit}"
        seconds /= 24 if unit == "h" else 60
    return f"{seconds:,.0f} d"
