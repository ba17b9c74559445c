"""How a study chooses its next point: an Optuna sampler that asks only feasible points and is seeded per trial."""

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
from coldtune.studies.space.space import Space
from coldtune.studies.storage.optuna_private import queued_point, unfiltered
from coldtune.studies.storage.record import promoted_from
from coldtune.studies.storage.trial_cache import AskedPoints, point_name

_TRIES = 200  # of the chosen algorithm; then uniform draws, which reach any feasible part of the space
_UNIFORM_TRIES = 20_000


class FeasibleSampler(BaseSampler):
    """Draws whole points from an Optuna sampler until one is feasible; an infeasible one never enters the study.

    The inner sampler is made anew for every trial with the seed hash(study seed, trial number). So a study asks the
    same trials whether it was interrupted or not (at concurrency 1), and a resumed one does not repeat its first
    suggestions. What was asked before is not asked again while anything else is left: the same settings give the same
    numbers. Values that a trial already has (it was interrupted, or enqueued) are kept and the rest drawn to fit.
    A promoted trial has all of them, those of the pruned one. Of variants and of a grid, trial n is the n-th, neither
    promoted nor imported ones counted.
    """

    def __init__(self, space: Space, search: SearchConfig, seed: int) -> None:
        self.space, self.search, self.seed = space, search, seed
        self.listed = listed_points(space, search, seed)
        self._asked: AskedPoints | None = None
        self._left_out = 0

    def leave_out(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Of variants and a grid, never ask `points`: the study's first trials, imported from others, hold them."""
        names = {point_name(point) for point in points}
        self._left_out = len(points)
        if self.listed is not None:
            self.listed = [point for point in self.listed if point_name(point) not in names]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space: every value is drawn together with the others, since feasibility is a matter of all."""
        return dict(self.space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A feasible point; of variants and of a grid, the one whose turn it is."""
        known = {**queued_point(trial), **trial.params}
        if promoted_from(trial) is not None:
            return known
        if self.listed is not None:
            place = trial.number - self._left_out - _promoted_before(study, trial.number)
            assert place < len(self.listed), f"place {place} of {len(self.listed)} points"
            return self.listed[place]
        inner = self.search.build(self.seed, trial.number)
        # Sobol points span the whole space from the first trial on; what a model can be fitted to, it knows itself.
        whole = isinstance(inner, QMCSampler)
        modelled = dict(self.space.distributions) if whole else inner.infer_relative_search_space(study, trial)
        inner.before_trial(study, trial)

        def draw() -> dict[str, Any]:
            joint = inner.sample_relative(study, trial, modelled)

            def pick(name: str, distribution: BaseDistribution) -> Any:
                if name in known:
                    return known[name]
                if name in joint:
                    return joint[name]
                return inner.sample_independent(study, trial, name, distribution)

            return self.space.walk(pick)

        asked = self._before(study, trial)
        return (
            self._first_feasible(draw, _TRIES, asked)
            or self._uniform(study, trial, known, asked)
            or self._uniform(study, trial, known, frozenset())
            or _too_narrow()
        )

    def _uniform(
        self, study: Study, trial: FrozenTrial, known: dict[str, Any], asked: Container[str]
    ) -> dict[str, Any] | None:
        uniform = RandomSampler(seed=trial_seed(self.seed, trial.number))

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

    def _before(self, study: Study, trial: FrozenTrial) -> Container[str]:
        """The points of earlier trials."""
        whole = unfiltered(study)
        if self._asked is None or self._asked.study is not whole:
            self._asked = AskedPoints(whole)
        return self._asked.before(trial.number)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Not reached: `sample_relative` gives every value that the space function asks for."""
        raise AssertionError(f"{param_name} was not drawn with the point of trial {trial.number}")

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing is kept between trials."""


def _promoted_before(study: Study, number: int) -> int:
    trials = unfiltered(study).get_trials(deepcopy=False)
    return sum(promoted_from(trial) is not None for trial in trials if trial.number < number)


def _too_narrow() -> NoReturn:
    raise ValueError(f"no feasible point found in {_UNIFORM_TRIES:,} uniform draws: the space is too narrow")


def listed_points(space: Space, search: SearchConfig, seed: int) -> list[dict[str, Any]] | None:
    """The points that a study asks one by one: variants as they are written, a grid in the order of its seed.

    None where points are searched. ValueError where a grid has no end.
    """
    if space.size is not None:
        return [{VARIANT: name} for name in space.config.variants]
    if search.algorithm != "grid":
        return None
    if space.config.first:
        raise ValueError("first: search.algorithm = 'grid' asks every point anyway; leave it out")
    first, *rest = space.grid()
    # Shuffled, so that a grid that is stopped half way has seen all of its values.
    random.Random(trial_seed(seed, -1)).shuffle(rest)
    return [first, *rest]
