"""How a study chooses its next point: an Optuna sampler that asks only feasible points and is seeded per trial."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Literal, NoReturn

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseGASampler,
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from coldtune.config import Config
from coldtune.studies.space.config import VARIANT
from coldtune.studies.space.space import Space
from coldtune.studies.storage.trial_cache import AskedPoints, point_name

PROMOTED = "promoted_from"
"""The user attribute of a trial that takes a pruned one further: that one's number."""

_TRIES = 200  # of the chosen algorithm; then uniform draws, which reach any feasible part of the space
_UNIFORM_TRIES = 20_000


class SearchConfig(Config):
    """How points are chosen; each by Optuna's sampler of that name, but the grid.

    algorithm:
      `tpe`: models good and bad points apart (multivariate, grouped by what is conditional, constant liar for what is
        running); for tens to hundreds of trials, any mix of choices and numbers, one objective or several. It learns
        from pruned trials too, by the value at their last rung; the others learn from finished ones only.
      `gp`: a Gaussian process with logEI; better with few, costly trials of numbers, slower to ask (its cost grows with
        the cube of the trials); conditional keys are drawn at random.
      `nsga2`, `nsga3`: genetic, for two and for more objectives; worth their name from several populations on.
      `random`: uniform; what the others have to beat. `qmc`: a scrambled Sobol sequence, more even than random.
      `grid`: every combination of choices and steps, in a random order.
    startup: random points before the model is used (tpe, gp); fewer exploit earlier, and from less.
    population: of a generation (nsga2, nsga3); the first one is random.
    """

    algorithm: Literal["tpe", "gp", "nsga2", "nsga3", "random", "qmc", "grid"] = "tpe"
    startup: int = Field(default=10, ge=1)
    population: int = Field(default=20, ge=4)

    def first_generation(self) -> dict[str, int]:
        """The system attributes of a trial that the genetic searches shall count among their first population."""
        samplers: dict[str, type[BaseGASampler]] = {"nsga2": NSGAIISampler, "nsga3": NSGAIIISampler}
        sampler = samplers.get(self.algorithm)
        return {} if sampler is None else {sampler._get_generation_key(): 0}

    def build(self, study_seed: int, number: int) -> BaseSampler:
        """A new Optuna sampler for trial `number` of the study seeded `study_seed`."""
        seed = trial_seed(study_seed, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            match self.algorithm:
                case "random" | "grid":
                    return RandomSampler(seed=seed)
                case "gp":
                    return GPSampler(
                        seed=seed, n_startup_trials=self.startup, warn_independent_sampling=False,
                        independent_sampler=RandomSampler(seed=seed),
                    )  # fmt: skip
                case "nsga2":
                    return NSGAIISampler(seed=seed, population_size=self.population)
                case "nsga3":
                    return NSGAIIISampler(seed=seed, population_size=self.population)
                case "qmc":  # one sequence for the study: which of its points is next stands in the storage
                    return QMCSampler(
                        seed=trial_seed(study_seed, -1), scramble=True, warn_independent_sampling=False,
                        warn_asynchronous_seeding=False, independent_sampler=RandomSampler(seed=seed),
                    )  # fmt: skip
                case "tpe":
                    return TPESampler(
                        seed=seed, n_startup_trials=self.startup, multivariate=True, group=True, constant_liar=True
                    )


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
        known = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if PROMOTED in trial.user_attrs:
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
        whole = _whole(study)
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
    trials = _whole(study).get_trials(deepcopy=False)
    return sum(PROMOTED in trial.user_attrs for trial in trials if trial.number < number)


def _whole(study: Study) -> Study:
    """The study of which hyperband hands a sampler the trials of one bracket only."""
    return getattr(study, "_study", study)


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


def trial_seed(seed: int, number: int) -> int:
    """The seed of trial `number` of the study seeded `seed`: 32 bits of a hash, so that neighbours are unrelated."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")
