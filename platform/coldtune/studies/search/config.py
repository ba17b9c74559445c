"""How a search chooses its points: the keys of `search`."""

from __future__ import annotations

import hashlib
import warnings
from typing import Literal

import optuna
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
from pydantic import Field

from coldtune.config import Config
from coldtune.studies.storage.optuna_private import first_generation


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
        return {} if sampler is None else first_generation(sampler)

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


def trial_seed(seed: int, number: int) -> int:
    """The seed of trial `number` of the study seeded `seed`: 32 bits of a hash, so that neighbours are unrelated."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")
