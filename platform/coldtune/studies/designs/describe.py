"""What a design or an ablation is about to try, as headings and texts for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coldtune.stages.trial import short_name
from coldtune.studies.space.design import DesignRecord
from coldtune.studies.space.distributions import write_value
from coldtune.studies.spec.ablation import AblationRecord, Change
from coldtune.studies.spec.study import StudySpec


def describe_design(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """Yield headings and texts about the arms of a study. Nothing is yielded for a study without a design."""
    if spec.design is not None:
        yield from _describe_arms(spec.design)
    if spec.ablation is not None:
        yield from _describe_path(spec.ablation)


def _describe_arms(record: DesignRecord) -> Iterator[tuple[str, str]]:
    kind, factors = record.kind, record.described_factors()
    yield "design", f"{kind.describe(factors)}: {len(record.arms)} arms over {', '.join(f.name for f in factors)}"
    for sentence in kind.aliases(factors):
        yield "aliases", sentence
    for arm, reason in record.skipped.items():
        yield "skips", f"{arm}: {reason}"
    for arm, other in record.merged.items():
        yield "merges", f"{arm} is the same trial as {other}"


def _describe_path(record: AblationRecord) -> Iterator[tuple[str, str]]:
    yield "ablates", f"trial {record.trial} of {record.study}, back to the base in this order"
    for number, (name, change) in enumerate(record.changes.items(), 1):
        yield "", f"{number}. {describe_change(change)}"
        if change.alone is None:
            yield "skips", f"{name} alone on the base: {change.why_not}"
    for step in record.path:
        for name, reason in step.skipped.items():
            yield "skips", f"the step of {name}, which is taken back with the next: {reason}"


def describe_change(change: Change) -> str:
    """Return a change in words, for example `T 40 -> 20, and with it rate 0.05 -> none`."""
    first, *others = (_of_key(path, change.before, change.after) for path in change.keys)
    return f"{first}, and with it {', '.join(others)}" if others else first


def _of_key(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    ends = [write_value(side[path]) if path in side else "no effect" for side in (after, before)]
    return f"{short_name(path)} {ends[0]} -> {ends[1]}"
