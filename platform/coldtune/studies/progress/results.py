"""The results of a study in the terminal: its table, the work that it saved, and its best trial."""

from __future__ import annotations

import itertools

from optuna.trial import FrozenTrial
from rich.console import Console

from coldtune.metrics import Judgement, compare
from coldtune.reports.networks import describe_networks
from coldtune.studies.designs.effect_report import report_effects
from coldtune.studies.progress.savings import describe_reuse, describe_untrained_steps
from coldtune.studies.progress.table import StudyTable, describe_unknown_threads
from coldtune.studies.progress.text import metric_name, metric_value, print_line, spread_value
from coldtune.studies.space.config import VARIANT
from coldtune.studies.spec.confirmation import Confirmation
from coldtune.studies.storage.record import StudyRecord, TestResult, TrialRecord
from coldtune.studies.storage.settings import Setting, Spread, spreads_of
from coldtune.studies.trials.judging import have_same_images, network_of
from coldtune.studies.trials.reading import StudyReader


def print_results(console: Console, reader: StudyReader, table: StudyTable) -> None:
    """Print the table and, if a trial completed, the work that was saved and the best trial.

    A table of the paper stands alone, because it has its own lines below it.
    """
    console.print(table.terminal)
    if (effects := report_effects(reader)) is not None:
        console.print(effects.table())
        for note in effects.notes:
            console.print(note, highlight=False)
    best = _chosen(reader)
    if best is None or reader.spec.table is not None:
        return
    for sentence in describe_results(reader, table):
        console.print(sentence, highlight=False)
    record = TrialRecord.of(best)
    if record.images:
        print_line(console, "its images", reader.present_address(record.images["sampled"]))
        print_line(console, "its restorer", reader.present_address(str(record.checkpoint)))


def describe_results(reader: StudyReader, table: StudyTable) -> list[str]:
    """Return the results of a study as sentences: the work that was saved, the best trial, and the verdicts.

    There are none if no trial completed, or if the study fills a table of the paper.
    """
    if _chosen(reader) is None or reader.spec.table is not None:
        return []
    return [*describe_work(reader), *describe_leaders(reader), *table.verdicts]


def _chosen(reader: StudyReader) -> FrozenTrial | None:
    """Return the best trial, or the winner that a confirmation confirms."""
    return reader.best() if reader.spec.confirmation is None else _winner(reader)


def describe_ended(trials: int, reader: StudyReader) -> str:
    """Return how many trials of a study have ended, or how many settings and trainings.

    Args:
        trials: How many trials or settings the study shall have.
    """
    if not reader.replicated:
        return f"{reader.finished()} of {trials} trials ended"
    if reader.race is not None:
        most = trials * reader.replicates
        return f"{reader.ended()} of at most {most} trainings of a race between {trials} settings ended"
    trainings = reader.trainings(trials)
    return f"{reader.finished()} of {trials} settings ended, {reader.ended()} of {trainings} trainings"


def describe_work(reader: StudyReader) -> list[str]:
    """Return sentences about the work of a study that was saved, and about work that cannot be shared."""
    sentences = [
        describe_reuse(reader.trials()),
        describe_untrained_steps(reader),
        describe_unknown_threads(reader),
    ]
    return list(filter(None, sentences))


def describe_leaders(reader: StudyReader) -> list[str]:
    """Return sentences about the best of a study and the next, and about the measurement on test."""
    best = reader.best()
    if reader.spec.confirmation is not None:
        compared = describe_confirmed(reader, reader.spec.confirmation)
    elif reader.replicated:
        compared = _describe_best(reader)
    else:
        compared = "" if best is None else _describe_runner_up(reader, best)
    return list(filter(None, [compared, _describe_test(reader)]))


def _describe_runner_up(reader: StudyReader, best: FrozenTrial) -> str:
    """Compare the best trial with the next trial that gave other images. Return "" if that is not possible."""
    first, *others = reader.ranked_settings()
    same = len(list(itertools.takewhile(lambda other: have_same_images(first, other), others)))
    alike = f"{same:,} other trial{'s' * (same > 1)} gave the same images as trial {best.number}." if same else ""
    compared = ""
    if same < len(others):
        compared = compare_trials(reader, best, next(iter(others[same].finished.values())))
    return " ".join(filter(None, [alike, compared]))


def _winner(reader: StudyReader) -> FrozenTrial | None:
    """Return the first finished training of the setting that a confirmation confirms."""
    chosen = reader.spec.confirmation
    assert chosen is not None
    setting = _setting_of(reader, chosen.winner)
    return None if setting is None else next(iter(setting.finished.values()), None)


def _setting_of(reader: StudyReader, variant: str) -> Setting | None:
    return next((setting for setting in reader.settings() if setting.point.get(VARIANT) == variant), None)


def describe_confirmed(reader: StudyReader, chosen: Confirmation) -> str:
    """Describe the winner of a search by its new trainings alone, beside the base of the search."""
    objective = reader.spec.objective.metric
    values = {}
    for name in dict.fromkeys([chosen.winner, chosen.base]):
        setting = _setting_of(reader, name)
        spread = None if setting is None else setting.spread(objective)
        values[name] = "no value" if spread is None else f"{metric_name(objective)} {spread_value(spread)}"
    if chosen.winner == chosen.base:
        who = f"The base won the search {chosen.study} as {chosen.what} {chosen.numbers[chosen.base]}"
        said = values[chosen.base]
    else:
        who = f"The search {chosen.study} chose {chosen.what} {chosen.numbers[chosen.winner]}"
        said = f"{values[chosen.winner]}, its base {values[chosen.base]}"
    return f"{who}. On test, with trainings that chose nothing, it has {said}."


def compare_trials(reader: StudyReader, best: FrozenTrial, other: FrozenTrial) -> str:
    """Compare the best trial with another trial on the same images. Return "" if that is not possible."""
    if len(reader.spec.objectives) > 1 or other.params == best.params:
        return ""
    try:
        folders = [reader.local_folder(TrialRecord.of(trial).measured["sampled"]) for trial in (best, other)]
        a, b = (Judgement.load(folder) for folder in folders)
        names = (f"Trial {best.number}", f"trial {other.number}")
        about = describe_networks(same=network_of(best) == network_of(other))
        return f"{compare(a, b, reader.spec.objective.metric, names)}. {about}"
    except (KeyError, OSError, ValueError):  # measured by an older version, moved, or a metric without an interval
        return ""


def _describe_best(reader: StudyReader) -> str:
    """Describe the two settings with the best means, and how many trainings they still lack."""
    ranked, metric = reader.ranked_settings()[:2], metric_name(reader.spec.objective.metric)
    if not ranked or len(reader.spec.objectives) > 1:
        return ""
    named = [f"setting {setting.number} with {spread_value(Spread.of(setting.values()))}" for setting in ranked]
    missing = sum(map(reader.missing, reader.settings()))
    early = f" {missing} trainings are still missing, so this order may change." if missing else ""
    return f"Best mean {metric}: {', then '.join(named)}.{early}"


def _describe_test(reader: StudyReader) -> str:
    """Describe the chosen trial's values on the test split. Return "" if it was not measured there."""
    test = StudyRecord.of(reader.study).test
    if test is None:
        return ""
    if test.each:
        return _describe_settings_test(reader, test)
    shown = dict.fromkeys(["fid", reader.spec.objective.metric, "ssim", "rmse"])
    values = ", ".join(metric_value(metric, test.metrics) for metric in shown if metric in test.metrics)
    protocol = test.judged_under
    return (
        f"Trial {reader.label(test.trial)}, measured once on test: {values} (N = {protocol.num_images:,}, "
        f"protocol {protocol.key[:12]}). This is one trained network, and says little about its setting."
    )


def _describe_settings_test(reader: StudyReader, test: TestResult) -> str:
    """Describe the values of all trainings of the chosen setting on the test split."""
    spreads = spreads_of(list(test.each.values()))
    shown = dict.fromkeys(["fid", reader.spec.objective.metric, "ssim", "rmse"])
    values = ", ".join(f"{metric_name(name)} {spread_value(spreads[name])}" for name in shown if name in spreads)
    protocol, number = test.judged_under, reader.label(test.trial).partition(".")[0]
    return (
        f"Setting {number}, each of its trainings measured once on test: {values} (N = {protocol.num_images:,}, "
        f"protocol {protocol.key[:12]})"
    )
