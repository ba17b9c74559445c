"""Which keys of a study matter, computed once and kept in the study's folder.

Optuna's evaluators do the work, over settings and not over trials. A setting's value is the mean of its trainings, so
the training seed is no key. fANOVA is for a single objective and keys that every setting has. PED-ANOVA is for
conditional keys and for several objectives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from coldtune.stages.trial import TRAINING_SEED, short_name
from coldtune.studies.insight.facts import StudyFacts, observe
from coldtune.studies.insight.fanova import evaluate_fanova
from coldtune.studies.insight.importance import FANOVA, PED_ANOVA, Importance, ImportanceRow, StageShare
from coldtune.studies.insight.importance_cache import digest_of, read_importance, write_importance
from coldtune.studies.insight.key_stages import STAGES, stage_of
from coldtune.studies.insight.ped_anova import evaluate_ped_anova
from coldtune.studies.insight.sample import Sample, Values, varied
from coldtune.studies.space.space import Space
from coldtune.studies.trials.reading import StudyReader

LEAST_SETTINGS = 20
"""With fewer settings, importance is not estimated."""

LEAST_R2 = 0.25
"""If the forest of fANOVA explains less of the variance of settings that it has not seen, nothing is ranked."""

PED_ANOVA_HINT = (
    "Take the order as a hint, because the search chose the settings: in simulated searches, the first key of "
    "PED-ANOVA was the right one in about half of the studies. Random points (`search.algorithm=random`) are better."
)
"""What a ranking by PED-ANOVA means after a search (benchmarks/2026-11-28-importance.md)."""

_SEED = short_name(TRAINING_SEED)


def study_importance(reader: StudyReader, home: Path, folder: Path | None = None) -> Importance:
    """Return the importance of the keys of a study.

    It takes seconds for 100 settings, and about a minute for 1,000. So it is computed once.

    Args:
        home: The home of the study.
        folder: The folder of the study, in which the result is kept. None keeps nothing.
    """
    return importance_of(observe(reader, home), reader.space, folder)


def importance_of(facts: StudyFacts, space: Space, folder: Path | None = None) -> Importance:
    """Return the importance of the keys of a study, from `folder` if it was computed there from the same input."""
    sample = sample_of(facts)
    evaluator = PED_ANOVA if sample.conditional or len(facts.objectives) > 1 else FANOVA
    objective = " and ".join(each.metric for each in facts.objectives)
    made = Importance(evaluator, objective, settings=len(sample.points))
    if space.size is not None:
        return dataclasses.replace(made, refusal=_about_fixed_settings(facts))
    if facts.mixed:
        return dataclasses.replace(made, refusal=f"{facts.mixed[:1].upper()}{facts.mixed[1:]}.")
    if (refusal := _refuse_sample(facts, sample)) is not None:
        return dataclasses.replace(made, refusal=refusal, notes=_notes(facts))
    stages = {name: stage_of(space, name) for name in sample.distributions}
    digest = digest_of(sample, evaluator, stages, objective)
    if folder is None or (known := read_importance(folder, digest)) is None:
        known = _estimate(made, sample, stages)
        if folder is not None:
            write_importance(folder, digest, known)
    notes = _notes(facts)
    if known.evaluator == PED_ANOVA and known.refusal is None and facts.adaptive:
        notes = (PED_ANOVA_HINT, *notes)
    return dataclasses.replace(known, notes=notes)


def sample_of(facts: StudyFacts) -> Sample:
    """Return the settings as a sample. Settings that differ only in the training seed are trainings of one setting."""
    points: dict[str, dict[str, object]] = {}
    values: dict[str, list[tuple[float, ...]]] = {}
    for setting in facts.settings:
        point = {name: value for name, value in setting.point.items() if name != _SEED}
        name = repr(sorted(point.items()))
        points.setdefault(name, point)
        values.setdefault(name, []).extend(each for each in setting.values if np.isfinite(each).all())
    kept = [name for name in points if values[name]]
    distributions = varied(facts.distributions, [points[name] for name in kept])
    sampled = [{key: value for key, value in points[name].items() if key in distributions} for name in kept]
    trainings: tuple[Values, ...] = tuple(tuple(values[name]) for name in kept)
    return Sample(distributions, tuple(sampled), trainings, tuple(each.direction for each in facts.objectives))


def _about_fixed_settings(facts: StudyFacts) -> str:
    return (
        "The settings of this study are a list and no sample of a space, so their effects are exact. "
        f"{facts.command('study show')} compares them."
    )


def _refuse_sample(facts: StudyFacts, sample: Sample) -> str | None:
    """Return why a sample cannot tell which keys matter, or None if it may."""
    count, keys = len(sample.points), list(sample.distributions)
    if count < LEAST_SETTINGS:
        extend = facts.command("study resume", flags=("--trials", LEAST_SETTINGS))
        return (
            f"Importance needs at least {LEAST_SETTINGS} finished settings, and there {'is' if count == 1 else 'are'} "
            f"{count}. {extend} asks more."
        )
    if not keys:
        return "No key takes several values in the finished settings, so nothing can matter."
    if len(keys) == 1:
        return f"Only `{keys[0]}` takes several values, so all differences between settings are due to it or to chance."
    if not np.ptp(sample.means(), axis=0).any():
        return "All settings have the same value of the objective, so no key matters in these ranges."
    return None


def _estimate(made: Importance, sample: Sample, stages: Mapping[str, str]) -> Importance:
    estimate = evaluate_fanova(sample) if made.evaluator == FANOVA else evaluate_ped_anova(sample)
    made = dataclasses.replace(made, r2=estimate.r2)
    if estimate.r2 is not None and estimate.r2 < LEAST_R2:
        explained = f"{100 * estimate.r2:.0f} %" if estimate.r2 > 0 else "nothing"
        return dataclasses.replace(
            made,
            refusal=f"No key can be ranked. A model of the {made.settings} settings explains {explained} of the "
            f"variance of settings that it has not seen, and a ranking needs {100 * LEAST_R2:.0f} %. Add settings, or "
            "trainings of each setting if the noise between trainings is large.",
        )
    if all(estimate.by_chance.values()):
        return dataclasses.replace(
            made,
            refusal=f"No key can be ranked. Among {made.settings} settings, every key is as important as a key without "
            "any effect may be by chance. Add settings.",
        )
    held = estimate.rank_held()
    return dataclasses.replace(
        made,
        rows=tuple(
            ImportanceRow(name, *estimate.interval((name,)), stages[name], estimate.by_chance[name], held.get(name))
            for name in estimate.ranked()
        ),
        by_stage=tuple(
            StageShare(stage, *estimate.interval(names))
            for stage in STAGES
            if (names := tuple(name for name in sample.distributions if stages[name] == stage))
        ),
    )


def _notes(facts: StudyFacts) -> tuple[str, ...]:
    notes = []
    if facts.pruned:
        verb = "is" if len(facts.pruned) == 1 else "are"
        notes.append(f"Pruned {facts.what}s have no value of the objective, so {len(facts.pruned)} {verb} left out.")
    if facts.running:
        notes.append("The study has not ended, so more settings may change this.")
    return tuple(notes)
