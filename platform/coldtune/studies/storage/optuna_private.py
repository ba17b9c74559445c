"""Every access to Optuna's private API, so that an upgrade of Optuna is checked in one file.

Each function says why the public API (of Optuna 5.0) does not suffice. Optuna's trials know their study and storage by
private names only, and most functions here need one of them. One exception stands elsewhere: `PatientStorage` in
`database` overrides private methods of Optuna's database storage.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import _filter_study
from optuna.samplers import BaseGASampler, TPESampler
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import _BatchedCategoricalDistributions, _unique_inverse_2d
from optuna.samplers._tpe.sampler import (
    _RELATIVE_PARAMS_KEY,
    _SYSTEM_ATTR_MAX_LENGTH,
    _get_infeasible_trial_score,
    _get_pruned_trial_score,
    _split_trials,
    default_gamma,
    default_gamma_multiobjective,
)
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.storages import BaseStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.study import Study, StudyDirection
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


def share_distributions(trial: FrozenTrial, shared: dict[str, BaseDistribution]) -> None:
    """Let an ended trial refer to the distributions of earlier trials if they are equal.

    Optuna builds new distributions for each trial that it reads, and keeps them in memory.
    """
    for name, distribution in trial._distributions.items():
        if shared.setdefault(name, distribution) != distribution:
            shared[name] = distribution
    trial._distributions.update({name: shared[name] for name in trial._distributions})


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


_CHUNK = 256


class TPEHistory:
    """The ended trials of a study as arrays with a row for each trial number, kept from one suggestion to the next.

    Optuna's TPE reads all trials again for every draw. A trial that has ended does not change, so it is read once here.
    """

    def __init__(self) -> None:
        self._trials: list[FrozenTrial | None] = []
        self._ranks = np.empty((0, 3))
        self._kinds = np.empty(0, dtype=np.int64)  # of each trial: the place of its keys in `_keys`
        self._keys: dict[tuple[str, ...], int] = {}
        self._columns: dict[str, tuple[BaseDistribution, npt.NDArray[np.float64]]] = {}
        self._settled: dict[int, tuple[list[FrozenTrial], list[int]]] = {}

    def read(self, study: Study, trials: Sequence[FrozenTrial]) -> tuple[npt.NDArray[np.int64], list[FrozenTrial]]:
        """Read those of a study's trials that are new.

        Returns:
            The numbers of all trials that have ended with values, and the trials that run.
        """
        numbers: list[int] = []
        running: list[FrozenTrial] = []
        for start in range(0, len(trials), _CHUNK):
            chunk = list(trials[start : start + _CHUNK])
            known = self._settled.get(start)
            # Python compares the same objects without looking into them.
            if known is None or known[0] != chunk:
                ended = [trial for trial in chunk if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
                known = chunk, [self._add(study, trial) for trial in ended]
                running += [trial for trial in chunk if trial.state == TrialState.RUNNING]
                if all(trial.state.is_finished() for trial in chunk):
                    self._settled[start] = known
            numbers += known[1]
        return np.array(numbers, dtype=np.int64), running

    def best(self, numbers: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the best trials for one objective, in the order of Optuna's TPE.

        Completed trials come before pruned trials, and pruned trials before those that violate a constraint.
        """
        kind, first, _ = self._ranks[numbers].T
        complete = first[kind == 0]
        if 0 < count <= len(complete):  # sort only those that can be among the best
            numbers = numbers[(kind == 0) & (first <= np.partition(complete, count - 1)[count - 1])]
            kind, first, _ = self._ranks[numbers].T
        second = self._ranks[numbers, 2]
        return np.sort(numbers[np.lexsort((second, first, kind))[:count]])

    def trials(self, numbers: npt.NDArray[np.int64]) -> list[FrozenTrial]:
        """Return the trials of these numbers."""
        return [trial for number in numbers if (trial := self._trials[number]) is not None]

    def groups(self, numbers: npt.NDArray[np.int64]) -> _SearchSpaceGroup:
        """Return the groups of keys that occur together, as Optuna finds them by adding trial after trial.

        A trial changes the groups only if no trial before it has the same keys.
        """
        group = _SearchSpaceGroup()
        _, first = np.unique(self._kinds[numbers], return_index=True)
        for trial in self.trials(numbers[np.sort(first)]):
            group.add_distributions(trial.distributions)
        return group

    def values(self, name: str, distribution: BaseDistribution) -> npt.NDArray[np.float64]:
        """Return the values of a parameter by trial number, as TPE models them. NaN stands for no value."""
        if name not in self._columns or self._columns[name][0] != distribution:
            column = np.full(len(self._kinds), np.nan)
            for number, trial in enumerate(self._trials):
                if trial is not None and name in trial.params:
                    column[number] = distribution.to_internal_repr(trial.params[name])
            self._columns[name] = (distribution, column)
        return self._columns[name][1]

    def _add(self, study: Study, trial: FrozenTrial) -> int:
        """Read a trial unless it is known. Return its number."""
        number = trial.number
        if number < len(self._trials) and self._trials[number] is trial:
            return number
        self._make_room(number)
        self._trials[number] = trial
        self._kinds[number] = self._keys.setdefault(tuple(trial.distributions), len(self._keys))
        if len(study.directions) == 1:
            self._ranks[number] = _rank(study, trial)
        for name, (distribution, column) in self._columns.items():
            column[number] = distribution.to_internal_repr(trial.params[name]) if name in trial.params else np.nan
        return number

    def _make_room(self, number: int) -> None:
        self._trials.extend([None] * (number + 1 - len(self._trials)))
        if (more := len(self._trials) - len(self._kinds)) <= 0:
            return
        more = max(more, len(self._kinds))  # the arrays double, so that adding trials stays cheap
        self._kinds = np.append(self._kinds, np.zeros(more, dtype=np.int64))
        self._ranks = np.append(self._ranks, np.zeros((more, 3)), axis=0)
        self._columns = {name: (of, np.append(old, np.full(more, np.nan))) for name, (of, old) in self._columns.items()}


def _rank(study: Study, trial: FrozenTrial) -> tuple[float, float, float]:
    """Return the place of an ended trial among those of one objective. Smaller places are better."""
    if (violation := _get_infeasible_trial_score(trial)) > 0:
        return 2, violation, 0
    if trial.state == TrialState.PRUNED:
        return 1, *_get_pruned_trial_score(trial, study)
    assert trial.value is not None
    return 0, trial.value if study.direction == StudyDirection.MINIMIZE else -trial.value, 0


class ReusingTPESampler(TPESampler):
    """A TPE that suggests exactly the points of Optuna's TPE, but models the trials once for a suggestion.

    It is multivariate, with groups and the constant liar. Optuna's TPE reads and models all trials again for every draw
    and every group of keys, which takes 0.4 s at 10,000 trials. No public option changes that.

    Attributes:
        history: The trials that were read. Give a sampler the history of its predecessor, so that it reads new ones
            only.
        trials: The trials to learn from, if the caller has read them. None means those of the study.
    """

    def __init__(self, seed: int, startup: int) -> None:
        super().__init__(seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True)
        self._group_decomposed_search_space = cast(Any, _KnownGroups(self))
        self.history = TPEHistory()
        self.trials: Sequence[FrozenTrial] | None = None
        self._ended = np.empty(0, dtype=np.int64)
        self._below: npt.NDArray[np.int64] | None = None
        self._running: list[FrozenTrial] = []
        self._models: dict[tuple[str, ...], _Model] = {}
        self._drawn = _Draw({})

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Read the trials, and return the part of the space that they have in common."""
        trials = study._get_trials(deepcopy=False, use_cache=False) if self.trials is None else self.trials
        self._ended, running = self.history.read(study, trials)
        self._running = [other for other in running if other.number != trial.number]
        if len(study.directions) == 1:
            self._below = self.history.best(self._ended, default_gamma(len(self._ended)))
        else:
            ended = self.history.trials(self._ended)
            below, _ = _split_trials(study, ended, default_gamma_multiobjective(len(ended)))
            self._below = np.array([each.number for each in below], dtype=np.int64)
        self._models.clear()
        return super().infer_relative_search_space(study, trial)

    def known_groups(self) -> _SearchSpaceGroup:
        """Return the groups of keys of the trials that were read."""
        return self.history.groups(self._ended)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw a point. Its values are computed when they are read, because many draws are refused before.

        Call `keep` after the last draw. Optuna's TPE stores every draw at once.
        """
        assert self._search_space_group is not None
        groups: dict[str, Callable[[], dict[str, Any]]] = {}
        for sub_space in self._search_space_group.search_spaces:
            space = {name: sub_space[name] for name in sorted(sub_space) if name in search_space}
            if space and len(self._ended) >= self._n_startup_trials:
                groups |= dict.fromkeys(space, functools.cache(self._draw(study, space)))
        self._drawn = _Draw(groups)
        return cast(dict[str, Any], self._drawn)

    def keep(self, study: Study, trial: FrozenTrial) -> None:
        """Store the last draw, so that other drivers do not draw the same point while the trial runs."""
        if self._drawn:
            text = json.dumps(dict(self._drawn))
            for part, start in enumerate(range(0, len(text), _SYSTEM_ATTR_MAX_LENGTH)):
                key = f"{_RELATIVE_PARAMS_KEY}:{part}"
                write_trial_attribute(study, trial, key, text[start : start + _SYSTEM_ATTR_MAX_LENGTH])

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return self._draw(study, search_space)()

    def _draw(self, study: Study, search_space: dict[str, BaseDistribution]) -> Callable[[], dict[str, Any]]:
        """Draw candidates now. Return the function that chooses among them."""
        names = tuple(search_space)
        if names not in self._models:
            self._models[names] = self._model(study, search_space)
        model = self._models[names]
        candidates = model.good.sample(self._rng.rng, self._n_ei_candidates)

        def choose() -> dict[str, Any]:
            chosen = self._compare(candidates, model.gains(candidates))
            return {name: space.to_external_repr(chosen[name]) for name, space in search_space.items()}

        return choose

    def _model(self, study: Study, search_space: dict[str, BaseDistribution]) -> _Model:
        assert self._below is not None
        below, options = self._below, self._parzen_estimator_parameters
        good = self._observed(study, search_space, below, [])
        weights = np.ones(len(next(iter(good.values())))) if len(study.directions) > 1 else None

        def bad() -> _LogDensity:
            above = self._ended[~np.isin(self._ended, below, assume_unique=True)]
            observed = self._observed(study, search_space, above, self._running)
            return _LogDensity(_ParzenEstimator(observed, search_space, options), list(search_space))

        return _Model(_ParzenEstimator(good, search_space, options, weights), bad)

    def _observed(
        self,
        study: Study,
        search_space: dict[str, BaseDistribution],
        ended: npt.NDArray[np.int64],
        running: Sequence[FrozenTrial],
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Return the values of the trials that have all these keys, in the order of their numbers."""
        points = [(trial.number, self._get_params(trial, study)) for trial in running]
        points = [(number, point) for number, point in points if search_space.keys() <= point.keys()]
        columns = {name: self.history.values(name, space)[ended] for name, space in search_space.items()}
        complete = ~np.any([np.isnan(column) for column in columns.values()], axis=0)
        order = np.argsort(np.append(ended[complete], [number for number, _ in points]), kind="stable")
        return {
            name: np.append(columns[name][complete], [space.to_internal_repr(point[name]) for _, point in points])[
                order
            ]
            for name, space in search_space.items()
        }


class _Draw(Mapping[str, Any]):
    """A drawn point, of which each group of keys is computed when one of its values is read."""

    def __init__(self, groups: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
        self._groups = groups

    def __getitem__(self, name: str) -> Any:
        return self._groups[name]()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)


class _Model:
    """The models of good and bad trials of a group of keys, and the gains of the points that were compared."""

    def __init__(self, good: _ParzenEstimator, bad: Callable[[], _LogDensity]) -> None:
        self.good = good
        self._bad = functools.cache(bad)
        self._gains: dict[tuple[float, ...], float] = {}

    def gains(self, candidates: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """Return how much likelier each candidate is among the good trials, as a logarithm."""
        # Many candidates are equal if few values are possible, and a candidate may return in a later draw.
        points = list(zip(*(values.tolist() for values in candidates.values()), strict=True))
        new = {point: place for place, point in enumerate(points) if point not in self._gains}
        if new:
            some = {name: values[list(new.values())] for name, values in candidates.items()}
            self._gains.update(zip(new, self.good.log_pdf(some) - self._bad().at(some), strict=True))
        return np.array([self._gains[point] for point in points])


class _LogDensity:
    """The log density of a model of many trials. What does not depend on the point is computed once.

    It uses the operations of `_ParzenEstimator.log_pdf` in their order, so that every number is the same.
    """

    def __init__(self, model: _ParzenEstimator, names: Sequence[str]) -> None:
        mixture = model._mixture_distribution
        parts = dict(zip(names, mixture.distributions, strict=True))
        self._log_weights = np.log(mixture.weights)
        self._listed = {name: _listed_densities(part) for name, part in parts.items() if not _is_continuous(part)}
        self._continuous: dict[str, Any] = {name: part for name, part in parts.items() if _is_continuous(part)}
        if self._continuous:
            each = list(self._continuous.values())
            self._mu, self._sigma = (np.asarray(v).T for v in ([d.mu for d in each], [d.sigma for d in each]))
            self._low = (np.asarray([d.adapted_low for d in each]) - self._mu) / self._sigma
            self._high = (np.asarray([d.adapted_high for d in each]) - self._mu) / self._sigma
            self._log_mass = _truncnorm._log_gauss_mass(self._low, self._high)
            self._log_sigma = np.log(self._sigma)

    def at(self, points: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """Return the log density at points, which are given as columns."""
        count = len(next(iter(points.values())))
        total = np.zeros((count, len(self._log_weights)))
        for name, (density, log_mass) in self._listed.items():
            for row, value in enumerate(points[name].tolist()):
                total[row] += density(value)
            if log_mass is not None:
                total -= log_mass
        if self._continuous:
            total += self._log_continuous(points).sum(axis=-1)
        total += self._log_weights
        most = total.max(axis=1)
        most[np.isneginf(most)] = 0
        with np.errstate(divide="ignore"):
            return cast(npt.NDArray[np.float64], np.log(np.exp(total - most[:, None]).sum(axis=1)) + most)

    def _log_continuous(self, points: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """Return the log densities of the continuous keys: (points, trials, keys)."""
        x = [np.log(points[name]) if d.is_log else points[name] for name, d in self._continuous.items()]
        scaled = (np.asarray(x).T[:, np.newaxis, :] - self._mu) / self._sigma
        density: npt.NDArray[np.float64] = _truncnorm._norm_logpdf(scaled) - self._log_mass - self._log_sigma
        density[(scaled < self._low) | (scaled > self._high)] = -np.inf
        density[:, self._low == self._high] = np.nan
        return density


_ListedDensity = tuple[Callable[[float], npt.NDArray[np.float64]], npt.NDArray[np.float64] | None]


def _listed_densities(part: Any) -> _ListedDensity:
    """Return the log density of a key with few values in each trial's kernel, by value, and what is subtracted."""
    if isinstance(part, _BatchedCategoricalDistributions):
        by_choice = np.log(part.weights).T.copy()
        return lambda value: by_choice[int(value)], None
    mu, sigma, kernel = _unique_inverse_2d(part.mu, part.sigma)
    whole = _truncnorm._log_gauss_mass((part.adapted_low - mu) / sigma, (part.adapted_high - mu) / sigma)

    @functools.cache
    def density(value: float) -> npt.NDArray[np.float64]:
        edges = np.array([value - part.step / 2, value + part.step / 2])
        left, right = np.log(edges) if part.is_log else edges
        by_kernel: npt.NDArray[np.float64] = _truncnorm._log_gauss_mass((left - mu) / sigma, (right - mu) / sigma)[
            kernel
        ]
        return by_kernel

    return density, whole[kernel]


def _is_continuous(part: Any) -> bool:
    return not isinstance(part, _BatchedCategoricalDistributions) and part.step == 0.0


class _KnownGroups:
    """The groups of keys of a sampler, in the place where Optuna's TPE computes them from all trials."""

    def __init__(self, sampler: ReusingTPESampler) -> None:
        self._sampler = sampler

    def calculate(self, study: Study, use_cache: bool = False) -> _SearchSpaceGroup:
        return self._sampler.known_groups()


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
