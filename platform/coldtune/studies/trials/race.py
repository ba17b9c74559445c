"""A study's race: how many trainings each setting gets next, from the finished trainings in the study's storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coldtune.studies.space.space import Space
from coldtune.studies.spec.replicates import Racing
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.settings import Setting
from coldtune.studies.trials.judging import JudgeableSettings, SettingsJudge
from coldtune.verdicts import Plan, Race, Standing


@dataclass(frozen=True)
class RaceStanding:
    """A study's race after the trainings so far.

    Attributes:
        standing: The verdicts of the families, and the trainings to come.
        judged: The names of the settings.
        first: The trainings that every setting gets.
        exhausted: The names of the settings that lack trainings for a look and get no more, because trainings failed.
    """

    standing: Standing
    judged: JudgeableSettings
    first: int
    exhausted: frozenset[str] = frozenset()

    def target(self, number: int) -> int:
        """Return how many trainings a setting should have before the next look."""
        return max(self.first, self.standing.wanted.get(self.judged.names.get(number, ""), 0))

    def is_decided(self, number: int) -> bool:
        """Return True if all comparisons of a setting are decided."""
        return self.judged.names.get(number) not in self.standing.undecided

    @property
    def rivals(self) -> list[int]:
        """The numbers of the settings that are still the best or equal to it. Empty without the family "best"."""
        names = {name for each in self.standing.judged for name in each.rivals}
        return [number for number, name in self.judged.names.items() if name in names]


class StudyRace:
    """The race of a study. It is replayed whenever a training has ended, and keeps nothing that the storage lacks.

    So a resumed race continues as if it had not been interrupted, and no decision depends on who looks at the study.
    """

    def __init__(self, spec: StudySpec, space: Space, local_folder: Callable[[str], Path]) -> None:
        """Create the race of a study. `local_folder` returns the local folder of an address in a trial's record."""
        assert spec.race is not None
        self._spec, self.ends = spec, spec.race
        self._judge = SettingsJudge(spec, space, local_folder)
        self._known: tuple[object, RaceStanding] | None = None

    def standing(self, settings: Sequence[Setting]) -> RaceStanding:
        """Return the race after the finished trainings of all settings of the study.

        Raises:
            ValueError: If a training was judged without its images, or its judgement is no longer in the store.
            OSError: If the store cannot be read.
        """
        trials = [trial for each in settings for trial in each.trials.values()]
        ended = tuple(trial.number for trial in trials if trial.state.is_finished())
        key = (ended, max((trial.number for trial in trials), default=-1), sum(each.asked for each in settings))
        if self._known is None or self._known[0] != key:
            try:
                judged = self._judge.gather(settings, self.ends.most)
            except KeyError as error:
                raise ValueError(
                    f"a training has no judgement of {error}, without which a race is not decided"
                ) from None
            self._known = (key, self._judged(settings, judged))
        return self._known[1]

    def _judged(self, settings: Sequence[Setting], judged: JudgeableSettings) -> RaceStanding:
        race, exhausted = self._race(judged), frozenset[str]()
        while True:
            standing = RaceStanding(race.standing(judged.settings, exhausted), judged, self.ends.first, exhausted)
            waits = [each for each in settings if judged.names.get(each.number, "") in standing.standing.wanted]
            stuck = {judged.names[each.number] for each in waits if self._gets_no_more(each, standing)}
            if stuck <= exhausted:
                return standing
            exhausted |= stuck

    def _gets_no_more(self, setting: Setting, standing: RaceStanding) -> bool:
        return not setting.running() and not setting.open_in_race(standing.target(setting.number), self.ends.most)

    def _race(self, judged: JudgeableSettings) -> Race:
        compared = self._spec.comparisons
        return Race(
            judged.families(compared.family),
            race_plan(self.ends),
            self._spec.objective.metric,
            compared.pair,
            compared.equal_within,
        )


def race_plan(ends: Racing) -> Plan:
    """Return the looks of a race: after each number of trainings from the first on."""
    return Plan.racing(ends.first, ends.most)
