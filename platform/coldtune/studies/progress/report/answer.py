"""The answer of a study in sentences. They follow from its numbers by rules."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from coldtune.durations import format_estimate
from coldtune.metrics.registry import label
from coldtune.studies.designs.confirm import build_confirmation
from coldtune.studies.designs.effect_report import EffectReport
from coldtune.studies.designs.paper_table_report import fill_table
from coldtune.studies.progress.report.content import StudyContent
from coldtune.studies.progress.results import compare_trials, describe_leaders
from coldtune.studies.progress.text import describe_failed, metric_name, metric_value
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.record import TrialRecord, is_imported
from coldtune.studies.storage.settings import Setting
from coldtune.studies.trials.reading import read_study
from coldtune.verdicts.levels import LEAST

_MOST_NAMED = 6  # effects or settings in a sentence
_MOST_FRONT = 12  # settings of a front in a sentence
_CONFIRM = 5  # trainings of each setting that would decide a search


def describe_answer(content: StudyContent, keys: Sequence[str] = ()) -> Iterator[str]:
    """Yield the answer, the most important sentence first.

    Args:
        keys: Sentences about the importance of keys. They stand before those about open questions.
    """
    reader = content.reader
    if not content.ranked:
        yield from _describe_nothing(content)
        return
    confirmations = {folder.name: _confirmation(content, folder) for folder in content.confirmations}
    for name, confirmed in confirmations.items():  # they rest on trainings and images that chose nothing
        yield from _describe_confirmation(name, confirmed)
    if content.spec.table is not None:
        yield from _describe_claims(content)
    elif len(content.spec.objectives) > 1:
        yield _describe_front(content)
    elif content.effects is not None:
        yield from describe_effects(content.effects)
    elif not reader.replicated and content.spec.confirmation is None:
        yield from _describe_best_trial(content)
    yield from describe_leaders(reader)
    yield from content.table.verdicts
    yield from keys
    if not content.complete:
        yield f"The study has not ended ({content.state}), so this may change."
    if (failed := reader.failed()) and len(failed) < reader.ended():
        text = describe_failed(failed, reader.label(failed[-1].number), reader.ended(), False)
        yield f"{text.rstrip('.')}."
    if cost := _describe_cost(content):
        yield cost
    for name, confirmed in confirmations.items():
        if confirmed is not None and (cost := _describe_cost(confirmed)):
            yield f"In {name}, {cost}"


def _describe_nothing(content: StudyContent) -> Iterator[str]:
    reader, ended = content.reader, content.reader.ended()
    if not ended:
        yield "No trial has ended yet, so there is no answer."
    elif failed := reader.failed():
        text = describe_failed(failed, reader.label(failed[-1].number), ended, not reader.has_results())
        yield f"There is no answer: {text.rstrip('.')}."
    else:
        yield "There is no answer, because no trial was trained to its end."
    if not content.complete:
        yield f"The study has not ended: {content.state}."


def _describe_claims(content: StudyContent) -> Iterator[str]:
    """Yield the comparisons of a table of the paper, as far as they are measured."""
    said = [text for head, text in fill_table(content.reader).foot if head == "measured"]
    yield from said
    if not said:
        yield "The comparisons that the paper makes are not measured yet."


def _describe_front(content: StudyContent) -> str:
    front, what = content.reader.front(), content.what
    ends = []
    for each in content.spec.objectives:
        values = [value for setting in front if (value := content.value(setting, each.metric)) is not None]
        if values:
            low, high = f"{min(values):.4g}", f"{max(values):.4g}"
            ends.append(f"{metric_name(each.metric)} {low if low == high else f'from {low} to {high}'}")
    count, numbers = len(content.ranked), ", ".join(str(setting.number) for setting in front[:_MOST_FRONT])
    more = f" and {len(front) - _MOST_FRONT} more" * (len(front) > _MOST_FRONT)
    if len(front) == 1:
        best = f"has the best {'mean' if content.reader.replicated else 'value'} of {count} in every objective"
        return f"{what.capitalize()} {front[0].number} ({content.describe_values(front[0])}) {best}: {', '.join(ends)}."
    return (
        f"{len(front)} of {count} finished {what}s are not beaten in all objectives by another: {numbers}{more}. "
        f"They have {' and '.join(ends)}."
    )


def _describe_best_trial(content: StudyContent) -> Iterator[str]:
    """Yield the value of the best trial, and its comparison with the base."""
    best, base, metric = content.ranked[0], content.base, content.objective
    trial = content.first(best)
    known = TrialRecord.of(trial).metrics
    said = metric_value(metric, {**known, metric: trial.values[0]})
    count = len(content.ranked)
    among = f"the best {metric_name(metric)} of {count:,} finished trials" if count > 1 else "the only value"
    interval = ", 95 % interval over images" * (content.interval(best, metric) is not None)
    is_base = base is not None and base.number == best.number
    who = f"Trial {best.number}, the base," if is_base else f"Trial {best.number} ({content.describe_values(best)})"
    yield f"{who} has {among}: {said}{interval}."
    second = content.leaders[1][0] if len(content.leaders) > 1 else None
    if base is None or is_base or not base.finished or (second is not None and second.number == base.number):
        return
    if compared := compare_trials(content.reader, trial, content.first(base)):
        yield f"The base is trial {base.number}. {compared}"
    elif (value := content.value(base, metric)) is not None:
        yield f"The base, trial {base.number}, has {metric_name(metric)} {value:.4g}."


def describe_effects(report: EffectReport) -> Iterator[str]:
    """Yield the effects of a design that differ from 0, then those that cannot be told apart from 0, then the notes.

    With fewer trainings of an arm than a verdict needs, there are only the notes.
    """
    known = [
        row
        for row in report.rows
        if row.interval is not None and row.difference is not None and row.difference.least >= LEAST
    ]
    certain = [row for row in known if row.interval is not None and row.interval.excludes_zero]
    certain.sort(key=lambda row: -abs(row.difference.value) if row.difference else 0.0)
    parts = [f"{row.effect.name} ({label(report.metric)} {' '.join(row.cells())})" for row in certain[:_MOST_NAMED]]
    more = f", and {len(certain) - len(parts)} more" * (len(certain) > len(parts))
    if certain:
        differ = f"{len(certain)} of {len(known)} effects differ{'s' * (len(certain) == 1)} from 0"
        yield f"{differ}: {', '.join(parts)}{more}."
    open_ones = [row.effect.name for row in known if row not in certain]
    more = f", and {len(open_ones) - _MOST_NAMED} more" * (len(open_ones) > _MOST_NAMED)
    if open_ones:
        yield f"Not told apart from 0: {', '.join(open_ones[:_MOST_NAMED])}{more}."
    yield from (f"{note}." for note in report.notes[1:])  # the first says which direction is better


def _confirmation(content: StudyContent, folder: StudyFolder) -> StudyContent | None:
    """Return a study that confirms this search. None if it is damaged, because this report is not about it."""
    try:
        return StudyContent(read_study(folder), folder, folder.start(), content.equal_within)
    except (ValueError, OSError):
        return None


def _describe_confirmation(name: str, confirmed: StudyContent | None) -> Iterator[str]:
    """Yield the verdict of a study that confirms this search, or its progress."""
    if confirmed is None:
        yield f"The study {name} confirms the best settings, but it cannot be read."
        return
    if not confirmed.complete:
        yield f"The study {name} trains the best settings anew and judges them on test: {confirmed.state}."
        return
    yield from describe_leaders(confirmed.reader)
    yield from confirmed.table.verdicts[:1]
    yield f"The report of {name} has all settings that were confirmed."


def _describe_cost(content: StudyContent) -> str:
    """Return the cost of deciding open comparisons. "" if nothing is open, or the cost is unknown."""
    spec, reader = content.spec, content.reader
    if not content.complete or len(spec.objectives) > 1 or len(content.ranked) < 2:
        return ""
    if not reader.replicated:
        if spec.table is not None or content.confirmations:
            return ""
        listed = reader.space.size is not None  # such a study chooses nothing, so it needs no new seeds
        settings = content.ranked if listed else _settings_to_confirm(content)
        what = f"all {len(settings)} settings" if listed else f"the best settings and the base ({len(settings)} in all)"
        work = _describe_work(content, settings, _CONFIRM - 1 if listed else _CONFIRM)
        return work and (
            f"Each setting was trained once. To decide whether settings differ, train {what} {_CONFIRM} times: {work}."
        )
    numbers = content.table.bold if len(content.table.bold) > 1 else content.table.judged.open
    undecided = [setting for setting in content.ranked if setting.number in numbers]
    work = _describe_work(content, undecided, 1) if len(undecided) > 1 else ""
    return work and f"{len(undecided)} settings are undecided. A further training of each needs {work}."


def _settings_to_confirm(content: StudyContent) -> list[Setting]:
    """Return the settings that `--confirm` would train, as far as the search has measured them."""
    try:
        spec = build_confirmation(content.reader, _CONFIRM)
    except ValueError:  # the search leaves no training seeds for it
        return []
    numbers = {} if spec is None or spec.confirmation is None else spec.confirmation.numbers
    return [content.settings[number] for number in numbers.values() if number is not None]


def _describe_work(content: StudyContent, settings: Sequence[Setting], times: int) -> str:
    """Return how many trainings are needed to train settings again, and their time. "" if no time is known.

    Settings that used the same network need a single training for each seed.
    """
    efforts = [
        TrialRecord.of(trial).effort
        for setting in content.ranked
        for trial in setting.finished.values()
        if not is_imported(trial)
    ]
    known = [effort for effort in efforts if effort.seconds is not None]
    if not known or not settings:
        return ""
    whole = statistics.median((each.seconds or 0.0) + (each.saved or 0.0) for each in known)
    found = [each.seconds or 0.0 for each in known if each.found.get("train")]
    networks = {TrialRecord.of(content.first(setting)).checkpoint or setting.number for setting in settings}
    trainings, trials = len(networks) * times, len(settings) * times
    seconds = trainings * whole + (trials - trainings) * (statistics.median(found) if found else whole)
    more = f" for {trials} trials" * (trainings < trials)
    return f"{trainings} training{'s' * (trainings > 1)}{more}, about {format_estimate(seconds)} of work"
