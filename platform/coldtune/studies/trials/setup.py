"""Setting a study up, once: what it is, what it imports, and the points that it asks before the search chooses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from coldtune.config import parse, plain
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import difference
from coldtune.studies.space.space import Space
from coldtune.studies.spec.study import StudySpec, another
from coldtune.studies.storage.record import FINGERPRINT, IMPORTED, IMPORTED_FROM, READY, SPEC
from coldtune.studies.storage.trial_cache import point_name


@dataclass(frozen=True)
class Imports:
    """What a study takes over from others: trials that ended, points to be tried first, and what a person is told."""

    trials: Sequence[FrozenTrial] = ()
    first: Sequence[tuple[Mapping[str, Any], str]] = ()  # and why
    said: Mapping[str, str] = field(default_factory=dict)  # by study


def set_up(study: Study, spec: StudySpec, space: Space, imports: Imports, fingerprint: str | None) -> None:
    """Write all that stands in a study before its first trial is asked.

    Done again after it was cut off, it adds what is missing, and nothing twice. One that is ready stays as it is.
    """
    if study.user_attrs.get(READY):
        return
    study.set_user_attr(SPEC, json.dumps(plain(spec)))  # in its own order: a space is walked as it is written
    if fingerprint is not None:
        study.set_user_attr(FINGERPRINT, fingerprint)
    there = study.get_trials(deepcopy=False)
    known = {json.dumps(trial.user_attrs[IMPORTED_FROM]) for trial in there if IMPORTED_FROM in trial.user_attrs}
    for trial in imports.trials:
        if json.dumps(trial.user_attrs[IMPORTED_FROM]) not in known:
            study.add_trial(trial)
    points = {point_name(_point(trial)) for trial in [*there, *imports.trials]}
    for point, why in [*_first(space), *imports.first]:
        if point_name(point) not in points:
            points.add(point_name(point))
            study.enqueue_trial(dict(point), user_attrs={"why": why})
    study.set_user_attr(IMPORTED, dict(imports.said))
    study.set_user_attr(READY, True)


def check_spec(study: Study, spec: StudySpec) -> None:
    """ValueError naming the differences where the storage holds another study of this name."""
    written = study.user_attrs.get(SPEC)
    if written is not None and (differences := spec.differences(parse(StudySpec, json.loads(written)))):
        raise ValueError(another(study.study_name, "its storage", differences))


def check_judge(name: str, trials: Iterable[FrozenTrial], protocol: Protocol) -> None:
    """ValueError naming the parts in which `protocol` differs from that under which `trials` were judged.

    The spec names a judge; what that name stands for may have changed since (its weights, a user's own code).
    """
    judged = next((trial.user_attrs["protocol"] for trial in trials if "protocol" in trial.user_attrs), None)
    if judged is not None and (parts := difference(parse(Protocol, judged, "protocol"), protocol)):
        listed = ", ".join(f"{part} ({theirs!r}, now {mine!r})" for part, (theirs, mine) in parts.items())
        raise ValueError(
            f"--study {name}: its trials were judged under another protocol, with which new ones cannot be compared: "
            f"{listed}; judge as before, or give another name: its trainings are found in the store"
        )


def _first(space: Space) -> list[tuple[Mapping[str, Any], str]]:
    return [(point, "the base" if point is space.first else "listed to be tried first") for point in space.enqueued]


def _point(trial: FrozenTrial) -> Mapping[str, Any]:
    waiting = trial.state == TrialState.WAITING
    return dict(trial.system_attrs.get("fixed_params", {}) if waiting else trial.params)
