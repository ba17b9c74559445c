"""The results of a study in the terminal: its table, the work that it saved, and its best trial."""

from __future__ import annotations

from optuna.trial import FrozenTrial
from rich.console import Console

from coldtune.metrics import Judgement, compare
from coldtune.studies.progress.savings import describe_reuse, describe_untrained_steps
from coldtune.studies.progress.table import StudyTable, describe_unknown_threads
from coldtune.studies.progress.text import metric_value, print_line
from coldtune.studies.storage.record import StudyRecord, TrialRecord
from coldtune.studies.trials.reading import StudyReader


def print_results(console: Console, reader: StudyReader, table: StudyTable) -> None:
    """Print the table and, if a trial completed, the work that was saved and the best trial.

    A table of the paper stands alone, because it has its own lines below it.
    """
    console.print(table.terminal)
    best = reader.best()
    if best is None or reader.spec.table is not None:
        return
    sentences = [
        describe_reuse(reader.trials()),
        describe_untrained_steps(reader),
        describe_unknown_threads(reader),
        _compare_with_second(reader, best),
        _describe_test(reader),
    ]
    for sentence in filter(None, sentences):
        console.print(sentence, highlight=False)
    record = TrialRecord.of(best)
    if record.images:
        print_line(console, "its images", reader.present_address(record.images["sampled"]))
        print_line(console, "its restorer", reader.present_address(str(record.checkpoint)))


def _compare_with_second(reader: StudyReader, best: FrozenTrial) -> str:
    """Compare the best trial with the second-best trial on the same images. Return "" if that is not possible."""
    second = reader.best(but=best.number)
    if second is None or len(reader.spec.objectives) > 1 or second.params == best.params:
        return ""
    try:
        folders = [reader.local_folder(TrialRecord.of(trial).measured["sampled"]) for trial in (best, second)]
        a, b = (Judgement.load(folder) for folder in folders)
        names = (f"Trial {best.number}", f"trial {second.number}")
        return str(compare(a, b, reader.spec.objective.metric, names))
    except (KeyError, OSError, ValueError):  # measured by an older version, moved, or a metric without an interval
        return ""


def _describe_test(reader: StudyReader) -> str:
    """Describe the chosen trial's values on the test split. Return "" if it was not measured there."""
    test = StudyRecord.of(reader.study).test
    if test is None:
        return ""
    shown = dict.fromkeys(["fid", reader.spec.objective.metric, "ssim", "rmse"])
    values = ", ".join(metric_value(metric, test.metrics) for metric in shown if metric in test.metrics)
    protocol = test.judged_under
    return (
        f"Trial {test.trial}, measured once on test: {values} (N = {protocol.num_images:,}, "
        f"protocol {protocol.key[:12]})"
    )
