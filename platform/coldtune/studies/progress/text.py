"""Small pieces of text that several outputs of a study share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.text import Text

from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.storage.settings import Spread

_MAX_REASON = 300  # characters of a trial's reason

STATE_NAMES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
"""The states of trials in words. A waiting trial is never shown."""


_ROUNDING = 1e-9  # as a share of the value: a smaller uncertainty is that of the arithmetic
_LONGEST_NAME = 100  # characters of a run's name


def run_name(label: str, point: Mapping[str, Any]) -> str:
    """Return the name of a trial's run in MLflow, with the settings that vary: `3: T 40, tacos`.

    A value that is a text stands without its key. Keys that would make the name too long are counted.
    """
    parts = [value if isinstance(value, str) else key_value(key, value) for key, value in point.items()]
    for shown in range(len(parts), 0, -1):
        more = [f"{len(parts) - shown} more"] if shown < len(parts) else []
        name = f"{label}: {', '.join([*parts[:shown], *more])}"
        if len(name) <= _LONGEST_NAME:
            return name
    return f"trial {label}"


def key_value(key: str, value: object) -> str:
    """Return a key and its value as a space writes it, with three digits."""
    if value is None or isinstance(value, bool):
        return f"{key} {str(value).lower() if value is not None else 'null'}"
    return f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"


def print_line(console: Console, head: str, text: str, width: int = 15) -> None:
    """Print a heading and a text that people may copy. The text is never wrapped, and its brackets are not markup."""
    console.print(Text.assemble((f"  {head:<{width}}", "dim"), text), soft_wrap=True)


def print_warning(console: Console, text: str) -> None:
    """Print a warning in a single line. Its brackets are not markup."""
    console.print(Text.assemble(("warning: ", "bold yellow"), text), soft_wrap=True)


def describe_failed(failed: Sequence[FrozenTrial], name: str, ended: int, none_finished: bool) -> str:
    """Return how many trials failed, and why the last of them did, which people know by `name`."""
    last = TrialRecord.of(failed[-1])
    reason = (last.reason.splitlines() or ["no reason known"])[0][:_MAX_REASON]
    none = "none finished, and " if none_finished else ""
    return f"{none}{len(failed)} of {ended} trials failed; the last one, trial {name}: {reason}"


def metric_name(metric: str) -> str:
    """Return a metric's name for people: `fid_direct` becomes `FID DIRECT`."""
    return metric.replace("_", " ").upper()


def metric_value(metric: str, metrics: Mapping[str, float]) -> str:
    """Return a metric's name, its value and, if it is known, its interval."""
    low, high = metrics.get(f"{metric}_low"), metrics.get(f"{metric}_high")
    return f"{metric_name(metric)} {value_and_interval(metrics[metric], low, high)}"


def value_and_interval(value: float, low: float | None, high: float | None) -> str:
    """Return a value, and its interval if it is known, with the decimals of two digits of the interval's half width."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return f"{value:.4g}"
    shown, low_text, high_text = _to_digits_of((high - low) / 2, value, low, high)
    return f"{shown} [{low_text}, {high_text}]"


def spread_value(spread: Spread) -> str:
    """Return the mean of a metric, its standard deviation between trainings, and their number."""
    return f"{mean_and_sd(spread)} ({spread.n} training{'s' * (spread.n != 1)})"


def mean_and_sd(spread: Spread) -> str:
    """Return a mean with the decimals of two digits of its standard deviation, such as `1.61 ± 0.36`."""
    if spread.sd is None:
        return f"{spread.mean:.4g}"
    mean, sd = _to_digits_of(spread.sd, spread.mean, spread.sd)
    return f"{mean} ± {sd}"


def _to_digits_of(uncertainty: float, *values: float) -> list[str]:
    """Return values with the decimals that two digits of their uncertainty need."""
    if not math.isfinite(uncertainty) or uncertainty <= _ROUNDING * max(map(abs, values)):
        return [f"{value:.4g}" for value in values]
    decimals = max(1 - math.floor(math.log10(uncertainty)), 0)
    return [f"{round(value, decimals) + 0.0:.{decimals}f}" for value in values]  # + 0.0: never -0
