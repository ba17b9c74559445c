"""What a design, an ablation or a confirmation is about to try, as headings and texts for people."""

from __future__ import annotations

from collections.abc import Iterator

from coldtune.stages.trial import short_name
from coldtune.studies.designs.confirm import describe_chosen
from coldtune.studies.designs.effects import effects_of_design, label_of_change
from coldtune.studies.space.design import DesignRecord
from coldtune.studies.space.distributions import write_value
from coldtune.studies.spec.ablation import AblationRecord
from coldtune.studies.spec.study import StudySpec

_MOST_UNKNOWN = 8  # effects that are listed


def describe_design(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """Yield headings and texts about the arms of a study. Nothing is yielded for a study without a design."""
    if spec.design is not None:
        yield from _describe_arms(spec.design)
    if spec.ablation is not None:
        yield from _describe_path(spec.ablation)
    if (record := spec.confirmation) is not None:
        yield "confirms", f"{describe_chosen(record)}, of the search {record.study}"
        yield (
            "",
            f"with training seeds from {spec.base['training']['seed']} on, which the search has not used, and on test",
        )


def _describe_arms(record: DesignRecord) -> Iterator[tuple[str, str]]:
    kind, factors = record.kind, record.described_factors()
    yield "design", f"{kind.describe(factors)}: {len(record.arms)} arms over {', '.join(f.name for f in factors)}"
    for path, factor in record.factors.items():
        if not factor.compared:
            where = " and ".join(
                f"{short_name(k)} is {' or '.join(map(write_value, v))}" for k, v in factor.when.items()
            )
            yield "sets", f"{short_name(path)}={write_value(factor.levels[0])} if {where}"
    for sentence in kind.aliases(factors):
        yield "aliases", sentence
    if kind.aliases(factors) and (lost := len(record.skipped) + len(record.merged)):
        missing = f"{lost} arms of the fraction are" if lost > 1 else "an arm of the fraction is"
        yield "aliases", f"{missing} left out, so even less can be told apart"
    for arm, reason in record.skipped.items():
        yield "skips", f"{arm}: {reason}"
    for arm, other in record.merged.items():
        yield "merges", f"{arm} is the same trial as {other}"
    if unknown := [effect.name for effect in effects_of_design(record) if effect.problem]:
        listed = ", ".join(unknown[:_MOST_UNKNOWN])
        more = f", and {len(unknown) - _MOST_UNKNOWN} more" if len(unknown) > _MOST_UNKNOWN else ""
        yield "unknown", f"these arms cannot tell {listed}{more}"


def _describe_path(record: AblationRecord) -> Iterator[tuple[str, str]]:
    yield "ablates", f"trial {record.trial} of {record.study}, back to the base in this order"
    for number, (name, change) in enumerate(record.changes.items(), 1):
        yield "", f"{number}. {label_of_change(change)}"
        if change.alone is None:
            yield "skips", f"{name} alone on the base: {change.why_not}"
    for step in record.path:
        for name, reason in step.skipped.items():
            yield "skips", f"the step of {name}, which is taken back with the next: {reason}"
