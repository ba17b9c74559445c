"""Small pieces of text that several outputs of a study share."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from coldtune.studies.trials.reading import StudyReader


def _line(console: Console, head: str, text: str, width: int = 15) -> None:
    """A heading and what may be copied from the terminal: never wrapped, never read as markup."""
    console.print(Text.assemble((f"  {head:<{width}}", "dim"), text), soft_wrap=True)


def _objectives(reader: StudyReader) -> str:
    return " and ".join(_upper(objective.metric) for objective in reader.spec.objectives)


def _upper(metric: str) -> str:
    return metric.replace("_", " ").upper()


def _with_interval(metric: str, metrics: Mapping[str, float]) -> str:
    low, high = metrics.get(f"{metric}_low"), metrics.get(f"{metric}_high")
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return f"{metric.replace('_', ' ').upper()} {metrics[metric]:.4g}{interval}"
