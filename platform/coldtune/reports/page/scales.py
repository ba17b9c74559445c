"""The scales of axes: from values to coordinates, with ticks at round values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coldtune.reports.page.document import Axis

_MOST_LABEL = 14  # characters of a tick's label


@dataclass(frozen=True)
class Scale:
    """A map from the values of an axis to coordinates.

    Attributes:
        low, high: The ends of the axis. Of a logarithmic axis, their logarithms.
        start, stop: The coordinates of the ends.
        log: True for a logarithmic axis.
        ticks: The value and the label of each tick.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    @classmethod
    def of(cls, axis: Axis, values: Sequence[float], start: float, stop: float) -> Scale:
        """Return the scale of an axis that shows all `values`. Infinite values are left out."""
        if axis.choices:
            count = len(axis.choices)
            labels = shorten_all(axis.choices, [_MOST_LABEL] * count)
            ticks = tuple((float(place), label) for place, label in enumerate(labels))
            return cls(-0.5, count - 0.5, start, stop, False, ticks)
        finite = [value for value in values if math.isfinite(value) and (value > 0 or not axis.log)]
        low, high = (min(finite), max(finite)) if finite else (1.0, 2.0)
        if axis.log:
            return cls._logarithmic(math.log10(low), math.log10(high), start, stop)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
        low, high = (low - room if low != 0 else low), high + room
        return cls(low, high, start, stop, False, _linear_ticks(low, high))

    @classmethod
    def _logarithmic(cls, low: float, high: float, start: float, stop: float) -> Scale:
        room = 0.04 * (high - low) or 0.1
        low, high = low - room, high + room
        return cls(low, high, start, stop, True, _log_ticks(low, high))

    def at(self, value: float) -> float | None:
        """Return the coordinate of a value. None if the axis cannot show it."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return None
        place = math.log10(value) if self.log else value
        share = (place - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)


def shorten(text: str, most: int) -> str:
    """Return a text of at most `most` characters. It ends in dots if it was longer."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def shorten_all(texts: Sequence[str], most: Sequence[int]) -> list[str]:
    """Return texts of at most so many characters each.

    Texts that would then be equal to each other lose their middle, because names of settings often differ at their end.
    """
    short = [shorten(text, length) for text, length in zip(texts, most, strict=True)]
    equal = {text for text, count in Counter(short).items() if count > 1}
    return [
        _without_middle(text, length) if cut in equal and cut != text else cut
        for text, cut, length in zip(texts, short, most, strict=True)
    ]


def _without_middle(text: str, most: int) -> str:
    end = most // 2
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def write(value: float) -> str:
    """Return a tick's value in few characters."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:,.6g}"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _linear_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return tuple((value := round(place * step, digits), write(value)) for place in range(first, last + 1))


def _log_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    factors = (1,) if high - low > 2 else (1, 2, 5) if high - low > 0.5 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    powers = range(math.floor(low), math.ceil(high) + 1)
    values = [float(f"{factor}e{power}") for power in powers for factor in factors]
    found = [value for value in values if low <= math.log10(value) <= high]
    if len(found) < 2:  # a narrow axis between two round values
        return tuple(tick for tick in _linear_ticks(10**low, 10**high) if low <= math.log10(tick[0]) <= high)
    every = -(-len(found) // 6)
    return tuple((value, write(value)) for value in found[::every])
