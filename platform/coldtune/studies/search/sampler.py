"""An Optuna sampler that asks only feasible points and has a new seed for every trial."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    QMCSampler,
    RandomSampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.search.config import SearchConfig, trial_seed
from coldtune.studies.space.config import VARIANT
from coldtune.studies.space.distributions import grid_values
from coldtune.studies.space.space import Space
from coldtune.studies.storage.optuna_private import (
    ReusingTPESampler,
    TPEHistory,
    filter_for,
    queued_point,
    show_trials,
    unfiltered,
)
from coldtune.studies.storage.record import is_beyond_list
from coldtune.studies.storage.settings import Setting
from coldtune.studies.storage.trial_cache import AskedPoints, TrialCache, point_name

_TRIES = 200  # draws from the chosen algorithm; after them, uniform draws reach any feasible part of the space
_UNIFORM_TRIES = 20_000


class FeasibleSampler(BaseSampler):
    """Draws whole points from another Optuna sampler until a point is feasible. Infeasible points are never stored.

    The inner sampler is built anew for every trial, with the seed hash(study seed, trial number). At concurrency 1, an
    interrupted and resumed study therefore asks the same trials as an uninterrupted study. A resumed study also does
    not repeat its first suggestions.

    A point that was asked before is not asked again while other points remain, because the same settings produce the
    same numbers. If a trial already has values (it was interrupted, or enqueued), they are kept and the other values
    are drawn to fit. A promoted trial takes all values from its pruned trial, and a retried trial those of its failed
    trial.

    Variants and grids are lists. Trial n asks the n-th point. Promoted, retried and imported trials are not counted.

    In a study with replicates, the inner sampler sees each setting as one trial, whose value is the mean over its
    finished trainings. Its seed comes from the number of the setting. So a study of one replicate is not affected, and
    further replicates do not change which seeds the next settings have.
    """

    def __init__(self, space: Space, search: SearchConfig, seed: int) -> None:
        self.space, self.search, self.seed = space, search, seed
        self.listed = listed_points(space, search, seed)
        self._asked: AskedPoints | None = None
        self._history = TPEHistory()
        self._shown: dict[int, tuple[Setting, FrozenTrial]] = {}  # by number: a setting, and the trial that shows it
        self._left_out = 0

    def leave_out(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Remove `points` from the list of variants or grid points, because imported trials have them already.

        The imported trials are the first trials of the study.
        """
        names = {point_name(point) for point in points}
        self._left_out = len(points)
        if self.listed is not None:
            self.listed = [point for point in self.listed if point_name(point) not in names]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space. All values are drawn together, because feasibility depends on all of them."""
        return dict(self.space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw a feasible point. If the points are a list, return the next point of the list."""
        known = {**queued_point(trial), **trial.params}
        if is_beyond_list(trial):
            return known
        if self.listed is not None:
            place = trial.number - self._left_out - _repeated_before(study, trial.number)
            assert place < len(self.listed), f"place {place} of {len(self.listed)} points"
            return self.listed[place]
        asked_points = self._asked_points(study)
        seen, number = self._settings_as_trials(study, trial, asked_points.trials)
        inner = self.search.build_sampler(self.seed, number)
        if isinstance(inner, ReusingTPESampler):
            inner.history = self._history
            if seen is unfiltered(study):
                inner.trials = asked_points.trials.all()
        # A Sobol sequence must span the whole space from the first trial on. The other samplers know themselves which
        # part of the space they can model.
        whole = isinstance(inner, QMCSampler)
        modelled = dict(self.space.distributions) if whole else inner.infer_relative_search_space(seen, trial)
        inner.before_trial(seen, trial)

        def draw() -> dict[str, Any]:
            joint = inner.sample_relative(seen, trial, modelled)

            def pick(name: str, distribution: BaseDistribution) -> Any:
                if name in known:
                    return known[name]
                if distribution.single():  # a key that is set. TPE draws NaN from a range of a single number
                    return grid_values(distribution)[0]
                if name in joint:
                    return joint[name]
                return inner.sample_independent(seen, trial, name, distribution)

            return self.space.walk(pick)

        asked = asked_points.before(trial.number)
        modelled_point = self._first_feasible(draw, _TRIES, asked)
        if isinstance(inner, ReusingTPESampler):
            inner.keep(seen, trial)
        return (
            modelled_point
            or self._draw_uniform(study, trial, number, known, asked)
            or self._draw_uniform(study, trial, number, known, frozenset())
            or _refuse_narrow_space()
        )

    def _draw_uniform(
        self, study: Study, trial: FrozenTrial, number: int, known: dict[str, Any], asked: Container[str]
    ) -> dict[str, Any] | None:
        uniform = RandomSampler(seed=trial_seed(self.seed, number))

        def draw() -> dict[str, Any]:
            return self.space.walk(
                lambda name, distribution: (
                    known[name] if name in known else uniform.sample_independent(study, trial, name, distribution)
                )
            )

        return self._first_feasible(draw, _TRIES if asked else _UNIFORM_TRIES, asked)

    def _first_feasible(
        self, draw: Callable[[], dict[str, Any]], tries: int, asked: Container[str]
    ) -> dict[str, Any] | None:
        points = (draw() for _ in range(tries))
        return next((p for p in points if point_name(p) not in asked and self.space.feasible(p)), None)

    def _asked_points(self, study: Study) -> AskedPoints:
        """Return the points of the study, read up to now."""
        whole = unfiltered(study)
        if self._asked is None or self._asked.study is not whole:
            self._asked, self._history, self._shown = AskedPoints(whole), TPEHistory(), {}
        self._asked.refresh()
        return self._asked

    def _settings_as_trials(self, study: Study, trial: FrozenTrial, trials: TrialCache) -> tuple[Study, int]:
        """Return a view of the study with a trial for each setting, and the number of the trial's own setting.

        A study without replicates is returned as it is.
        """
        if not trials.index.replicated:
            return study, trial.number
        for setting in trials.settings():
            known = self._shown.get(setting.number)
            if known is None or known[0] is not setting:
                self._shown[setting.number] = (setting, setting.as_trial())
        shown = show_trials(unfiltered(study), [as_trial for _, (_, as_trial) in sorted(self._shown.items())])
        return filter_for(shown, trial), trials.index.place(trial.number)[0]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raise an error: `sample_relative` returns every value, so Optuna has no reason to call this method."""
        raise AssertionError(f"{param_name} was not drawn with the point of trial {trial.number}")

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Do nothing, because the sampler keeps no state between trials."""


def _repeated_before(study: Study, number: int) -> int:
    trials = unfiltered(study).get_trials(deepcopy=False)
    return sum(is_beyond_list(trial) for trial in trials if trial.number < number)


def _refuse_narrow_space() -> NoReturn:
    raise ValueError(f"no feasible point found in {_UNIFORM_TRIES:,} uniform draws: the space is too narrow")


def listed_points(space: Space, search: SearchConfig, seed: int) -> list[dict[str, Any]] | None:
    """Return the points of a study that asks a list: variants as they are written, or a grid in random order.

    Args:
        seed: The study's seed. It decides the order of a grid.

    Returns:
        The points, or None if they are searched.

    Raises:
        ValueError: If a grid is unlimited or too large, or the space lists points to try first.
    """
    if space.size is not None:
        return [{VARIANT: name} for name in space.config.variants]
    if search.algorithm != "grid":
        return None
    if space.config.first:
        raise ValueError("first: search.algorithm = 'grid' asks every point anyway. Leave it out.")
    first, *rest = space.grid()
    # The order is random, so that a grid that is stopped half way has tried all values of every key.
    random.Random(trial_seed(seed, -1)).shuffle(rest)
    return [first, *rest]
