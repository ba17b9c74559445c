"""Beginning a study with trials of other studies (`--import`).

A trial of another study is imported with its values if the space of the new study has a point with the same images
under the same protocol, so that the keys of their stages are equal. If only the length of the training differs, its
value means something else, but its training can continue from the store. Then the best `FIRST` such points are asked
first.

Completed trials are imported with their values. Pruned trials are imported with their rungs, if both studies judge at
the same rungs. So the search knows where not to look, and the pruner has trials to compare with. Failed trials are not
imported, because a failure says more about a machine or a version than about a point.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from coldtune.config import parse
from coldtune.stages.trial import TrialConfig
from coldtune.studies.space.replicates import with_replicate
from coldtune.studies.space.space import Space
from coldtune.studies.spec.folder import StudyFolder, studies
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import load_started_study, open_storage, stored_study
from coldtune.studies.storage.optuna_private import pruner_notes
from coldtune.studies.storage.record import StudyRecord, TrialRecord, attributes_of_import, attributes_of_replicate
from coldtune.studies.storage.settings import index_of
from coldtune.studies.storage.trial_cache import point_name
from coldtune.studies.trials.matching import (
    Importer,
    SourceStudy,
    UnfitError,
    comparable_rungs,
    finished_config,
    matching_point,
    matching_replicate,
)
from coldtune.studies.trials.setup import Imports

FIRST = 5
"""How many points with a longer training are asked first. Few, so that the search chooses most of the trials."""


@dataclass(frozen=True)
class _LongerTraining:
    """A point of the new study whose training continues that of an imported study's trial.

    Attributes:
        order: The key by which such points are sorted, the best first.
        why: The reason for asking it first, for the user.
    """

    order: tuple[float, ...]
    point: Mapping[str, Any]
    why: str


@dataclass(frozen=True)
class _Fit:
    """A copy of a trial for the new study. It is a replicate of the setting whose point has the name `point`."""

    trial: FrozenTrial
    point: str
    replicate: int
    source: str


@dataclass
class _Collected:
    """The trials and points collected from all studies so far.

    Attributes:
        points: The names of the points of all trials, each with its replicate.
    """

    fits: list[_Fit] = field(default_factory=list)
    longer: list[_LongerTraining] = field(default_factory=list)
    points: set[tuple[str, int]] = field(default_factory=set)


def gather(target: Importer, folder: StudyFolder, url: str | None) -> Imports:
    """Collect the trials of the studies that the spec imports. Nothing is written.

    Args:
        folder: The folder of the new study. The other studies are looked up in its home.
        url: The database of the new study, in which the other studies are looked up next.

    Raises:
        ValueError: If a study is in neither, or if its trials saw other images. The message names the study.
    """
    collected, summaries = _Collected(), {}
    for name in target.spec.imports:
        if name == folder.name:
            raise ValueError(f"--import {name}: is this very study. The same command without --import resumes it.")
        source = _find_study(name, target, folder, url)
        summaries[name] = _collect(source, target, collected)
    best = sorted(collected.longer, key=lambda longer: longer.order)[:FIRST]
    if listed := target.space.size is not None or target.spec.search.algorithm == "grid":
        best = []  # every point is asked anyway
    trials, incomplete = _settings(collected.fits, target.replicates if listed else 1)
    for study, count in incomplete.items():
        summaries[study] += (
            f"; {count} belong to settings of fewer than {target.replicates} trainings, so they are asked again and "
            "their trainings are found in the store"
        )
    return Imports(trials, [(longer.point, longer.why) for longer in best], summaries)


def _settings(fits: Sequence[_Fit], least: int) -> tuple[list[FrozenTrial], Counter[str]]:
    """Give the copies of further replicates the numbers of their settings.

    Args:
        least: The trainings that a setting needs. Others are left out, because a list of points asks every setting that
            was not imported.

    Returns:
        The copies in their order, and by study how many were left out.
    """
    counts = Counter(fit.point for fit in fits)
    numbers: dict[str, int] = {}
    trials, left_out = [], Counter[str]()
    for fit in fits:
        if counts[fit.point] < least:
            left_out[fit.source] += 1
            continue
        number = numbers.setdefault(fit.point, len(numbers))
        if fit.replicate:
            fit.trial.user_attrs.update(attributes_of_replicate(number, fit.replicate))
        trials.append(fit.trial)
    return trials, left_out


def check_imports(names: Sequence[str], folder: StudyFolder, url: str | None) -> None:
    """Raise ValueError if this home has no study of a name, and there is no database that could have it.

    Args:
        names: The studies to import.
        folder: The folder of the new study.
        url: The database of the new study.
    """
    missing = [name for name in names if not StudyFolder(folder.home, name).exists]
    if missing and url is None:
        raise ValueError(f"--import {missing[0]}: there is no such study; {_known_studies(folder, url)}")


def is_ready(folder: StudyFolder, url: str | None) -> bool:
    """Return whether the study was set up before, including its imports."""
    study = stored_study(folder.path, folder.name, url)
    return study is not None and StudyRecord.of(study).ready


def _collect(source: SourceStudy, target: Importer, collected: _Collected) -> str:
    """Add the fitting trials of a study to `collected`, and return a summary for the user."""
    fits, longer, unfit, labels = 0, 0, Counter[str](), index_of(source.trials)
    for trial in source.trials:
        try:
            config = finished_config(trial, source, target)
            point = matching_point(config, target)
            replicate = matching_replicate(config, point, target)
            _add_point(point, replicate, collected)
        except UnfitError as reason:
            unfit[str(reason)] += 1
            continue
        here = with_replicate(target.space.resolve(point), replicate)
        if target.result_key(here) == target.result_key(config):
            copied = _copy(trial, point, config, source, target)
            collected.fits.append(_Fit(copied, point_name(point), replicate, source.name))
            fits += 1
        elif not replicate:
            why = f"trial {labels.label(trial.number)} of {source.name}, whose training goes on"
            collected.longer.append(_LongerTraining(_order(trial, target.spec), point, why))
            longer += 1
    text = f"{fits} of {len(source.trials)} trials fit"
    if longer:
        text += f"; {longer} differ only in how long they train: the best are tried first ({FIRST} at most)"
    return "; ".join([text, *(f"{count} {reason}" for reason, count in unfit.most_common())])


def _add_point(point: Mapping[str, Any], replicate: int, collected: _Collected) -> None:
    """Note a point. Raise UnfitError if another trial has it, or if it is a replicate without the setting's first."""
    if (name := (point_name(point), replicate)) in collected.points:
        raise UnfitError("are the same as others")
    if replicate and not any(fit.point == name[0] for fit in collected.fits):
        raise UnfitError("are further trainings of settings whose first training does not fit")
    collected.points.add(name)


def _copy(
    trial: FrozenTrial, point: dict[str, Any], config: TrialConfig, source: SourceStudy, target: Importer
) -> FrozenTrial:
    """Return a copy of a finished trial for the new study."""
    record, comparable = TrialRecord.of(trial), comparable_rungs(config, source, target)
    same_pruning = comparable and source.spec.pruning == target.spec.pruning
    notes = pruner_notes(trial) if same_pruning and record.rungs else {}
    complete = trial.state == TrialState.COMPLETE
    return create_trial(
        state=trial.state,
        values=[record.metrics[objective.metric] for objective in target.spec.objectives] if complete else None,
        params=point,
        distributions={name: target.space.distributions[name] for name in point},
        user_attrs=attributes_of_import(trial, source.name, comparable),
        system_attrs={**notes, **(target.spec.search.first_generation() if complete else {})},
        intermediate_values=trial.intermediate_values if comparable else {},
    )


def _order(trial: FrozenTrial, spec: StudySpec) -> tuple[float, ...]:
    """Return the sort key of a trial by the new study's first objective, the best first and pruned trials last."""
    value = TrialRecord.of(trial).metrics.get(spec.objective.metric)
    if trial.state != TrialState.COMPLETE or value is None:
        return (1.0, 0.0)
    return (0.0, value if spec.objective.direction == "minimize" else -value)


def _find_study(name: str, target: Importer, folder: StudyFolder, url: str | None) -> SourceStudy:
    """Return the study called `name`. Raise ValueError if it is missing, or if it has other images."""
    other = StudyFolder(folder.home, name)
    if other.exists:
        start = other.start()
        study: Study | None = None  # is loaded below
        spec, fingerprint = other.spec(), start["fingerprint"]
    else:
        study = stored_study(folder.path, name, url) if url else None
        record = StudyRecord.of(study) if study else StudyRecord()
        if record.spec is None:
            raise ValueError(f"--import {name}: there is no such study; {_known_studies(folder, url)}")
        spec = parse(StudySpec, record.spec)
        fingerprint = record.fingerprint or target.dataset.fingerprint
    if fingerprint != target.dataset.fingerprint:
        theirs = f"{spec.base['data']['name']} (fingerprint {fingerprint[:12]})"
        mine = f"{target.dataset.name} ({target.dataset.fingerprint[:12]})"
        raise ValueError(f"--import {name}: its trials saw other images, {theirs}, than this study's will, {mine}")
    if study is None:
        study = load_started_study(other.path, name, other.storage())
    trials = study.get_trials(deepcopy=False)
    return SourceStudy(name, spec, Space(spec.space, spec.base, target.space.image_shape), trials)


def _known_studies(folder: StudyFolder, url: str | None) -> str:
    """Return the names of the studies that can be imported, as text."""
    names = [other.name for other in studies(folder.home) if other.name != folder.name]
    text = f"{folder.home} has {', '.join(names) or 'no other'}"
    if url:
        database = sorted(optuna.get_all_study_names(open_storage(folder.path, url)))
        text += f", --storage has {', '.join(database) or 'none'}"
    return text
