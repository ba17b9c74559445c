"""Verdicts of single comparisons and of families that were written down before the first training."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from coldtune.metrics.intervals import LEVEL, Interval
from coldtune.metrics.registry import higher_is_better
from coldtune.verdicts.estimate import Pair, chance_of_beating, contrast, correlation
from coldtune.verdicts.levels import LEAST, Plan, per_comparison
from coldtune.verdicts.trainings import Panel, Setting
from coldtune.verdicts.verdict import Outcome, Verdict

ALPHA = 1 - LEVEL


@dataclass(frozen=True)
class Family:
    """The comparisons that share an error of 5 %, fixed before the first training.

    Attributes:
        kind: "base" compares each setting with the base. "best" compares each setting with the best setting, and
            accounts for the fact that the best setting is chosen by the same data.
        members: The names of all settings, the base included. Members that were pruned, failed or have no training
            yet count too.
        base: The name of the base, for the kind "base".
        first: A setting that is tested against the base before all others, at the full error. For example the winner
            of a search, which is confirmed by new trainings. The other comparisons get a verdict only if that
            comparison is decided. So the error of all verdicts is still 5 %.
        to_come: How many further members there will be, for example settings that a search has not chosen yet. Their
            comparisons share the error from the start, and the best setting is not known before they are there.
    """

    kind: Literal["base", "best"]
    members: tuple[str, ...]
    base: str | None = None
    first: str | None = None
    to_come: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"family: {', '.join(self.members)}: a setting is there twice")
        if (self.kind == "base") != (self.base is not None):
            raise ValueError(f"family: kind = {self.kind!r} with base = {self.base!r}: only the kind 'base' has a base")
        for role, name in (("base", self.base), ("first", self.first)):
            if name is not None and name not in self.members:
                raise ValueError(f"family: {role} = {name!r}: must be a member ({', '.join(self.members)})")
        if self.first is not None and self.first == self.base:
            raise ValueError(f"family: first = {self.first!r}: must not be the base")
        if self.first is not None and self.kind == "best":
            raise ValueError(f"family: first = {self.first!r}: only the kind 'base' tests a setting first")

    @property
    def comparisons(self) -> int:
        """The number of comparisons that share the error: all pairs if the best setting is chosen by the same data."""
        count = len(self.members) + self.to_come
        if self.kind == "best":
            return max(math.comb(count, 2), 1)
        return max(count - 1 - (self.first is not None), 1)

    def alpha(self, name: str) -> float:
        """Return the level of the comparison of a setting, before it is shared among looks."""
        return ALPHA if name == self.first else per_comparison(ALPHA, self.comparisons)


def compare(
    a: Setting,
    b: Setting,
    metric: str = "fid",
    *,
    pair: Pair = "network",
    equal_within: float | None = None,
    alpha: float = ALPHA,
    secondary: bool = False,
) -> Verdict:
    """Compare two settings by all their trainings, as a comparison of its own.

    The interval is that of a single comparison that was planned beforehand. Use `judge` for the comparisons of a study.

    Args:
        metric: The metric of the trainings' values. A prefix such as "sampled/" is ignored.
        pair: "seed" pairs trainings with equal seeds. Trainings of the same network are paired in any case.
        equal_within: A difference that does not matter. "practically equal" is then possible.
        alpha: The level of the interval.
        secondary: Mark the verdict as "secondary, unadjusted".

    Raises:
        ValueError: If the settings were judged on different images, a setting has no training, or `equal_within` is
            not positive.
    """
    panel = Panel.of([a, b])
    verdict = _compare(panel, a.name, b.name, metric, alpha, pair, _checked(equal_within))
    return replace(verdict, secondary=secondary)


def _checked(equal_within: float | None) -> float | None:
    if equal_within is not None and not 0 < equal_within < float("inf"):
        raise ValueError(f"equal_within = {equal_within:g}: must be a number greater than 0")
    return equal_within


def _compare(
    panel: Panel, a: str, b: str, metric: str, alpha: float, pair: Pair, equal_within: float | None
) -> Verdict:
    """Compare two settings of a panel by all its trainings of them."""
    difference = contrast(panel, {a: 1.0, b: -1.0}, pair)
    counts = (difference.counts[a], difference.counts[b])
    if difference.least == 1:
        return Verdict(a, b, metric, Outcome.NETWORKS, difference, difference.image_interval(), *counts)
    too_few = difference.least < LEAST
    alpha = ALPHA if too_few else alpha  # without a verdict there is nothing to adjust for
    interval, higher = difference.interval(alpha), higher_is_better(metric.rpartition("/")[2])
    return Verdict(
        a,
        b,
        metric,
        Outcome.TOO_FEW if too_few else _outcome(interval, higher, equal_within),
        difference,
        interval,
        *counts,
        chance=chance_of_beating(difference, higher),
        correlation=correlation(panel, a, b),
        alpha=alpha,
        equal_within=equal_within,
    )


def later_verdict(before: Verdict | None, new: Verdict) -> Verdict:
    """Return the verdict of the later look, unless only the earlier look decides. Each look has its own error."""
    return before if before is not None and before.outcome.decided and not new.outcome.decided else new


def _outcome(interval: Interval, higher: bool, equal_within: float | None) -> Outcome:
    if equal_within is not None and -equal_within < interval.low and interval.high < equal_within:
        return Outcome.EQUAL
    if not interval.excludes_zero:
        return Outcome.UNDECIDED
    return Outcome.BETTER if (interval.value > 0) == higher else Outcome.WORSE


@dataclass(frozen=True)
class Judged:
    """The verdicts of a family, and the trainings to come.

    Attributes:
        verdicts: A verdict for each comparison, in the order of the members.
        best: The setting with the best mean, in the family "best".
        rivals: `best` and all settings that are not worse, in the family "best". Tables print all of them in bold.
        wanted: The settings that need a training for the next look, with the number of trainings that they then have.
            Empty if all is decided, or the plan is complete.
    """

    verdicts: tuple[Verdict, ...]
    best: str | None = None
    rivals: tuple[str, ...] = ()
    wanted: Mapping[str, int] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """True if no training is wanted."""
        return not self.wanted

    def __getitem__(self, name: str) -> Verdict:
        return {verdict.a: verdict for verdict in self.verdicts}[name]


def judge(
    settings: Iterable[Setting],
    family: Family,
    plan: Plan | None = None,
    metric: str = "fid",
    *,
    pair: Pair = "network",
    equal_within: float | None = None,
    exhausted: Collection[str] = (),
) -> Judged:
    """Judge a family of comparisons with an error of 5 % for all comparisons and all looks.

    Each comparison has the level of Sidak's inequality, and each look of it the level of the plan. In the family
    "best", all pairs of settings share the error, as in the test of Games and Howell (1976). So it does not matter
    which setting the data choose as the best.

    A race is replayed from its first look, so the result does not depend on when it was looked at before. A setting
    that is decided needs no more trainings, and keeps its verdict.

    Args:
        settings: The settings with their trainings, in any order. A member that is absent has no training yet.
        plan: None takes all trainings at once, and nothing may be added afterwards.
        exhausted: Settings that get no more trainings, although the plan has more looks, for example because trainings
            failed. A race continues without them, and they keep the verdicts of their last look.

    Raises:
        ValueError: As `compare`, or if a setting is no member of the family.
    """
    given = {setting.name: setting for setting in settings}
    if strangers := [name for name in given if name not in family.members]:
        raise ValueError(f"setting {strangers[0]}: no member of the family ({', '.join(family.members)})")
    panel = Panel.of(given.get(name, Setting(name, ())) for name in family.members)
    return judge_panel(panel, family, plan, metric, pair=pair, equal_within=equal_within, exhausted=exhausted)


def judge_panel(
    panel: Panel,
    family: Family,
    plan: Plan | None = None,
    metric: str = "fid",
    *,
    pair: Pair = "network",
    equal_within: float | None = None,
    exhausted: Collection[str] = (),
) -> Judged:
    """Judge a family whose trainings were gathered before. The panel has all members. See `judge`."""
    judging = _Judging(panel, family, plan, metric, pair, _checked(equal_within), frozenset(exhausted))
    return judging.against_base() if family.kind == "base" else judging.against_best()


@dataclass(frozen=True)
class _Judging:
    panel: Panel
    family: Family
    plan: Plan | None
    metric: str
    pair: Pair
    equal_within: float | None
    exhausted: frozenset[str]

    def count(self, name: str) -> int:
        return len(self.panel.settings[name].trainings)

    @property
    def racing(self) -> bool:
        return self.plan is not None and self.plan.spending == "racing"

    def looks(self, names: Sequence[str]) -> list[int | None]:
        """Return the looks that these settings complete, in their order. None is a look at all trainings."""
        least = min(map(self.count, names), default=0)
        if self.plan is None:
            return [None] if least else []
        return [look for look in self.plan.looks if look <= least and self.shows(look)]

    def shows(self, look: int) -> bool:
        """Return False for a look of a fixed plan that can give no verdict, and that later looks follow."""
        assert self.plan is not None
        return self.racing or look in self.plan.counted or look == self.plan.looks[-1]

    def at(self, counts: Mapping[str, int | None]) -> Panel:
        """Return the panel at a look. A count of None takes all trainings."""
        return self.panel.first({name: self.count(name) if n is None else n for name, n in counts.items()})

    def alpha(self, name: str, look: int | None) -> float:
        alpha = self.family.alpha(name)
        return alpha if self.plan is None or look is None else self.plan.alpha_at(look, alpha)

    def labelled(self, verdict: Verdict) -> Verdict:
        comparisons = 1 if verdict.a == self.family.first else self.family.comparisons
        looks = len(self.plan.counted) if self.plan else 1
        return replace(verdict, comparisons=comparisons, looks=max(looks, 1))

    def incomplete(self, a: str, b: str, *names: str) -> Verdict:
        """Return the verdict of a comparison that has no complete look, because of the named settings."""
        count = min(map(self.count, names))
        looks = [] if self.plan is None else [look for look in self.plan.looks if self.shows(look)]
        planned = min(looks, default=1)
        return Verdict(a, b, self.metric, Outcome.INCOMPLETE, count_a=count, count_b=count, planned=planned)

    def absent(self, a: str, b: str) -> Verdict | None:
        """Return the verdict of a comparison if a side has no mean."""
        for name in (a, b):
            if reason := self.panel.settings[name].missing:
                return Verdict(a, b, self.metric, Outcome.MISSING, reason=f"{name} {reason}")
        return None

    def next_look(self, names: Sequence[str]) -> dict[str, int]:
        """Return the settings that the next look of the named settings waits for, with its number of trainings."""
        if self.plan is None or not names:
            return {}
        least = min(map(self.count, names))
        if not self.racing:
            return {name: self.plan.looks[-1] for name in names if self.count(name) < self.plan.looks[-1]}
        look = min((look for look in self.plan.looks if look > least), default=None)
        return {} if look is None else {name: look for name in names if self.count(name) < look}

    def against_base(self) -> Judged:
        base = self.family.base
        assert base is not None
        verdicts, live = [], []
        for name in (name for name in self.family.members if name != base):
            verdict = self.absent(name, base) or self.incomplete(name, base, name, base)
            if verdict.outcome is not Outcome.MISSING:
                for look in self.looks([name, base]):
                    panel, alpha = self.at({name: look, base: look}), self.alpha(name, look)
                    new = _compare(panel, name, base, self.metric, alpha, self.pair, self.equal_within)
                    verdict = later_verdict(verdict, new)
                    if self.racing and verdict.outcome.decided:
                        break
                stopped = verdict.outcome.decided or self.exhausted & {name, base}
                if not (self.racing and stopped):
                    live.append(name)
            verdicts.append(self.labelled(verdict))
        return Judged(self._gated(verdicts), wanted=self.next_look([*live, base]) if live else {})

    def _gated(self, verdicts: list[Verdict]) -> tuple[Verdict, ...]:
        """Return the verdicts without those that wait for the comparison that is tested first."""
        first = self.family.first
        if first is None or next(verdict for verdict in verdicts if verdict.a == first).outcome.decided:
            return tuple(verdicts)
        reason = f"{first} was tested first and is not decided"
        return tuple(
            replace(verdict, outcome=Outcome.NOT_TESTED, reason=reason)
            if verdict.a != first and verdict.about_settings
            else verdict
            for verdict in verdicts
        )

    def against_best(self) -> Judged:
        members = [name for name in self.family.members if not self.panel.settings[name].missing]
        best: str | None = members[0] if len(members) == 1 else None
        found: dict[str, Verdict] = {}
        live = list(members)
        # Settings that a race dropped lack later looks, so the looks of each round are those of the settings left.
        done: list[int | None] = []
        while len(live) > 1 and not self.family.to_come:
            if not (due := [look for look in self.looks(live) if look not in done]):
                left = [name for name in live if name not in self.exhausted]
                if not self.racing or len(left) == len(live):
                    break
                live = left
                continue
            done.append(due[0])
            best, verdicts = self.round(live, due[0])
            found |= {name: later_verdict(found.get(name), verdict) for name, verdict in verdicts.items()}
            if self.racing:
                live = [name for name in live if name == best or not found[name].outcome.decided]
        others = [name for name in self.family.members if name != best]
        shown = tuple(self.labelled(found.get(name) or self.without_look(name, best, live)) for name in others)
        left_out = (Outcome.MISSING, Outcome.INCOMPLETE, Outcome.WORSE)
        rivals = () if best is None else (best, *(v.a for v in shown if v.outcome not in left_out))
        undecided = any(v.outcome is not Outcome.MISSING and not v.outcome.decided for v in shown)
        goes_on = not self.racing or (undecided and len(live) > 1)
        return Judged(shown, best, rivals, self.next_look(live) if goes_on else {})

    def without_look(self, name: str, best: str | None, live: Sequence[str]) -> Verdict:
        """Return the verdict of a setting that no look has compared with the best setting."""
        other = best or "the best setting"
        if reason := self.panel.settings[name].missing:
            return Verdict(name, other, self.metric, Outcome.MISSING, reason=f"{name} {reason}")
        return self.incomplete(name, other, *live)

    def round(self, live: Sequence[str], look: int | None) -> tuple[str, dict[str, Verdict]]:
        """Compare all settings that are left with the best of them at a look. Return the best and the verdicts."""
        panel = self.at(dict.fromkeys(live, look))
        sign = 1.0 if higher_is_better(self.metric.rpartition("/")[2]) else -1.0
        means = {name: sign * float(np.mean(panel.settings[name].values)) for name in live}
        best = max(live, key=lambda name: means[name])
        alpha = self.alpha(best, look)
        verdicts = {
            name: _compare(panel, name, best, self.metric, alpha, self.pair, self.equal_within)
            for name in live
            if name != best
        }
        return best, {name: replace(verdict, against_best=True) for name, verdict in verdicts.items()}
