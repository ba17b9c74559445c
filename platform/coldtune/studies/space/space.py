"""The search space: which keys vary, where, and what is derived so that every point is comparable.

    base: digits-quick                      a preset, or an inline trial configuration
    vary:
      degradation.sigma.schedule: {choices: [constant, linear, exponential]}
      degradation.sigma.rate:
        {low: 0.005, high: 0.2, log: true, when: {degradation.sigma.schedule: [linear, exponential]}}
      degradation.steps: {low: 10, high: 40, step: 5}
    derive:
      degradation.sigma.start: {hold: leftover, at: base}

A point from which a derived value cannot be had is infeasible: it is never asked (`coldtune.studies.search.sampler`).

Instead of `vary`, settings to go through one by one, each asked once; beside it, one more choice of the search:

    variants:
      fixed noise: {sampler.draw: fixed}
      estimated noise: {sampler.draw: estimated}
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from coldtune.diffusion import (
    STARTS,
    OutOfReachError,
    build_degradation,
    leftover_of,
    nfe,
    source_of,
    start_for_leftover,
)
from coldtune.dotted import drop_key, get_key, set_key
from coldtune.stages.trial import TrialConfig, parse_trial, short_name
from coldtune.studies.space.config import VARIANT, Derive, InfeasibleError, SpaceConfig
from coldtune.studies.space.distributions import described, grid_values, holds, uniform

Point = Mapping[str, Any]
"""Values by short name, as Optuna and the tables hold them."""

Pick = Callable[[str, BaseDistribution], Any]
"""Chooses the value of one parameter; called in the order in which the space is written."""

HELD_BY = {f"degradation.{key}": kind for kind, (key, _) in STARTS.items()}
"""Which key is derived so that a degradation's leftover is held, and of which kind."""

_LARGEST_GRID = 100_000


class Space:
    """The space around one base configuration, for images of one shape.

    The constructor checks nothing, because a stored space was checked when its study began. A new space comes from
    `coldtune.studies.space.validate.build_space`, which refuses a space that cannot be searched.
    """

    def __init__(self, config: SpaceConfig, base: Mapping[str, Any], image_shape: tuple[int, int, int]) -> None:
        self.config, self.base, self.image_shape = config, base, image_shape
        self.paths = {short_name(path): path for path in config.vary}
        self.distributions = {short_name(path): vary.distribution() for path, vary in config.vary.items()}
        if config.variants:
            variant = CategoricalDistribution(tuple(config.variants))
            self.distributions = {VARIANT: variant, **self.distributions}

    @functools.cached_property
    def targets(self) -> dict[str, float]:
        """The leftover that each derived key keeps, by the key's dotted path.

        Raises:
            ValueError: If a key cannot be derived, or is varied too.
        """
        return {path: self._target(path, derive) for path, derive in self.config.derive.items()}

    @functools.cached_property
    def first(self) -> dict[str, Any]:
        """The point of the base, which is the first trial.

        Raises:
            ValueError: If the base lies outside the space.
        """
        return self._point({}, "the first trial is the base, and the base lies outside the space")

    @functools.cached_property
    def enqueued(self) -> list[dict[str, Any]]:
        """The points that are asked before the search chooses: the base's, then those that the file lists.

        Raises:
            ValueError: If a listed point lies outside the space, or is not feasible.
        """
        return [self.first, *(self._written(number, given) for number, given in enumerate(self.config.first))]

    @property
    def size(self) -> int | None:
        """How many points there are in all, where they are variants; None where a search may go on and on."""
        return None if self.config.vary else len(self.config.variants)

    def sources(self) -> set[str]:
        """The datasets that degradations of this space draw from (`animorph`), beside the one that is restored."""
        trees = [tree["degradation"] for tree in self.trees()]
        varied = self.config.vary.get("degradation.source")
        return {name for tree in trees if (name := source_of(tree))} | set(map(str, varied.ends() if varied else ()))

    def walk(self, pick: Pick) -> dict[str, Any]:
        """One point: `pick` is asked for the variant and each key whose `when` holds, in the order of the file."""
        point: dict[str, Any] = {}
        if self.config.variants:
            point[VARIANT] = pick(VARIANT, self.distributions[VARIANT])
        tree = self.tree(point)
        for path, vary in self.config.vary.items():
            if all(get_key(tree, key) in allowed for key, allowed in vary.when.items()):
                name = short_name(path)
                point[name] = pick(name, self.distributions[name])
                set_key(tree, path, point[name])
            elif VARIANT not in vary.when:  # without effect, so that no `when` of another may hold by the base's value
                drop_key(tree, path)
        return point

    def resolve(self, point: Point) -> TrialConfig:
        """The trial's configuration at `point`: the base, the point's values, then what is derived from them.

        InfeasibleError where a derived value cannot be had; ValueError where the configuration is not valid.
        """
        tree = self.tree(point)
        tree.pop(VARIANT, None)
        for name, path in self.paths.items():
            if name in point:
                set_key(tree, path, point[name])
            elif VARIANT not in self.config.vary[path].when:  # without effect, and its owner may refuse it
                drop_key(tree, path)
        for path, target in self.targets.items():
            if tree["degradation"]["kind"] != HELD_BY[path]:
                continue
            try:
                value = _start(json.dumps(tree["degradation"], sort_keys=True), self.image_shape, target)
            except OutOfReachError as error:
                raise InfeasibleError(str(error)) from None
            set_key(tree, path, value)
        trial = parse_trial(tree)
        trial.check(self.image_shape)
        self._check_constraints(trial)
        return trial

    def tree(self, point: Point) -> dict[str, Any]:
        """The base as the point's variant changes it, and the variant's name beside its sections for `when`."""
        tree = copy.deepcopy(dict(self.base))
        if (name := point.get(VARIANT)) is not None:
            for path, value in self.config.variants[name].items():
                set_key(tree, path, copy.deepcopy(value))
            tree[VARIANT] = name
        return tree

    def trees(self) -> list[dict[str, Any]]:
        """The base, or as each variant changes it."""
        return [self.tree({VARIANT: name}) for name in self.config.variants] or [self.tree({})]

    def _check_constraints(self, trial: TrialConfig) -> None:
        """InfeasibleError where a constraint does not hold."""
        for name, bound in self.config.constrain.items():
            if name == "nfe":
                value = float(nfe(trial.sampler, int(trial.degradation["steps"])))
            elif trial.degradation["kind"] in STARTS or not self.config.variants:
                value = leftover_of(trial.degradation, self.image_shape)
            else:  # a variant of a kind that has no such number
                continue
            if not bound.holds(value):
                raise InfeasibleError(f"{name} = {value:.4g}: constrain.{name} is {bound}")

    def grid(self) -> list[dict[str, Any]]:
        """Every feasible combination of choices and steps, the base's point first, the others in the file's order.

        ValueError naming a key that is neither of choices, nor integer, nor in steps, and for more than _LARGEST_GRID.
        """
        options = {
            name: grid_values(self.paths.get(name, name), distribution)
            for name, distribution in self.distributions.items()
        }
        if (total := math.prod(map(len, options.values()))) > _LARGEST_GRID:
            raise ValueError(
                f"search.algorithm = 'grid': {total:,} combinations; at most {_LARGEST_GRID:,}: give larger steps"
            )
        points = {repr(self.first): self.first}
        for values in itertools.product(*options.values()):
            chosen = dict(zip(options, values, strict=True))
            point = self.walk(lambda name, _, chosen=chosen: chosen[name])  # type: ignore[misc]
            points.setdefault(repr(point), point)
        return [point for point in points.values() if self.feasible(point)]

    def feasible(self, point: Point) -> bool:
        """Whether the search may ask this point."""
        try:
            self.resolve(point)
        except InfeasibleError:
            return False
        return True

    def sample(self, rng: random.Random) -> dict[str, Any]:
        """A point drawn uniformly (log-uniformly where `log`), feasible or not."""
        return self.walk(lambda _, distribution: uniform(distribution, rng))

    def feasible_share(self, samples: int = 200) -> float:
        """The share of the space that the search may ask, estimated from a fixed random sample."""
        rng = random.Random(0)
        return sum(self.feasible(self.sample(rng)) for _ in range(samples)) / samples

    def _target(self, path: str, derive: Derive) -> float:
        if path not in HELD_BY:
            allowed = ", ".join(f"{key} of {kind}" for key, kind in HELD_BY.items())
            raise ValueError(f"derive.{path}: `hold: {derive.hold}` derives {allowed} only")
        if path in self.config.vary:
            raise ValueError(f"derive.{path}: is also under vary; a key is varied or derived, not both")
        if derive.at == "base":
            if (kind := self.base["degradation"]["kind"]) != HELD_BY[path]:
                raise ValueError(f"derive.{path}: the base is {kind}, which has no such key; give `at` a number")
            return leftover_of(self.base["degradation"], self.image_shape)
        return float(derive.at)

    def _written(self, number: int, given: Mapping[str, Any]) -> dict[str, Any]:
        """The point that `first` lists, feasible; ValueError naming what is wrong."""
        where = f"first[{number}]"
        if unknown := sorted(set(given) - set(self.paths.values()) - {VARIANT}):
            raise ValueError(f"{where}.{unknown[0]}: does not vary; allowed: {', '.join(self.paths.values())}")
        point = self._point(given, f"{where} lies outside the space")
        if missing := [key for key in given if key != VARIANT and short_name(key) not in point]:
            raise ValueError(f"{where}.{missing[0]}: has no effect there, its `when` does not hold; leave it out")
        try:
            self.resolve(point)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        return point

    def _point(self, given: Mapping[str, Any], why: str) -> dict[str, Any]:
        """A point of given values by dotted key, the others as in the base or the given variant."""
        variant = given.get(VARIANT, next(iter(self.config.variants), None))
        if variant is not None and variant not in self.config.variants:
            raise ValueError(f"variant = {variant!r}: {why}; allowed: {', '.join(self.config.variants)}")
        tree = self.written_out(self.tree({VARIANT: variant}))

        def pick(name: str, distribution: BaseDistribution) -> Any:
            if name == VARIANT:
                return variant
            path = self.paths[name]
            value = given.get(path, get_key(tree, path))
            if not holds(distribution, value):
                allowed = f"allowed by vary.{path}: {described(distribution)}"
                raise ValueError(f"{path} = {value!r}: {why}; {allowed}")
            return value

        return self.walk(pick)

    def written_out(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """A base with every default; the variant's name stays."""
        sections = {name: section for name, section in tree.items() if name != VARIANT}
        written = parse_trial(sections).model_dump()
        written["degradation"] = build_degradation(tree["degradation"], self.image_shape).config.model_dump()
        return {**written, VARIANT: tree.get(VARIANT)}


@functools.lru_cache(maxsize=65536)
def _start(degradation: str, image_shape: tuple[int, int, int], target: float) -> float:
    """`start_for_leftover`, remembered: a search asks about the same few combinations again and again."""
    return start_for_leftover(json.loads(degradation), image_shape, target)
