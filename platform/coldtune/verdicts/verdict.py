"""A verdict on two settings, and its sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coldtune.metrics.intervals import LEVEL, Interval
from coldtune.metrics.paired import rounded
from coldtune.metrics.registry import higher_is_better, label
from coldtune.verdicts.estimate import Difference


class Outcome(StrEnum):
    """The outcome of a comparison."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    EQUAL = "practically equal"
    NETWORKS = "networks only"
    """A side has one training. The comparison is about trained networks, not about settings."""
    TOO_FEW = "too few"
    """A side has two trainings. There is a difference with an interval, but no verdict about settings."""
    INCOMPLETE = "no verdict yet"
    """Trainings of the plan are missing."""
    NOT_TESTED = "not tested"
    """The family tests another comparison first, and that comparison is not decided."""
    MISSING = "no mean"
    """A side was pruned or failed, so it has no mean."""

    @property
    def decided(self) -> bool:
        """True if more trainings are not needed."""
        return self in (Outcome.BETTER, Outcome.WORSE, Outcome.EQUAL)


@dataclass(frozen=True)
class Verdict:
    """The comparison of setting A with setting B, or with the best setting, by a metric.

    Outcome and interval come from the same test, so they never disagree.

    Attributes:
        a: The name of A.
        b: The name of B. In the family "best" it is the setting with the best mean.
        metric: The metric, for example "fid" or "sampled/fid".
        outcome: "better" means that A is better.
        difference: A - B with its standard error. None if there is no mean.
        interval: The 95 % interval, adjusted for all comparisons of the family and for all looks. For an outcome about
            networks it covers images only, and is not adjusted.
        count_a: The trainings of A behind the verdict.
        count_b: The trainings of B behind the verdict.
        chance: The probability that a new training of A beats a new training of B, or None below 2 trainings. If
            trainings are paired, it is that of a new pair.
        correlation: The correlation of trainings with equal seeds, or None below 3 such pairs (`paying_correlation`
            says what it is good for).
        alpha: The level of the interval after all adjustments.
        comparisons: The number of comparisons in the family.
        looks: The number of looks of the plan.
        equal_within: A difference that does not matter, or None.
        planned: The trainings of each setting that the next look needs, if the outcome is "no verdict yet".
        reason: Why there is no mean, or no test.
        against_best: True if B was chosen as the setting with the best mean, in the family "best".
        secondary: True if the verdict is not in the family, so it is not adjusted.
    """

    a: str
    b: str
    metric: str
    outcome: Outcome
    difference: Difference | None = None
    interval: Interval | None = None
    count_a: int = 0
    count_b: int = 0
    chance: float | None = None
    correlation: float | None = None
    alpha: float = 1 - LEVEL
    comparisons: int = 1
    looks: int = 1
    equal_within: float | None = None
    planned: int | None = None
    reason: str = ""
    against_best: bool = False
    secondary: bool = False

    @property
    def paired(self) -> bool:
        """True if trainings of A and B were paired."""
        return self.difference is not None and self.difference.paired

    @property
    def p_value(self) -> float | None:
        """The two-sided p-value of this comparison alone, or None if it is not about settings. Tables apply `holm`."""
        return self.difference.p_value if self.difference is not None and self.about_settings else None

    @property
    def about_settings(self) -> bool:
        """True if the outcome is a verdict about settings, not only about networks."""
        return self.outcome.decided or self.outcome is Outcome.UNDECIDED

    def sentence(self, a: str | None = None, b: str | None = None) -> str:
        """Return the verdict in plain English, with the number of trainings that it rests on.

        Args:
            a: Another name for A.
            b: Another name for B.
        """
        a, b = a or self.a, b or self.b
        if self.outcome is Outcome.MISSING:
            return f"{a} and {b} cannot be compared: {self.reason}."
        if self.outcome is Outcome.INCOMPLETE:
            return f"{a} and {b}: {min(self.count_a, self.count_b)} of {self.planned} trainings, no verdict yet."
        numbers = self._numbers()
        if self.outcome is Outcome.NOT_TESTED:
            return f"{a} and {b} get no verdict, because {self.reason}: {numbers}, {self._trainings(a, b)}."
        if self.outcome is Outcome.NETWORKS:
            rests = self._trainings(a, b)
            return f"{self._networks(a, b)}: {numbers}. This rests on {rests} and says nothing about the settings."
        if self.outcome is Outcome.TOO_FEW:
            return f"{a} and {b} have too few trainings for a verdict: {numbers}, {self._trainings(a, b)}."
        other = f"the best setting ({b})" if self.against_best else b
        said = {
            Outcome.BETTER: f"{a} is better than {other}",
            Outcome.WORSE: f"{a} is worse than {other}",
            Outcome.UNDECIDED: f"{a} and {other} cannot be told apart",
            Outcome.EQUAL: f"{a} and {other} are practically equal (within {self.equal_within or 0:g})",
        }[self.outcome]
        return f"{said}: {numbers}, {self._trainings(a, b)}.{self._chance(a, b)}"

    def _numbers(self) -> str:
        assert self.interval is not None
        value, low, high = rounded(self.interval)
        text = f"{label(self.metric.rpartition('/')[2])} {value}, 95 % CI [{low}, {high}]"
        if self.outcome is Outcome.NETWORKS:
            return f"{text} over images"
        text += " over trainings and images"
        shared = [f"{self.comparisons} comparisons"] if self.comparisons > 1 else []
        shared += [f"{self.looks} looks"] if self.looks > 1 else []
        if shared and self.about_settings:
            text += f", adjusted for {' and '.join(shared)}"
        return f"{text}, secondary, unadjusted" if self.secondary else text

    def _networks(self, a: str, b: str) -> str:
        assert self.interval is not None
        if not self.interval.excludes_zero:
            return f"The networks of {a} and {b} cannot be told apart"
        better = (self.interval.value > 0) == higher_is_better(self.metric.rpartition("/")[2])
        word = "better" if better else "worse"
        if max(self.count_a, self.count_b) > 1:
            return f"The networks of {a} are on average {word} than those of {b}"
        return f"The network of {a} is {word} than that of {b}"

    def _trainings(self, a: str, b: str) -> str:
        how = " (paired)" if self.paired else ""
        if self.count_a == self.count_b:
            return f"{self.count_a} training{'s' if self.count_a > 1 else ''} each{how}"
        trainings = f"{self.count_a} training{'s' if self.count_a > 1 else ''}"
        return f"{trainings} of {a} and {self.count_b} of {b}{how}"

    def _chance(self, a: str, b: str) -> str:
        if self.chance is None or self.against_best:
            return ""
        percent = min(max(round(100 * self.chance), 1), 99)
        if self.paired:  # two trainings that are no pair differ far more
            return f" In a new pair of trainings, {a} beats {b} with a probability of about {percent} %."
        return f" A new training of {a} beats a new training of {b} with a probability of about {percent} %."
