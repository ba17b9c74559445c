"""A health check's finding, and the type of a check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from coldtune.studies.insight.facts import StudyFacts


@dataclass(frozen=True)
class HealthCheck:
    """Something that a reader of a study's results should know.

    Attributes:
        name: The name of the check.
        sentence: The finding.
        advice: A remedy.
    """

    name: str
    sentence: str
    advice: str


Check: TypeAlias = Callable[[StudyFacts], Iterator[HealthCheck]]


def listed(words: Sequence[object]) -> str:
    """Return words as `a, b and c`."""
    *others, last = map(str, words)
    return f"{', '.join(others)} and {last}" if others else last
