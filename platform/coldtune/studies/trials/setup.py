"""Setting a study up, once: what it is, what it imports, and the points that it asks before the search chooses."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from coldtune.config import parse, plain
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import difference
from coldtune.studies.space.space import Space
from coldtune.studies.spec.study import StudySpec, describe_conflict
from coldtune.studies.storage.optuna_private import queued_point
from coldtune.studies.storage.record import StudyRecord, TrialRecord, attributes_of_enqueued, imported, write_study
from coldtune.studies.storage.trial_cache import point_name


@dataclass(frozen=True)
class Imports:
    """What a study takes over from others: trials that ended, points to be tried first, and what a person is told."""

    trials: Sequence[FrozenTrial] = ()
    first: Sequence[tuple[Mapping[str, Any], str]] = ()  # and why
    said: Mapping[str, str] = field(default_factory=dict)  # by study


def open_study(name: str, spec: StudySpec, storage: BaseStorage) -> Study:
    """Return the Optuna study of that name. Create it if it is missing."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        directions = [objective.direction for objective in spec.objectives]
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
        _name_objectives(study, spec)
        return study


def set_up(study: Study, spec: StudySpec, space: Space, imports: Imports, fingerprint: str | None) -> None:
    """Write all that stands in a study before its first trial is asked.

    Done again after it was cut off, it adds what is missing, and nothing twice. One that is ready stays as it is.
    """
    if StudyRecord.of(study).ready:
        return
    write_study(study, spec=plain(spec), fingerprint=fingerprint)
    there = study.get_trials(deepcopy=False)
    known = {TrialRecord.of(trial).imported_from for trial in imported(there)}
    for trial in imports.trials:
        if TrialRecord.of(trial).imported_from not in known:
            study.add_trial(trial)
    points = {point_name(_point(trial)) for trial in [*there, *imports.trials]}
    for point, why in [*_first(space), *imports.first]:
        if point_name(point) not in points:
            points.add(point_name(point))
            study.enqueue_trial(dict(point), user_attrs=attributes_of_enqueued(why))
    write_study(study, imported=imports.said)
    write_study(study, ready=True)  # last, because a setup that was cut off before is repeated


def check_spec(study: Study, spec: StudySpec) -> None:
    """ValueError naming the differences where the storage holds another study of this name."""
    written = StudyRecord.of(study).spec
    if written is not None and (differences := spec.differences(parse(StudySpec, written))):
        raise ValueError(describe_conflict(study.study_name, "its storage", differences))


def check_judge(name: str, trials: Iterable[FrozenTrial], protocol: Protocol) -> None:
    """ValueError naming the parts in which `protocol` differs from that under which `trials` were judged.

    The spec names a judge; what that name stands for may have changed since (its weights, a user's own code).
    """
    records = (TrialRecord.of(trial) for trial in trials)
    judged = next((record.judged_under for record in records if record.protocol is not None), None)
    if judged is not None and (parts := difference(judged, protocol)):
        listed = ", ".join(f"{part} ({theirs!r}, now {mine!r})" for part, (theirs, mine) in parts.items())
        raise ValueError(
            f"--study {name}: its trials were judged under another protocol, with which new ones cannot be compared: "
            f"{listed}; judge as before, or give another name: its trainings are found in the store"
        )


def _name_objectives(study: Study, spec: StudySpec) -> None:
    """Store the names under which optuna-dashboard and Optuna's own plots show the objectives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.metric.replace("_", " ").upper() for objective in spec.objectives])


def _first(space: Space) -> list[tuple[Mapping[str, Any], str]]:
    return [(point, "the base" if point is space.first else "listed to be tried first") for point in space.enqueued]


def _point(trial: FrozenTrial) -> Mapping[str, Any]:
    waiting = trial.state == TrialState.WAITING
    return dict(queued_point(trial) if waiting else trial.params)
