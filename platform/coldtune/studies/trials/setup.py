"""Setting a study up once: its record, the trials that it imports, and the points that are asked first."""

from __future__ import annotations

import uuid
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
from coldtune.studies.spec.replicates import check_same_race
from coldtune.studies.spec.study import StudySpec, describe_conflict
from coldtune.studies.storage.optuna_private import queued_point
from coldtune.studies.storage.record import StudyRecord, TrialRecord, attributes_of_enqueued, imported, write_study
from coldtune.studies.storage.trial_cache import point_name


@dataclass(frozen=True)
class Imports:
    """Trials and points that a new study takes over from other studies.

    Attributes:
        trials: Copies of finished trials.
        first: Points that are asked first, each with its reason.
        summaries: By name of the other study, how many of its trials fit, for the user.
    """

    trials: Sequence[FrozenTrial] = ()
    first: Sequence[tuple[Mapping[str, Any], str]] = ()
    summaries: Mapping[str, str] = field(default_factory=dict)


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
    """Write everything that a study holds before its first trial is asked.

    If an earlier setup was cut off, the missing parts are added, and nothing is written twice. A study that is ready
    stays as it is.
    """
    record = StudyRecord.of(study)
    if record.ready:
        return
    write_study(study, spec=plain(spec), fingerprint=fingerprint, identity=record.identity or uuid.uuid4().hex)
    stored = study.get_trials(deepcopy=False)
    origins = {TrialRecord.of(trial).imported_from for trial in imported(stored)}
    for trial in imports.trials:
        if TrialRecord.of(trial).imported_from not in origins:
            study.add_trial(trial)
    points = {point_name(_point(trial)) for trial in [*stored, *imports.trials]}
    for point, why in [*_first_points(space), *imports.first]:
        if point_name(point) not in points:
            points.add(point_name(point))
            study.enqueue_trial(dict(point), user_attrs=attributes_of_enqueued(why))
    write_study(study, imported=imports.summaries)
    write_study(study, ready=True)  # last, because a setup that is not ready is repeated


def check_spec(study: Study, spec: StudySpec) -> None:
    """Raise ValueError with the differences if the storage holds another study of this name."""
    written = StudyRecord.of(study).spec
    if written is None:
        return
    stored = parse(StudySpec, written)
    check_same_race(study.study_name, spec.race, stored.race, stored.replicates)
    if differences := spec.differences(stored):
        raise ValueError(describe_conflict(study.study_name, "its storage", differences))


def check_judge(name: str, trials: Iterable[FrozenTrial], protocol: Protocol) -> None:
    """Check that new trials are judged under the same protocol as the trials so far.

    The spec only names a judge. Its weights, or a user's own code behind the name, may have changed since.

    Raises:
        ValueError: If the protocols differ. The message names the parts that differ.
    """
    records = (TrialRecord.of(trial) for trial in trials)
    stored = next((record.judged_under for record in records if record.protocol is not None), None)
    if stored is not None and (parts := difference(stored, protocol)):
        listed = ", ".join(f"{part} ({theirs!r}, now {mine!r})" for part, (theirs, mine) in parts.items())
        raise ValueError(
            f"--study {name}: its trials were judged under another protocol, with which new trials cannot be compared: "
            f"{listed}. Judge as before, or choose another name: its trainings are found in the store."
        )


def _name_objectives(study: Study, spec: StudySpec) -> None:
    """Store the names under which optuna-dashboard and Optuna's own plots show the objectives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.metric.replace("_", " ").upper() for objective in spec.objectives])


def _first_points(space: Space) -> list[tuple[Mapping[str, Any], str]]:
    return [(point, "the base" if point is space.first else "listed to be tried first") for point in space.enqueued]


def _point(trial: FrozenTrial) -> Mapping[str, Any]:
    waiting = trial.state == TrialState.WAITING
    return dict(queued_point(trial) if waiting else trial.params)
