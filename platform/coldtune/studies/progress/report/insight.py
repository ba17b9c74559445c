"""The importance of the keys and the health checks of a study, as parts of its report."""

from __future__ import annotations

from coldtune.environment import coldtune_command
from coldtune.metrics.registry import label
from coldtune.reports.page.document import Axis, Check, Estimate, Forest, Importance
from coldtune.studies.insight.estimate import LEVEL
from coldtune.studies.insight.health import health_checks
from coldtune.studies.insight.importance import Importance as KeyImportance
from coldtune.studies.insight.importance import ImportanceRow
from coldtune.studies.progress.report.content import StudyContent

_MOST_NAMED = 4  # keys in a sentence
_LEAST_SHARE = 0.005  # a smaller share is written as 0 %
_QUICK = range(20, 201)  # settings: fewer cannot be ranked, and the importance of more takes too long at an end


def find_importance(content: StudyContent, quick: bool = False) -> KeyImportance | None:
    """Return the importance of the keys. None for a study that has not searched, or before anything has finished.

    Args:
        quick: True to leave it out if it would take long, or could not be known.
    """
    searched = content.reader.space.size is None
    if not content.ranked or not searched or (quick and len(content.ranked) not in _QUICK):
        return None
    from coldtune.studies.insight.study_importance import study_importance  # scikit-learn takes long to import

    return study_importance(content.reader, content.folder.home, content.folder.path)


def describe_keys(made: KeyImportance | None) -> list[str]:
    """Return a sentence about the keys that matter most, or that says why nobody can rank them."""
    if made is None:
        return []
    if made.refusal is not None:
        return [f"{made.refusal.partition('. ')[0].removesuffix('.')}."]  # the section about importance has the rest
    rows = [row for row in made.rows if not row.by_chance and row.share >= _LEAST_SHARE][:_MOST_NAMED]
    if not rows:
        return []
    named = ", ".join(f"{row.key} {_written(row)}" for row in rows)
    level = "" if rows[0].low is None else f", with {100 * LEVEL:.0f} % intervals"
    return [f"Most important for {_objective(made)} by {made.evaluator}{level}: {named}."]


def show_importance(made: KeyImportance | None) -> Importance | None:
    """Return the importance of the keys for a page, or the reason why nobody can rank them."""
    if made is None:
        return None
    return Importance(made.sentences(), (_forest(made),) if made.rows else ())


def explain_left_out(content: StudyContent) -> Importance | None:
    """Return why a quick page has no importance. None if no page of the study has any."""
    if content.reader.space.size is not None or len(content.ranked) < _QUICK.stop:
        return None
    command = coldtune_command("report", content.folder.home, content.name)
    return Importance((f"The importance of keys is left out, because it takes too long here. `{command}` has it.",))


def show_checks(content: StudyContent) -> tuple[Check, ...]:
    """Return the findings of the health checks."""
    found = health_checks(content.reader, content.folder.home)
    checks = [Check(each.name, each.sentence, each.advice, "note") for each in found]
    if not checks and content.ranked:
        return (Check("health checks", "None of the health checks has found anything.", level="ok"),)
    return tuple(checks)


def _forest(made: KeyImportance) -> Forest:
    """Return the shares of the keys, from the most important on."""
    rows = tuple(
        Estimate(
            f"{row.key} ({row.stage})",
            100 * row.share,
            _written(row) + ("" if row.rank_held is None else f", held {100 * row.rank_held:.0f} %"),
            None if row.low is None else 100 * row.low,
            None if row.high is None else 100 * row.high,
            group="perhaps by chance" if row.by_chance else "more than by chance",
        )
        for row in made.rows
    )
    first = made.rows[0]
    summary = f"{len(rows)} keys. The most important for {_objective(made)} is {first.key}: {_written(first)}."
    note = ""
    if first.low is not None:
        note = "Lines are 90 % intervals. A rank is held in a resample if the key has it, or a better one, there."
    return Forest(f"Importance by {made.evaluator}", summary, Axis("share in %"), rows, zero=True, note=note)


def _written(row: ImportanceRow) -> str:
    interval = "" if row.low is None or row.high is None else f" [{100 * row.low:.0f}, {100 * row.high:.0f}]"
    return f"{100 * row.share:.0f} %{interval}"


def _objective(made: KeyImportance) -> str:
    return " and ".join(map(label, made.objective.split(" and ")))
