"""Every access to Optuna's private API, so that an upgrade of Optuna is checked in one file.

Each function says why the public API (of Optuna 5.0) does not suffice. Optuna's trials know their study and storage by
private names only, and most functions here need one of them. One exception stands elsewhere: `PatientStorage` in
`database` overrides private methods of Optuna's database storage.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Container, Mapping, Sequence
from typing import Any, cast

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import _filter_study
from optuna.samplers import BaseGASampler
from optuna.storages import BaseStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

DURABLE_OPERATIONS = frozenset(
    {JournalOperation.CREATE_STUDY, JournalOperation.SET_STUDY_USER_ATTR, JournalOperation.SET_TRIAL_STATE_VALUES}
)
"""The journal's records that must survive a power cut. Optuna keeps the names of its operations private."""

_QUEUED_POINT = "fixed_params"
_PRUNER_NOTE = "completed_rung_"


def storage_of(study: Study) -> BaseStorage:
    """Return the storage of a study, which a public `Study` does not expose."""
    return study._storage


def journal_of(storage: BaseStorage) -> BaseJournalBackend | None:
    """Return the backend of a journal storage, which it keeps private. None for other storages."""
    backend = getattr(storage, "_backend", None)
    return backend if isinstance(backend, BaseJournalBackend) else None


def read_study_attributes(study: Study) -> dict[str, Any]:
    """Return the system attributes of a study. Optuna removed their public accessors."""
    return dict(study._storage.get_study_system_attrs(study._study_id))


def write_study_attribute(study: Study, key: str, value: Any) -> None:
    """Set a system attribute of a study. Optuna removed the public setter."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def write_trial_attribute(study: Study, trial: Trial | FrozenTrial, key: str, value: Any) -> None:
    """Set a system attribute of a trial. Optuna removed the public setter."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def read_trial(study: Study, trial: Trial | FrozenTrial) -> FrozenTrial:
    """Return the stored state of a trial. The public `Study.get_trials` reads all trials."""
    return study._storage.get_trial(trial._trial_id)


def read_numbered_trial(study: Study, number: int) -> FrozenTrial | None:
    """Return the trial with a number, if there is one. The public `Study.get_trials` reads all trials."""
    storage = study._storage
    try:
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study._study_id, number))
    except KeyError:
        return None


def create_running_trial(study: Study, system_attributes: Mapping[str, str]) -> Trial:
    """Add a running trial that has system attributes from its first moment.

    The public `Study.ask` cannot set them, and it reads all trials to look for an enqueued one.
    """
    study._thread_local.cached_all_trials = None  # as `Study.ask` does, so that samplers see new trials
    template = create_trial(state=TrialState.RUNNING, system_attrs=dict(system_attributes))
    return Trial(study, study._storage.create_new_trial(study._study_id, template))


def resume_trial(study: Study, trial: FrozenTrial) -> Trial:
    """Return a stored running trial as a trial that can be asked and told. The public API creates new trials only."""
    return Trial(study, trial._trial_id)


def take_from_queue(study: Study, trial: FrozenTrial) -> Trial | None:
    """Begin a waiting trial, or return None if another driver has taken it. `Study.ask` always takes the oldest."""
    study._thread_local.cached_all_trials = None  # as `Study.ask` does, so that samplers see new trials
    try:
        taken = study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
    except UpdateFinishedTrialError:  # another driver has even ended it
        return None
    return Trial(study, trial._trial_id) if taken else None


def return_to_queue(study: Study, trial: Trial) -> None:
    """Make a running trial wait to be asked later. The public `Study.tell` refuses the state WAITING."""
    study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


def compute_suggestion(trial: Trial) -> None:
    """Let the sampler draw the point of a trial now, unless some of its values are known.

    The public API draws in the first `suggest_*` call, which may come while the journal is locked.
    """
    if not trial.params and not trial._fixed_params:
        trial.relative_params  # noqa: B018 - the property computes and keeps the suggestion


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """Return the value of one parameter. The public `suggest_*` take bounds, not the distribution of a space."""
    return trial._suggest(name, distribution)


def queued_point(trial: FrozenTrial) -> Mapping[str, Any]:
    """Return the values with which a trial was enqueued. Optuna keeps them in a system attribute of a private name."""
    point: Mapping[str, Any] = trial.system_attrs.get(_QUEUED_POINT, {})
    return point


def pruner_notes(trial: FrozenTrial) -> dict[str, Any]:
    """Return the notes of a successive halving on a trial. Optuna keeps them in system attributes of a private name."""
    return {key: value for key, value in trial.system_attrs.items() if key.startswith(_PRUNER_NOTE)}


def first_generation(sampler: type[BaseGASampler]) -> dict[str, int]:
    """Return the system attribute of a trial in a genetic sampler's first population. The name is private."""
    return {sampler._get_generation_key(): 0}


def unfiltered(study: Study) -> Study:
    """Return the whole study if `study` is Hyperband's private view on the trials of one bracket."""
    return cast(Study, getattr(study, "_study", study))


def ask_pruner(study: Study, trial: Trial | FrozenTrial) -> tuple[bool, dict[str, Any]]:
    """Return whether the study's pruner ends a trial, and the system attributes that the pruner wants to set.

    The public `Trial.should_prune` sets them at once. Here the caller stores them after the decision.

    Args:
        trial: A running trial, or a copy of its stored state with other values.
    """
    view, storage = copy.copy(study), _NotedWrites(study._storage)
    view._storage = cast(BaseStorage, storage)
    frozen = trial if isinstance(trial, FrozenTrial) else read_trial(study, trial)
    return view.pruner.prune(view, frozen), storage.notes


def show_trials(study: Study, trials: Sequence[FrozenTrial]) -> Study:
    """Return a view of a study in which it has exactly these trials. Whatever is written reaches the study itself.

    Samplers and pruners read trials from the study that they are given, and some of them by private methods.
    """
    view = copy.copy(study)
    view._storage = cast(BaseStorage, _ChosenTrials(study._storage, trials))
    view._thread_local = type(study._thread_local)()
    return view


def renumber(trial: FrozenTrial, number: int) -> FrozenTrial:
    """Return a copy of a trial under another number. Hyperband chooses the bracket of a trial by its number."""
    made = copy.copy(trial)
    made.number = number
    return made


def filter_for(study: Study, trial: FrozenTrial) -> Study:
    """Return the part of a study that its pruner lets the sampler see. Only Hyperband hides trials."""
    return _filter_study(study, trial)


class _ChosenTrials:
    """A storage that shows chosen trials of a study, and otherwise is another storage."""

    def __init__(self, storage: BaseStorage, trials: Sequence[FrozenTrial]) -> None:
        self._storage, self._trials = storage, trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        chosen = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def get_n_trials(self, study_id: int, state: TrialState | tuple[TrialState, ...] | None = None) -> int:
        states = (state,) if isinstance(state, TrialState) else state
        return len(self.get_all_trials(study_id, deepcopy=False, states=states))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class _NotedWrites:
    """A storage that reads from another storage and keeps system attributes of trials instead of writing them."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self.notes: dict[str, Any] = {}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.notes[key] = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def find_database_trial(session: Any, study_id: int, key: str, value: str) -> Any:
    """Return the database's row of the trial that has a system attribute, inside a running transaction.

    Public methods open a transaction of their own. The tables are private, and importing them takes a while.
    """
    from optuna.storages._rdb.models import TrialModel, TrialSystemAttributeModel

    query = session.query(TrialModel).join(TrialSystemAttributeModel)
    return query.filter(
        TrialModel.study_id == study_id,
        TrialSystemAttributeModel.key == key,
        TrialSystemAttributeModel.value_json == json.dumps(value),
    ).one_or_none()
