"""The search space as code: its points, the trial that a point means, and the points that can be asked.

    base: digits-quick                      # a preset, or an inline trial configuration
    vary:
      degradation.sigma.schedule: {choices: [constant, linear, exponential]}
      degradation.sigma.rate:
        {low: 0.005, high: 0.2, log: true, when: {degradation.sigma.schedule: [linear, exponential]}}
      degradation.steps: {low: 10, high: 40, step: 5}
    derive:
      degradation.sigma.start: {hold: leftover, at: base}

A point is infeasible if a derived value does not exist there. It is never asked (`coldtune.studies.search.sampler`).

A space may list variants instead of `vary`. Then each variant is asked once. If a space has both, the variant is
another choice of the search:

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
from coldtune.studies.space.config import VARIANT, Derive, InfeasibleError, SpaceConfig, Vary
from coldtune.studies.space.distributions import (
    contains,
    describe_distribution,
    draw_uniform,
    grid_place,
    grid_size,
    grid_values,
)
from coldtune.studies.space.written import read_booleans

Point = Mapping[str, Any]
"""Values by short name (`T` for `degradation.steps`), as Optuna stores them and tables show them."""

Pick = Callable[[str, BaseDistribution], Any]
"""Chooses the value of a parameter from its short name and its distribution."""

DERIVED_KEYS = {f"degradation.{key}": kind for kind, (key, _) in STARTS.items()}
"""The kind of degradation to which each derived key belongs. The key sets the degradation's leftover."""

_LARGEST_GRID = 100_000


class Space:
    """The space around a base configuration, for images of a fixed shape.

    The constructor checks nothing, because a stored space was checked when its study began. A new space comes from
    `coldtune.studies.space.validate.build_space`, which refuses a space that cannot be searched.
    """

    def __init__(self, config: SpaceConfig, base: Mapping[str, Any], image_shape: tuple[int, int, int]) -> None:
        self.config, self.base, self.image_shape = config, base, image_shape
        self.paths = {short_name(path): path for path in config.vary}
        # The config keeps 1 and 0 as they are written, because names of studies depend on it.
        self.vary = {path: self._read(path, vary) for path, vary in config.vary.items()}
        self.distributions = {short_name(path): vary.distribution() for path, vary in self.vary.items()}
        if config.variants:
            variant = CategoricalDistribution(tuple(config.variants))
            self.distributions = {VARIANT: variant, **self.distributions}

    def _read(self, path: str, vary: Vary) -> Vary:
        if vary.choices is None:
            return vary
        choices = read_booleans(path, vary.choices, self.config.variants, self.base)
        return vary.model_copy(update={"choices": choices})

    @functools.cached_property
    def targets(self) -> dict[str, float]:
        """The leftover that each derived key produces, by the dotted path of the key.

        Raises:
            ValueError: If a key cannot be derived, or is varied too.
        """
        return {path: self._leftover_target(path, derive) for path, derive in self.config.derive.items()}

    @functools.cached_property
    def first(self) -> dict[str, Any]:
        """The point of the base, which is the first trial.

        Raises:
            ValueError: If the base lies outside the space.
        """
        return self._point_at({}, "the first trial is the base, and the base lies outside the space")

    @functools.cached_property
    def enqueued(self) -> list[dict[str, Any]]:
        """The points that are asked before the search chooses: the base, then the points under `first`.

        Raises:
            ValueError: If a listed point lies outside the space, or is not feasible.
        """
        return [self.first, *(self._listed_point(number, values) for number, values in enumerate(self.config.first))]

    @property
    def conditional(self) -> set[str]:
        """The names of the keys that some trials lack. A key that waits for a variant stays as the others write it."""
        waiting = {name: self.config.vary[path].when for name, path in self.paths.items()}
        return {name for name, when in waiting.items() if when and VARIANT not in when}

    @property
    def size(self) -> int | None:
        """The number of points if the space only lists variants. None if keys vary, because a search has no end."""
        return None if self.config.vary else len(self.config.variants)

    def sources(self) -> set[str]:
        """Return the names of the datasets that degradations of this space draw images from (`animorph` does).

        The dataset that is restored is not among them.
        """
        degradations = [tree["degradation"] for tree in self.variant_trees()]
        varied = self.config.vary.get("degradation.source")
        choices = varied.ends() if varied else ()
        return {name for config in degradations if (name := source_of(config))} | set(map(str, choices))

    def walk(self, pick: Pick) -> dict[str, Any]:
        """Build a point by asking `pick` for each of its values, in the order of the file.

        The variant comes first. A key whose `when` is not met is skipped.
        """
        point: dict[str, Any] = {}
        if self.config.variants:
            point[VARIANT] = pick(VARIANT, self.distributions[VARIANT])
        tree = self.variant_tree(point)
        for path, vary in self.config.vary.items():
            if all(get_key(tree, key) in allowed for key, allowed in vary.when.items()):
                name = short_name(path)
                point[name] = self._meet_listed(name, pick(name, self.distributions[name]))
                set_key(tree, path, point[name])
            elif VARIANT not in vary.when:
                # The key has no effect. Remove the base's value, so that it cannot meet the `when` of a later key.
                drop_key(tree, path)
        return point

    def _meet_listed(self, name: str, value: Any) -> Any:
        # A grid of floats misses a listed value by its last bit, and would train it twice.
        place = grid_place(self.distributions[name], value)
        return value if place is None else self._listed.get(name, {}).get(place, value)

    @functools.cached_property
    def _listed(self) -> dict[str, dict[int, Any]]:
        """The values of the base and of `first` on grids of floats, by short name and place on the grid."""
        grids = {name: path for name, path in self.paths.items() if grid_place(self.distributions[name], 0) is not None}
        if not grids:
            return {}
        trees = [self.with_defaults(tree) for tree in self.variant_trees()]
        listed: dict[str, dict[int, Any]] = {name: {} for name in grids}
        for name, path in grids.items():
            grid = self.distributions[name]
            for value in [*(get_key(tree, path) for tree in trees), *(point.get(path) for point in self.config.first)]:
                if contains(grid, value) and (place := grid_place(grid, value)) is not None:
                    listed[name].setdefault(place, value)
        return listed

    def resolve(self, point: Point) -> TrialConfig:
        """Return the configuration of the trial at `point`.

        It is the base, changed by the variant, then by the values of the point, then by the derived values.

        Raises:
            InfeasibleError: If a derived value does not exist, or a constraint is violated.
            ValueError: If the configuration is not valid.
        """
        tree = self.variant_tree(point)
        tree.pop(VARIANT, None)
        for name, path in self.paths.items():
            if name in point:
                set_key(tree, path, point[name])
            elif VARIANT not in self.config.vary[path].when:
                # The key has no effect, and the class that owns it may refuse it in this combination.
                drop_key(tree, path)
        for path, target in self.targets.items():
            if tree["degradation"]["kind"] != DERIVED_KEYS[path]:
                continue
            try:
                value = _cached_start(json.dumps(tree["degradation"], sort_keys=True), self.image_shape, target)
            except OutOfReachError as error:
                raise InfeasibleError(str(error)) from None
            set_key(tree, path, value)
        trial = parse_trial(tree)
        trial.check(self.image_shape)
        self._check_constraints(trial)
        return trial

    def variant_tree(self, point: Point) -> dict[str, Any]:
        """Return a copy of the base, changed by the variant of `point`.

        The name of the variant stands beside the sections, so that the conditions of `when` can read it.
        """
        tree = copy.deepcopy(dict(self.base))
        if (name := point.get(VARIANT)) is not None:
            for path, value in self.config.variants[name].items():
                set_key(tree, path, copy.deepcopy(value))
            tree[VARIANT] = name
        return tree

    def variant_trees(self) -> list[dict[str, Any]]:
        """Return `variant_tree` of every variant, or the base alone if there are no variants."""
        return [self.variant_tree({VARIANT: name}) for name in self.config.variants] or [self.variant_tree({})]

    def with_defaults(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """Return a configuration with every default written out. The name of the variant stays beside the sections."""
        sections = {name: section for name, section in tree.items() if name != VARIANT}
        written = parse_trial(sections).model_dump()
        written["degradation"] = build_degradation(tree["degradation"], self.image_shape).config.model_dump()
        return {**written, VARIANT: tree.get(VARIANT)}

    def grid(self) -> list[dict[str, Any]]:
        """List every feasible combination of choices and steps: the base first, the others in the order of the file.

        Raises:
            ValueError: If a key has neither choices nor a step, or there are more than 100,000 combinations.
        """
        total = math.prod(grid_size(self.paths.get(name, name), grid) for name, grid in self.distributions.items())
        if total > _LARGEST_GRID:
            raise ValueError(
                f"search.algorithm = 'grid': {total:,} combinations, but at most {_LARGEST_GRID:,} are allowed. Use "
                "larger steps."
            )
        options = {name: grid_values(grid) for name, grid in self.distributions.items()}
        points = {tuple(self.first.items()): self.first}  # in which 1 and 1.0 are the same value
        for values in itertools.product(*options.values()):
            chosen = dict(zip(options, values, strict=True))
            point = self.walk(lambda name, _, chosen=chosen: chosen[name])  # type: ignore[misc]
            points.setdefault(tuple(point.items()), point)
        return [point for point in points.values() if self.feasible(point)]

    def feasible(self, point: Point) -> bool:
        """Return True if the search may ask this point."""
        try:
            self.resolve(point)
        except InfeasibleError:
            return False
        return True

    def sample(self, rng: random.Random) -> dict[str, Any]:
        """Draw a point uniformly, and log-uniformly for keys with `log`. The point may be infeasible."""
        return self.walk(lambda _, distribution: draw_uniform(distribution, rng))

    def feasible_share(self, samples: int = 200) -> float:
        """Estimate the feasible share of the space, 0 to 1, from a random sample that is always the same."""
        rng = random.Random(0)
        return sum(self.feasible(self.sample(rng)) for _ in range(samples)) / samples

    def _check_constraints(self, trial: TrialConfig) -> None:
        for name, bound in self.config.constrain.items():
            if name == "nfe":
                value = float(nfe(trial.sampler, int(trial.degradation["steps"])))
            elif trial.degradation["kind"] in STARTS or not self.config.variants:
                value = leftover_of(trial.degradation, self.image_shape)
            else:  # this variant's kind of degradation has no leftover
                continue
            if not bound.allows(value):
                raise InfeasibleError(f"{name} = {value:.4g}: constrain.{name} is {bound}")

    def _leftover_target(self, path: str, derive: Derive) -> float:
        if path not in DERIVED_KEYS:
            allowed = ", ".join(f"{key} of {kind}" for key, kind in DERIVED_KEYS.items())
            raise ValueError(f"derive.{path}: `hold: {derive.hold}` derives only {allowed}")
        if path in self.config.vary:
            raise ValueError(f"derive.{path}: is also under vary. A key is either varied or derived, not both.")
        if derive.at == "base":
            if (kind := self.base["degradation"]["kind"]) != DERIVED_KEYS[path]:
                raise ValueError(f"derive.{path}: the base is {kind}, which has no such key. Set `at` to a number.")
            return leftover_of(self.base["degradation"], self.image_shape)
        return float(derive.at)

    def _listed_point(self, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the point that entry `number` of `first` describes. ValueError if it cannot be asked."""
        where = f"first[{number}]"
        if unknown := sorted(set(values) - set(self.paths.values()) - {VARIANT}):
            raise ValueError(f"{where}.{unknown[0]}: does not vary; allowed: {', '.join(self.paths.values())}")
        point = self._point_at(values, f"{where} lies outside the space")
        if missing := [key for key in values if key != VARIANT and short_name(key) not in point]:
            raise ValueError(f"{where}.{missing[0]}: has no effect there, because its `when` is not met. Leave it out.")
        try:
            self.resolve(point)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        return point

    def _point_at(self, values: Mapping[str, Any], problem: str) -> dict[str, Any]:
        """Return the point with `values`, by dotted key. Other keys are as in the base, or in the variant if named.

        ValueError with the text `problem` if a value lies outside the space.
        """
        variant = values.get(VARIANT, next(iter(self.config.variants), None))
        if variant is not None and variant not in self.config.variants:
            raise ValueError(f"variant = {variant!r}: {problem}; allowed: {', '.join(self.config.variants)}")
        tree = self.with_defaults(self.variant_tree({VARIANT: variant}))

        def pick(name: str, distribution: BaseDistribution) -> Any:
            if name == VARIANT:
                return variant
            path = self.paths[name]
            value = values.get(path, get_key(tree, path))
            if not contains(distribution, value):
                allowed = f"allowed by vary.{path}: {describe_distribution(distribution)}"
                raise ValueError(f"{path} = {value!r}: {problem}; {allowed}")
            return value

        return self.walk(pick)


@functools.lru_cache(maxsize=1024)  # a search of floats never asks for a combination again, and would keep all
def _cached_start(degradation: str, image_shape: tuple[int, int, int], target: float) -> float:
    """Compute `start_for_leftover` with a cache, because a search asks for the same few combinations many times."""
    return start_for_leftover(json.loads(degradation), image_shape, target)
