"""The keys of `search`, which decide how a study chooses its points, and the registry of search algorithms."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

import optuna
from optuna.samplers import (
    BaseGASampler,
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
)
from pydantic import Field

from coldtune.config import Config
from coldtune.studies.storage.optuna_private import ReusingTPESampler, first_generation


def _tpe(config: SearchConfig, study_seed: int, number: int) -> BaseSampler:
    return ReusingTPESampler(seed=trial_seed(study_seed, number), startup=config.startup)


def _gp(config: SearchConfig, study_seed: int, number: int) -> BaseSampler:
    seed = trial_seed(study_seed, number)
    return GPSampler(
        seed=seed,
        n_startup_trials=config.startup,
        warn_independent_sampling=False,
        independent_sampler=RandomSampler(seed=seed),
    )


def _nsga2(config: SearchConfig, study_seed: int, number: int) -> BaseSampler:
    return NSGAIISampler(seed=trial_seed(study_seed, number), population_size=config.population)


def _nsga3(config: SearchConfig, study_seed: int, number: int) -> BaseSampler:
    return NSGAIIISampler(seed=trial_seed(study_seed, number), population_size=config.population)


def _random(config: SearchConfig, study_seed: int, number: int) -> BaseSampler:
    return RandomSampler(seed=trial_seed(study_seed, number))


def _qmc(config: SearchConfig, study_seed: int, number: int) -> BaseSampler:
    return QMCSampler(
        seed=trial_seed(study_seed, -1),  # one sequence for the whole study; the storage counts its points
        scramble=True,
        warn_independent_sampling=False,
        warn_asynchronous_seeding=False,
        independent_sampler=RandomSampler(seed=trial_seed(study_seed, number)),
    )


ALGORITHMS: dict[str, Callable[[SearchConfig, int, int], BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "random": _random,
    "qmc": _qmc,
    "grid": _random,  # the points come from a list (`coldtune.studies.search.sampler.listed_points`)
}
"""Builders of Optuna samplers by their name in `search.algorithm`. They take the config, study seed and trial number.

To add an algorithm, write a builder, add it here, and explain it in `SearchConfig`.
"""

if TYPE_CHECKING:
    AlgorithmName: TypeAlias = str
else:
    AlgorithmName = Literal[tuple(ALGORITHMS)]  # the error for an unknown name lists all names


class SearchConfig(Config):
    """How a study chooses its points.

    Attributes:
        algorithm: Optuna's sampler of that name. Only `grid` is our own.

            - `tpe`: Models good and bad points separately (multivariate, with a group for each set of conditional
              keys, and with the constant liar for running trials). Use it for tens to hundreds of trials, with any mix
              of choices and numbers, and one objective or several. It also learns from pruned trials, by the value at
              their last rung. The other algorithms learn from finished trials only.
            - `gp`: A Gaussian process with logEI. It is better for few, expensive trials with numeric keys. It takes
              longer to choose a point (cubic in the number of trials). Conditional keys are drawn at random.
            - `nsga2`, `nsga3`: Genetic algorithms, for two objectives and for more. They need several populations to
              be of use.
            - `random`: Uniform. Every other algorithm must beat it.
            - `qmc`: A scrambled Sobol sequence, which covers the space more evenly than random points.
            - `grid`: Every combination of choices and steps, in a random order.
        startup: The number of random points before `tpe` and `gp` use their model. With fewer, the model is used
            earlier, but it knows less.
        population: The size of a generation of `nsga2` and `nsga3`. The first generation is random.
    """

    algorithm: AlgorithmName = "tpe"
    startup: int = Field(default=10, ge=1, le=1_000_000)
    population: int = Field(default=20, ge=4, le=100_000)

    def first_generation(self) -> dict[str, int]:
        """Return the system attributes that make a genetic algorithm count a trial in its first generation.

        They are empty for other algorithms.
        """
        sampler = self.build_sampler(study_seed=0, number=0)
        return first_generation(type(sampler)) if isinstance(sampler, BaseGASampler) else {}

    def build_sampler(self, study_seed: int, number: int) -> BaseSampler:
        """Build the Optuna sampler for a single trial.

        Args:
            study_seed: The seed of the study (`--seed`).
            number: The number of the trial.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return ALGORITHMS[self.algorithm](self, study_seed, number)


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of trial `number`, given the study's seed.

    It is 32 bits of a hash, so that the seeds of neighbouring trials are unrelated.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")
