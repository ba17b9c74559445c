"""The importance of the keys of a search: shares with intervals, or the reason why nobody can rank the keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coldtune.metrics.registry import label
from coldtune.studies.insight.key_stages import RETRAINED

FANOVA, PED_ANOVA = "fANOVA", "PED-ANOVA"

_MOSTLY, _SURELY = 0.8, 0.5  # the share of a stage that decides most, and the lower end of its interval

MEANINGS = {
    FANOVA: "the share of the variance between settings that a key decides alone, if all keys are drawn uniformly",
    PED_ANOVA: "how much the best settings differ from all settings in a key, relative to the other keys. It is no "
    "share of variance",
}
"""The meaning of a share, by evaluator."""


@dataclass(frozen=True)
class ImportanceRow:
    """The importance of a key.

    Attributes:
        key: The short name of the key.
        share: Its share, 0..1 (`MEANINGS`).
        low, high: The ends of its 90 % interval. None for PED-ANOVA, whose share has no known truth.
        stage: The stage at which the key acts (`coldtune.studies.insight.key_stages.STAGES`).
        by_chance: True if the key may have no effect at all (`coldtune.studies.insight.chance`).
        rank_held: The share of the resamples in which the key has this rank or a better one, 0..1. None for the last
            key, which always has it, and for PED-ANOVA.
    """

    key: str
    share: float
    low: float | None
    high: float | None
    stage: str
    by_chance: bool = False
    rank_held: float | None = None


@dataclass(frozen=True)
class StageShare:
    """The sum of the shares of all keys that act at a stage, with its interval as in `ImportanceRow`."""

    stage: str
    share: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Importance:
    """The importance of all keys of a study, or a refusal.

    Attributes:
        evaluator: `fANOVA` or `PED-ANOVA`. `MEANINGS` says what it estimates.
        objective: The metrics of the objectives, such as `fid` or `fid and nfe`.
        rows: The keys from the most to the least important. Empty if the study is refused.
        by_stage: The stages at which keys vary, in the order of a trial. Empty if the study is refused.
        r2: The share of the variance between settings that the model of fANOVA predicts for settings that it has not
            seen. None for PED-ANOVA, which has no such model, and if nothing was estimated.
        refusal: Why no ranking is given, in plain English. None if there is one.
        settings: The number of settings behind it.
        notes: Sentences that a reader must know beside the numbers.
    """

    evaluator: str
    objective: str
    rows: tuple[ImportanceRow, ...] = ()
    by_stage: tuple[StageShare, ...] = ()
    r2: float | None = None
    refusal: str | None = None
    settings: int = 0
    notes: tuple[str, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """Return the answer in plain English: the refusal, or the shares of the stages."""
        if self.refusal is not None:
            return (self.refusal, *self.notes)
        said = [f"{self.evaluator} on {self.settings:,} settings: a share is {MEANINGS[self.evaluator]}."]
        if self.r2 is not None:
            said.append(f"The model explains {100 * self.r2:.0f} % of the variance of settings that it has not seen.")
        return (*said, *self._about_order(), *self._about_stages(), *self.notes)

    def _about_order(self) -> list[str]:
        if len(self.rows) < 2:
            return []
        first, second = self.rows[:2]
        if first.low is None or second.high is None:
            return []
        if first.low > second.high:
            return [f"`{first.key}` is the most important key."]
        said = [f"`{first.key}` may not be the most important key, because the interval of `{second.key}` overlaps."]
        if first.rank_held is not None:
            said.append(f"`{first.key}` is first in {100 * first.rank_held:.0f} % of the resamples.")
        return said

    def _about_stages(self) -> list[str]:
        if self.evaluator != FANOVA:
            return []
        name = " and ".join(map(label, self.objective.split(" and ")))
        listed = ", ".join(f"{_percent(each)} at the stage {each.stage}" for each in self.by_stage)
        rest = max(1 - sum(each.share for each in self.by_stage), 0.0)
        said = [
            f"Of the variance of {name}, single keys decide {listed}. Several keys together decide {100 * rest:.0f} %."
        ]
        sampled = [each for each in self.by_stage if each.stage not in RETRAINED]
        retrained = [each for each in self.by_stage if each.stage in RETRAINED]
        if not retrained or not sampled:
            return said
        if _decides(sampled):
            said.append(f"Most of {name} is decided when sampling: nothing needs retraining to change it.")
        elif _decides(retrained):
            said.append(f"Most of {name} is decided before sampling: another sampler or prior hardly changes it.")
        return said


def _percent(stage: StageShare) -> str:
    interval = (
        "" if stage.low is None or stage.high is None else f" ({100 * stage.low:.0f} to {100 * stage.high:.0f} %)"
    )
    return f"{100 * stage.share:.0f} %{interval}"


def _decides(stages: Sequence[StageShare]) -> bool:
    """Return True if the keys of some stages surely decide most of the variance."""
    lows = [each.low or 0.0 for each in stages]
    return sum(each.share for each in stages) >= _MOSTLY and max(lows) >= _SURELY
