"""The verdicts of a study on its settings, from the judgements of all their trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from coldtune.metrics.registry import label
from coldtune.studies.progress.racing import describe_out, describe_race, describe_undecided
from coldtune.studies.spec.race_checks import MOST_TRAININGS
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.record import StudyRecord, TrialRecord
from coldtune.studies.trials.judging import JudgeableSettings, SettingsJudge
from coldtune.studies.trials.reading import StudyReader
from coldtune.verdicts import (
    Family,
    Judged,
    Outcome,
    Split,
    Verdict,
    adjusted_p_values,
    advise,
    describe_others,
    judge,
    split_variance,
)
from coldtune.verdicts.racing import is_pending

_MOST_SENTENCES = 8  # of the comparisons with the base
_MORE = 3  # further trainings of each setting, of which advice speaks first


@dataclass(frozen=True)
class StudyVerdicts:
    """The verdicts of a study.

    Attributes:
        sentences: The verdicts in plain English, the variance by source, and what would narrow the intervals.
        rivals: The numbers of the settings that cannot be told apart from the best setting, the best included.
        family: The comparisons that the study planned, as a line below a table. "" if there are none.
        p_values: By number of a setting, the p-value of its comparison with `reference`, adjusted by Holm.
        reference: The setting that the p-values belong to, for example "base" or "best".
        open: The numbers of the settings that cannot be told apart from the base, and of the base. Empty if there are
            none.
    """

    sentences: Sequence[str] = ()
    rivals: Sequence[int] = ()
    family: str = ""
    p_values: Mapping[int, float] = field(default_factory=dict)
    reference: str = ""
    open: Sequence[int] = ()


def judge_settings(reader: StudyReader, equal_within: float | None = None) -> StudyVerdicts:
    """Judge the settings of a study with replicates by its first objective, as the family in its spec says.

    A study of one replicate has no verdicts. A study of several objectives, or of a metric without numbers for each
    image, says why it has none. A race gives a verdict on each comparison as soon as the comparison is decided. The
    variance by source follows as far as it is known, also for a single setting.

    Args:
        equal_within: A difference that does not matter. None takes that of the spec.
    """
    spec = reader.spec
    if reader.replicates == 1:
        return StudyVerdicts()
    settings = [each for each in reader.settings() if each.asked and not (each.imported and not each.finished)]
    count = sum(len(each.finished) for each in settings)
    if not count:
        return StudyVerdicts()
    if count > MOST_TRAININGS:
        return StudyVerdicts((f"There are no verdicts on {count:,} trainings, only on up to {MOST_TRAININGS}.",))
    try:
        judged = _gather(reader)
        judging = _Judging(reader, judged, equal_within or spec.comparisons.equal_within, describe_race(reader))
        if len(spec.objectives) > 1:
            reason = "There are no verdicts on settings, because the study has several objectives."
            return StudyVerdicts((reason, *judging.variances()))
        if len(judged.settings) < 2:
            return StudyVerdicts(tuple(judging.variances()))
        return judging.verdicts()
    except (KeyError, OSError, ValueError) as error:
        if reader.race is not None:
            return StudyVerdicts((f"The race cannot be judged: {_why_not(error)}.",))
        return StudyVerdicts((f"There are no verdicts on settings, because {_why_not(error)}.",))


def _why_not(error: KeyError | OSError | ValueError) -> str:
    """Return why the trainings of a study cannot be judged."""
    if isinstance(error, KeyError):
        return "a training was measured by an older version"
    return str(error).rstrip(".")


def judge_two(reader: StudyReader, a: int, b: int) -> Verdict | str:
    """Judge setting `a` against setting `b` by all their trainings, or return the reason why there is no verdict.

    If the study planned the comparison, the verdict is that of its family. Otherwise it is marked as secondary.

    Args:
        a: The number of a setting.
        b: The number of another setting.
    """
    if reader.replicates == 1:
        return "each setting is trained once"
    if len(reader.spec.objectives) > 1:
        return "the study has several objectives"
    count = sum(len(each.finished) for each in reader.settings())
    if count > MOST_TRAININGS:
        return f"there are no verdicts on {count:,} trainings, only on up to {MOST_TRAININGS}"
    try:
        judged = _gather(reader)
        if missing := [number for number in (a, b) if number not in judged.names]:
            return f"setting {missing[0]} was imported without all its trainings"
        judging = _Judging(reader, judged, reader.spec.comparisons.equal_within, describe_race(reader))
        verdict = judging.judge_two(a, b)
    except (KeyError, OSError, ValueError) as error:
        return _why_not(error)
    if judging.goes_on and is_pending(verdict):
        return "the race has not decided this comparison yet"
    return verdict


def _gather(reader: StudyReader) -> JudgeableSettings:
    if reader.race is not None:
        return reader.race.standing(reader.settings()).judged
    record = StudyRecord.of(reader.study)
    planned = 0 if reader.settled() else record.trials or 0
    judge = SettingsJudge(reader.spec, reader.space, reader.local_folder)
    return judge.gather(reader.settings(), reader.replicates, planned)


@dataclass(frozen=True)
class _Judging:
    """The verdicts of a study.

    Attributes:
        race: The sentence about the state of the race. None for a fixed number of trainings.
    """

    reader: StudyReader
    judged: JudgeableSettings
    equal_within: float | None
    race: str | None

    @property
    def goes_on(self) -> bool:
        """True if a race may still decide what is not decided yet."""
        return self.race is not None and self.reader.race_goes_on()

    def verdicts(self) -> StudyVerdicts:
        """Return the verdicts of all families in the spec."""
        spec, names = self.reader.spec, self.judged.names
        sentences: list[str] = []
        rivals: list[int] = []
        described: list[str] = []
        open_ones: set[str] = set()
        reference, p_values = "", {}
        for family in self.judged.families(spec.comparisons.family):
            if family.kind == "base":
                against = self.with_first(family)
                judged = self.judge(against)
                sentences += self.against_base(against, judged)
                open_ones = set() if self.goes_on else _open_comparisons(judged)
                described.append(
                    f"each setting against the base ({against.base}){', the winner first' * bool(against.first)}"
                )
                reference, p_values = "base", self.p_values(against)
                continue
            best = self.judge(family)
            if any(verdict.about_settings for verdict in best.verdicts) and not (self.goes_on and best.wanted):
                rivals = [number for number, name in names.items() if name in best.rivals]
            sentences += self.against_best(best)
            described.append("all against the best setting")
            if not reference:
                reference, p_values = "best", self.p_values(family, best.best)
        if sentences and not self.goes_on:
            sentences += self.variances(least=1)
        if self.race is not None:
            sentences.append(self.race)
        numbers = {number: p_values[name] for number, name in names.items() if name in p_values}
        undecided = [number for number, name in names.items() if name in open_ones]
        return StudyVerdicts(sentences, rivals, _describe_family(spec, described), numbers, reference, undecided)

    def variances(self, least: int = 2) -> list[str]:
        """Return the variance of each metric by source.

        Args:
            least: Say nothing if no setting has as many trainings.
        """
        if max(len(each.trainings) for each in self.judged.settings) < least:
            return []
        own = split_variance(self.judged.settings).sentence(self.reader.spec.objective.metric)
        return list(filter(None, [own, describe_others(self.others())]))

    def others(self) -> dict[str, Split]:
        """Return the variance by source of every metric but the first objective."""
        reader = self.reader
        judge = SettingsJudge(reader.spec, reader.space, reader.local_folder)
        return judge.split_others(reader.settings(), reader.replicates)

    def judge_two(self, a: int, b: int) -> Verdict:
        """Return the verdict of the family that has the comparison of two settings, or else a secondary verdict."""
        two = (self.judged.names[a], self.judged.names[b])
        for family in self.judged.families(self.reader.spec.comparisons.family):
            judged = self.judge(self.with_first(family))
            reference = judged.best if family.kind == "best" else family.base
            if reference in two:
                return judged[two[0] if reference == two[1] else two[1]]
        settings = tuple(each for each in self.judged.settings if each.name in two)
        alone = replace(self, judged=replace(self.judged, settings=settings))
        return replace(alone.judge(Family("base", two, two[1]))[two[0]], secondary=True, looks=1)

    def p_values(self, family: Family, best: str | None = None) -> dict[str, float]:
        """Return the adjusted p-values of a family. There are none while a race goes on."""
        if self.goes_on:
            return {}
        pair = self.reader.spec.comparisons.pair
        return adjusted_p_values(self.judged.settings, family, self.reader.plan(), best, pair=pair)

    def with_first(self, family: Family) -> Family:
        """Return the family, with the winner of a confirmed search as the setting that is tested first."""
        chosen = self.reader.spec.confirmation
        first = chosen.winner if chosen is not None and chosen.winner != family.base else None
        return replace(family, first=first) if family.kind == "base" else family

    def judge(self, family: Family) -> Judged:
        """Judge a family of comparisons under the plan of the study."""
        spec = self.reader.spec
        return judge(
            self.judged.settings,
            family,
            self.reader.plan(),
            spec.objective.metric,
            pair=spec.comparisons.pair,
            equal_within=self.equal_within,
            exhausted=() if (standing := self.reader.standing()) is None else standing.exhausted,
        )

    def against_base(self, family: Family, judged: Judged) -> list[str]:
        """Return a sentence for each comparison with the base, and what would narrow the intervals."""
        first = family.first
        names = set(self.judged.names.values())
        known = [verdict for verdict in judged.verdicts if verdict.a in names]
        ranked = sorted(known, key=lambda verdict: (verdict.a != first, not verdict.outcome.decided))
        if all(verdict.outcome is Outcome.INCOMPLETE for verdict in ranked):
            return [f"The base is {family.base}. {_incomplete(self.reader)}", *self.lacking()]
        shown = ranked[:_MOST_SENTENCES]
        sentences = [self.sentence(verdict) for verdict in shown]
        if self.race is None and (advice := next(filter(None, map(partial(self._advise, family), shown)), "")):
            sentences.append(advice)
        more, later = len(ranked) - len(shown), family.to_come + len(judged.verdicts) - len(known)
        hidden = f"{more} more comparison{'s' * (more > 1)} with the base {'are' if more > 1 else 'is'} not shown."
        to_come = f"{later} setting{'s' * (later > 1)} to come {'are' if later > 1 else 'is'} part of the adjustment."
        return [*sentences, *([hidden] if more else []), *([to_come] if later else []), *self.lacking()]

    def lacking(self) -> list[str]:
        """Return a sentence about the settings that get no verdict because trainings failed. Empty if there are none.

        A race has other rules for failed trainings.
        """
        reader, names, last = self.reader, self.judged.names, self.reader.plan().looks[-1]
        if self.race is not None:
            return []
        settings = (each for each in reader.settings() if each.number in names and each.failed and not each.given_up)
        short = [names[each.number] for each in settings if len(each.finished) < last and not reader.missing(each)]
        if not short:
            return []
        return [
            f"Trainings of {_listed(short)} failed, so comparisons that need {last} trainings of each wait. "
            "`--retry-failed` asks failed trainings again, and a larger `--replicates` adds other seeds."
        ]

    def sentence(self, verdict: Verdict) -> str:
        """Return the sentence of a comparison. Before a race has decided it, the sentence has no verdict."""
        if self.goes_on and is_pending(verdict):
            return _capital(describe_undecided(verdict, self.reader.replicates))
        known = verdict.correlation is not None
        paired = f" Trainings of equal seeds correlate by {verdict.correlation:.2f}." if known else ""
        return f"{_capital(verdict.sentence())}{paired}"

    def against_best(self, judged: Judged) -> list[str]:
        """Return sentences about the setting with the best mean, and the settings that are as good."""
        verdicts = [verdict for verdict in judged.verdicts if verdict.a != judged.best]
        if judged.best is None or not any(verdict.about_settings for verdict in verdicts):
            return [] if "base" in self.reader.spec.comparisons.family else self.lacking()
        out = [] if self.race is None else describe_out(judged)
        others = [name for name in judged.rivals if name != judged.best]
        if self.goes_on and judged.wanted:
            return [f"Still in the race for the best: {_listed([judged.best, *others])}.", *out]
        equal = [verdict.a for verdict in verdicts if verdict.outcome is Outcome.EQUAL]
        open_ones = [name for name in others if name not in equal]
        parts = [f"is practically equal to {_listed(equal)}"] if equal else []
        parts += [f"cannot be told apart from {_listed(open_ones)}"] if open_ones else []
        if parts:
            said = f"{judged.best} has the best mean. It {', and '.join(parts)}."
        else:
            said = f"{judged.best} is better than every other setting that has a mean."
        return [_capital(said), *self.next_best(judged), *out]

    def next_best(self, judged: Judged) -> list[str]:
        """Return the comparison of the best setting with the next best mean, unless one of the two is the base.

        The family "base" shows that comparison already.
        """
        compared = [verdict for verdict in judged.verdicts if verdict.about_settings and verdict.difference is not None]
        nearest = min(compared, key=lambda verdict: abs(verdict.difference.value) if verdict.difference else 0.0)
        shown = "base" in self.reader.spec.comparisons.family and self.judged.base in (nearest.a, judged.best)
        return [] if shown else [self.sentence(nearest)]

    def _advise(self, family: Family, verdict: Verdict) -> str:
        """Return what would narrow the interval of a comparison, or "" if it needs nothing."""
        records = (TrialRecord.of(trial) for trial in self.reader.trials())
        protocol = next((record.judged_under for record in records if record.protocol), None)
        if protocol is None or verdict.difference is None:
            return ""
        later = self._later_levels(family, verdict)
        said = advise(verdict, protocol.num_images, protocol.most_images, later)
        return f"Of {verdict.a} and {verdict.b}: {said}" if said else ""

    def _later_levels(self, family: Family, verdict: Verdict) -> dict[int, float]:
        """Return numbers of further trainings, with the level of the interval at the look that they would make."""
        plan, alpha = self.reader.plan(), family.alpha(verdict.a)
        count, last = min(verdict.count_a, verdict.count_b), plan.looks[-1]
        if count < last:
            return {last - count: plan.alpha_at(last, alpha)}
        further = sorted({_MORE, max(last, _MORE)})  # doubling helps if a few trainings do not
        return {more: plan.extended(last + more).alpha_at(last + more, alpha) for more in further}


def _open_comparisons(judged: Judged) -> set[str]:
    """Return the settings of the comparisons that more trainings would decide, with their base."""
    undecided = (each for each in judged.verdicts if each.outcome in (Outcome.UNDECIDED, Outcome.TOO_FEW))
    return {name for verdict in undecided for name in (verdict.a, verdict.b)}


def _describe_family(spec: StudySpec, family: Sequence[str]) -> str:
    """Return the comparisons that a study planned as a line, or "" if it planned none."""
    if not family:
        return ""
    several = len(family) > 1
    return (
        f"{'families' if several else 'family'}: {', and '.join(family)}, by {label(spec.objective.metric)}. "
        f"{'The intervals of each family' if several else 'Its intervals'} together miss in at most 5 % of studies."
    )


def _capital(sentence: str) -> str:
    """Begin a sentence about a numbered setting with a capital letter. Names of variants stay as they are."""
    return sentence[:1].upper() + sentence[1:] if sentence.startswith("setting ") else sentence


def _incomplete(reader: StudyReader) -> str:
    settings = [setting for setting in reader.settings() if setting.asked and not setting.imported]
    least = min((len(setting.finished) for setting in settings if not setting.given_up), default=0)
    most = f"{reader.replicates}" if reader.race is None else f"up to {reader.replicates}"
    return f"{least} of {most} trainings of each setting, no verdict yet."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
