"""Races: which settings get another training, from the trainings so far and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from coldtune.verdicts.estimate import Pair
from coldtune.verdicts.families import Family, Judged, judge_panel
from coldtune.verdicts.levels import Plan
from coldtune.verdicts.trainings import Panel, Setting
from coldtune.verdicts.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Standing:
    """A race after the trainings so far.

    Attributes:
        judged: The verdicts of each family.
        wanted: The settings that need trainings for the next look, with the number of trainings that they then have.
        undecided: The settings with a comparison that is not decided, although both sides have or may get a mean.
    """

    judged: tuple[Judged, ...]
    wanted: Mapping[str, int]
    undecided: frozenset[str]

    @property
    def over(self) -> bool:
        """True if no training is wanted, because all is decided or all looks of the plan are complete."""
        return not self.wanted


@dataclass(frozen=True)
class Race:
    """A race of settings: after each look, trainings go to the settings with an undecided comparison.

    A family has its own error. In the family "base", a setting that is decided against the base gets no more trainings,
    and the base continues until all are decided. In the family "best", a setting that is worse than the best setting is
    out, and the others go on until a single setting or only equal settings are left. A setting gets a training if any
    family wants it.

    The race is replayed from its first look whenever it is asked. So its decisions depend on the trainings alone, and
    not on when or how often they were asked for.

    Attributes:
        families: The families of comparisons.
        plan: A plan of `Plan.racing`.
        metric: The metric of the trainings' values.
        pair: "seed" pairs trainings with equal seeds.
        equal_within: A difference that does not matter, or None.
    """

    families: tuple[Family, ...]
    plan: Plan
    metric: str = "fid"
    pair: Pair = "network"
    equal_within: float | None = None

    def standing(self, settings: Iterable[Setting], exhausted: Collection[str] = ()) -> Standing:
        """Judge the trainings so far. A member without a setting has no training yet.

        Args:
            exhausted: Settings that get no more trainings, for example because trainings failed. The others go on.

        Raises:
            ValueError: As `judge`.
        """
        given = {setting.name: setting for setting in settings}
        members = dict.fromkeys(name for family in self.families for name in family.members)
        return self.standing_of(Panel.of(given.get(name, Setting(name, ())) for name in members), exhausted)

    def standing_of(self, panel: Panel, exhausted: Collection[str] = ()) -> Standing:
        """Judge a panel of all members. See `standing`."""
        judged = tuple(
            judge_panel(
                panel,
                family,
                self.plan,
                self.metric,
                pair=self.pair,
                equal_within=self.equal_within,
                exhausted=exhausted,
            )
            for family in self.families
        )
        wanted: dict[str, int] = {}
        for each in judged:
            for name, count in each.wanted.items():
                wanted[name] = max(count, wanted.get(name, 0))
        pending = [verdict for each in judged for verdict in each.verdicts if is_pending(verdict)]
        named = {name for verdict in pending for name in (verdict.a, verdict.b)}
        return Standing(judged, wanted, frozenset(named & set(panel.settings)))


def is_pending(verdict: Verdict) -> bool:
    """Return True if more trainings could decide a comparison. They cannot if a side has no mean."""
    return not verdict.outcome.decided and verdict.outcome is not Outcome.MISSING
