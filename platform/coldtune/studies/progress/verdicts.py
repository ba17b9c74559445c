"""The verdicts of a study on its settings, from the judgements of all their trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from optuna.trial import TrialState

from coldtune.metrics import Judgement
from coldtune.metrics.registry import label
from coldtune.studies.search.sampler import listed_points
from coldtune.studies.space.config import VARIANT
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.record import StudyRecord, TrialRecord
from coldtune.studies.storage.settings import Setting
from coldtune.studies.trials.reading import StudyReader
from coldtune.verdicts import (
    Family,
    Judged,
    Outcome,
    Plan,
    Training,
    Verdict,
    adjusted_p_values,
    advise,
    judge,
    split_variance,
)
from coldtune.verdicts import Setting as Judgeable

_MOST_TRAININGS = 600  # more would take minutes to judge
_MOST_SENTENCES = 8  # of the comparisons with the base


@dataclass(frozen=True)
class StudyVerdicts:
    """The verdicts of a study.

    Attributes:
        sentences: The verdicts in plain English, the variance by source, and what would narrow the intervals.
        rivals: The numbers of the settings that cannot be told apart from the best setting, the best included.
        family: The comparisons that the study planned, as a line below a table. "" if there are none.
        p_values: By number of a setting, the p-value of its comparison with `reference`, adjusted by Holm.
        reference: The setting that the p-values belong to, for example "base" or "best".
    """

    sentences: Sequence[str] = ()
    rivals: Sequence[int] = ()
    family: str = ""
    p_values: Mapping[int, float] = field(default_factory=dict)
    reference: str = ""


def judge_settings(reader: StudyReader, equal_within: float | None = None) -> StudyVerdicts:
    """Judge the settings of a study with replicates by its first objective, as the family in its spec says.

    A study of one replicate, of several objectives, or of a metric without numbers per image has no verdicts.

    Args:
        equal_within: A difference that does not matter. None takes that of the spec.
    """
    spec = reader.spec
    settings = [each for each in reader.settings() if _takes_part(reader, each)]
    count = sum(len(each.finished) for each in settings)
    if reader.replicates == 1 or len(spec.objectives) > 1 or len(settings) < 2 or not count:
        return StudyVerdicts()
    if count > _MOST_TRAININGS:
        return StudyVerdicts((f"There are no verdicts on {count:,} trainings, only on up to {_MOST_TRAININGS}.",))
    try:
        judging = _Judging.of(reader, settings, equal_within)
    except (KeyError, OSError, ValueError):  # measured by an older version, removed, or a metric without influences
        return StudyVerdicts()
    try:
        return _verdicts(reader, settings, judging)
    except ValueError as error:  # some trainings were judged on other images, for example by an older version
        return StudyVerdicts((f"There are no verdicts: {error}",))


def judge_two(reader: StudyReader, a: int, b: int) -> Verdict | str:
    """Judge setting `a` against setting `b` by all their trainings, or return the reason why there is no verdict.

    If the study planned the comparison, the verdict is that of its family. Otherwise it is marked as secondary.

    Args:
        a: The number of a setting.
        b: The number of another setting.
    """
    spec = reader.spec
    settings = [each for each in reader.settings() if _takes_part(reader, each) or each.number in (a, b)]
    if reader.replicates == 1:
        return "each setting is trained once"
    if len(spec.objectives) > 1:
        return "the study has several objectives"
    count = sum(len(each.finished) for each in settings)
    if count > _MOST_TRAININGS:
        return f"there are no verdicts on {count:,} trainings, only on up to {_MOST_TRAININGS}"
    try:
        planned = all(_takes_part(reader, each) for each in settings)
        return _Judging.of(reader, settings, None).judge_two(a, b, planned)
    except KeyError:
        return "a training was measured by an older version"
    except (OSError, ValueError) as error:
        return str(error)


def _verdicts(reader: StudyReader, settings: Sequence[Setting], judging: _Judging) -> StudyVerdicts:
    spec, names, members = reader.spec, judging.names, judging.members
    sentences: list[str] = []
    rivals: list[int] = []
    family: list[str] = []
    reference, p_values = "", {}
    if "base" in spec.comparisons.family and (base := _base(reader, settings)) is not None:
        against = judging.family_of_base(names[base.number])
        sentences += judging.against_base(against)
        family.append(f"each setting against the base ({against.base}){', the winner first' * bool(against.first)}")
        reference, p_values = "base", judging.p_values(against)
    if "best" in spec.comparisons.family:
        best = judging.judge(all_pairs := Family("best", members))
        if any(verdict.about_settings for verdict in best.verdicts):
            rivals = [number for number, name in names.items() if name in best.rivals]
        sentences += judging.against_best(best)
        family.append("all against the best setting")
        if not reference:
            reference, p_values = "best", judging.p_values(all_pairs, best.best)
    if sentences:
        sentences.append(split_variance(judging.settings).sentence(spec.objective.metric))
    numbers = {number: p_values[name] for number, name in names.items() if name in p_values}
    return StudyVerdicts(sentences, rivals, _describe_family(spec, family), numbers, reference)


@dataclass(frozen=True)
class _Judging:
    reader: StudyReader
    settings: Sequence[Judgeable]
    names: Mapping[int, str]
    members: tuple[str, ...]
    equal_within: float | None

    @classmethod
    def of(cls, reader: StudyReader, settings: Sequence[Setting], equal_within: float | None) -> _Judging:
        """Read the judgements of the settings.

        Raises:
            KeyError: If a training was measured by an older version.
            OSError: If a judgement cannot be read.
            ValueError: If a judgement was removed, or the metric has no influences.
        """
        names = {setting.number: _name(setting) for setting in settings}
        judgeable = _alike([_judgeable(reader, setting, names[setting.number]) for setting in settings])
        members = (*names.values(), *_not_asked(reader, settings))
        return cls(reader, judgeable, names, members, equal_within or reader.spec.comparisons.equal_within)

    def judge_two(self, a: int, b: int, planned: bool) -> Verdict:
        """Return the verdict of the family that has the comparison of two settings, or else a secondary verdict.

        Args:
            planned: False if a setting is in no family, because it was imported without all its trainings.
        """
        two, kinds = (self.names[a], self.names[b]), self.reader.spec.comparisons.family if planned else ()
        base = _base(self.reader, self.reader.settings()) if "base" in kinds else None
        if base is not None and base.number in (a, b):
            judged = self.judge(self.family_of_base(self.names[base.number]))
            return judged[two[0] if base.number == b else two[1]]
        if "best" in kinds:
            judged = self.judge(Family("best", self.members))
            if judged.best in two:
                return judged[two[0] if judged.best == two[1] else two[1]]
        settings = [each for each in self.settings if each.name in two]
        family = Family("base", two, two[1])
        return replace(replace(self, settings=settings).judge(family)[two[0]], secondary=True, looks=1)

    def judge(self, family: Family) -> Judged:
        spec = self.reader.spec
        return judge(
            self.settings,
            family,
            _plan(self.reader),
            spec.objective.metric,
            pair=spec.comparisons.pair,
            equal_within=self.equal_within,
        )

    def p_values(self, family: Family, best: str | None = None) -> dict[str, float]:
        pair = self.reader.spec.comparisons.pair
        return adjusted_p_values(self.settings, family, _plan(self.reader), best, pair=pair)

    def family_of_base(self, base: str) -> Family:
        chosen = self.reader.spec.confirmation
        first = chosen.winner if chosen is not None and chosen.winner != base else None
        return Family("base", self.members, base, first)

    def against_base(self, family: Family) -> list[str]:
        judged, first = self.judge(family), family.first
        ranked = sorted(judged.verdicts, key=lambda verdict: (verdict.a != first, not verdict.outcome.decided))
        if all(verdict.outcome is Outcome.INCOMPLETE for verdict in ranked):
            return [f"The base is {family.base}. {_incomplete(self.reader)}"]
        shown = ranked[:_MOST_SENTENCES]
        sentences = [_sentence(verdict) for verdict in shown]
        if advice := next(filter(None, map(self._advise, shown)), ""):
            sentences.append(advice)
        more = len(ranked) - len(shown)
        return [*sentences, *([f"{more} more comparisons with the base are not shown."] if more else [])]

    def against_best(self, judged: Judged) -> list[str]:
        verdicts = [verdict for verdict in judged.verdicts if verdict.a != judged.best]
        if judged.best is None or not any(verdict.about_settings for verdict in verdicts):
            return []
        others = [name for name in judged.rivals if name != judged.best]
        if others:
            return [_capital(f"{judged.best} has the best mean. It cannot be told apart from {_listed(others)}.")]
        return [_capital(f"{judged.best} is better than every other setting that has a mean.")]

    def _advise(self, verdict: Verdict) -> str:
        """Return what would narrow the interval of a comparison, or "" if it needs nothing."""
        records = (TrialRecord.of(trial) for trial in self.reader.trials())
        protocol = next((record.judged_under for record in records if record.protocol), None)
        said = "" if protocol is None else advise(verdict, protocol.num_images, protocol.num_images)
        return f"Of {verdict.a} and {verdict.b}: {said}" if said else ""


def _describe_family(spec: StudySpec, family: Sequence[str]) -> str:
    """Return the comparisons that a study planned as a line, or "" if it planned none."""
    if not family:
        return ""
    several = len(family) > 1
    return (
        f"{'families' if several else 'family'}: {', and '.join(family)}, by {label(spec.objective.metric)}. "
        f"{'The intervals of each family' if several else 'Its intervals'} together miss in at most 5 % of studies."
    )


def _sentence(verdict: Verdict) -> str:
    paired = "" if verdict.correlation is None else f"Trainings of equal seeds correlate by {verdict.correlation:.2f}."
    return f"{_capital(verdict.sentence())} {paired}".strip()


def _capital(sentence: str) -> str:
    """Begin a sentence about a numbered setting with a capital letter. Names of variants stay as they are."""
    return sentence[:1].upper() + sentence[1:] if sentence.startswith("setting ") else sentence


def _takes_part(reader: StudyReader, setting: Setting) -> bool:
    """Return True for the settings that this study asked, and for imported settings with all trainings."""
    return setting.asked and (not setting.imported or len(setting.finished) >= reader.replicates)


def _judgeable(reader: StudyReader, setting: Setting, name: str) -> Judgeable:
    missing = ""
    for state, word in ((TrialState.PRUNED, "pruned"), (TrialState.FAIL, "failed")):
        if ended := setting.in_state(state):
            missing = f"{word} ({len(ended)} of {reader.replicates})"
            break
    if setting.finished and not setting.pruned:
        missing = ""
    trainings = [
        Training.of(
            Judgement.load(reader.local_folder(TrialRecord.of(trial).measured["sampled"])),
            reader.spec.objective.metric,
            reader.config(trial).training.seed,
            str(TrialRecord.of(trial).checkpoint),
        )
        for trial in setting.finished.values()
    ]
    return Judgeable(name, () if missing else tuple(trainings), missing)


def _alike(settings: list[Judgeable]) -> list[Judgeable]:
    """Take the reference as fixed for all trainings, if it is for some. Judgements of earlier versions took it so."""
    if all(training.reference_influences is not None for setting in settings for training in setting.trainings):
        return settings
    return [
        replace(
            setting,
            trainings=tuple(replace(each, reference_influences=None, pairs=None) for each in setting.trainings),
        )
        for setting in settings
    ]


def _plan(reader: StudyReader) -> Plan:
    """Return the plan of looks: the number of replicates with which the study began, and every later larger number."""
    looks: list[int] = []
    for planned in StudyRecord.of(reader.study).replicates or (reader.replicates,):
        if not looks or planned > looks[-1]:
            looks.append(planned)
    return Plan(tuple(looks))


def _base(reader: StudyReader, settings: Sequence[Setting]) -> Setting | None:
    """Return the setting of the base, or of the first variant."""
    variants = list(reader.space.config.variants)
    point = {VARIANT: variants[0]} if reader.space.size is not None else reader.space.first
    return next((setting for setting in settings if dict(setting.point) == point), None)


def _not_asked(reader: StudyReader, settings: Sequence[Setting]) -> list[str]:
    """Return names for the points of a list that were not asked yet. They belong to the family from the beginning."""
    listed = listed_points(reader.space, reader.spec.search, reader.spec.seed) or []
    asked = [dict(setting.point) for setting in settings]
    missing = [point for point in listed if point not in asked]
    return [str(point.get(VARIANT, f"point {number}")) for number, point in enumerate(missing)]


def _name(setting: Setting) -> str:
    """Return the name of a setting in sentences: that of its variant, if nothing else varies."""
    point = setting.point
    if list(point) == [VARIANT] and setting.promoted_from is None:
        return str(point[VARIANT])
    return f"setting {setting.number}"


def _incomplete(reader: StudyReader) -> str:
    settings = [setting for setting in reader.settings() if setting.asked and not setting.imported]
    least = min((len(setting.finished) for setting in settings if not setting.given_up), default=0)
    return f"{least} of {reader.replicates} trainings of each setting, no verdict yet."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
