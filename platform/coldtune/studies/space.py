"""The search space: which keys vary, where, and what is derived so that every point is comparable.

    base: digits-quick                      a preset, or an inline trial configuration
    vary:
      degradation.sigma.schedule: {choices: [constant, linear, exponential]}
      degradation.sigma.rate:
        {low: 0.005, high: 0.2, log: true, when: {degradation.sigma.schedule: [linear, exponential]}}
      degradation.steps: {low: 10, high: 40, step: 5}
    derive:
      degradation.sigma.start: {hold: leftover, at: base}

A point from which a derived value cannot be had is infeasible: it is never asked (`coldtune.studies.sampler`).

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from coldtune.diffusion import (
    STARTS,
    OutOfReachError,
    build_degradation,
    leftover_of,
    nfe,
    source_of,
    start_for_leftover,
)
from coldtune.stages.trial import TrialConfig, leaves, parse_trial, short_name
from coldtune.studies.space_config import Derive, SpaceConfig

Point = Mapping[str, Any]
"""Values by short name, as Optuna and the tables hold them."""

Pick = Callable[[str, BaseDistribution], Any]
"""Chooses the value of one parameter; called in the order in which the space is written."""

VARIANT = "variant"
"""The one parameter of a space of variants."""

HELD_BY = {f"degradation.{key}": kind for kind, (key, _) in STARTS.items()}
"""Which key is derived so that a degradation's leftover is held, and of which kind."""

_LARGEST_GRID = 100_000
_CORNERS = 4096  # beyond this many corners a random subset of them is checked


class InfeasibleError(ValueError):
    """A point at which a derived value cannot be had; it is excluded from the search, not an error of the user."""


class Space:
    """The space around one base configuration, for images of one shape.

    Raises ValueError naming the key for a key that the base does not have, a range in which a value is refused by its
    owner, a base outside the space, or a space of which (almost) nothing is feasible.
    """

    def __init__(self, config: SpaceConfig, base: Mapping[str, Any], image_shape: tuple[int, int, int]) -> None:
        self.config, self.base, self.image_shape = config, base, image_shape
        self.paths = {short_name(path): path for path in config.vary}
        self.distributions = {short_name(path): vary.distribution() for path, vary in config.vary.items()}
        if config.variants:
            variant = CategoricalDistribution(tuple(config.variants))
            self.distributions = {VARIANT: variant, **self.distributions}
        self.targets = {path: self._target(path, derive) for path, derive in config.derive.items()}
        self._check_variants()
        self._check_keys()
        self.first = self._base_point()
        if config.vary:
            self._check_corners()
        self.enqueued = [self.first, *(self._written(number, given) for number, given in enumerate(config.first))]
        """The points that are asked before the search chooses: the base's, then those that the file lists."""

    @property
    def size(self) -> int | None:
        """How many points there are in all, where they are variants; None where a search may go on and on."""
        return None if self.config.vary else len(self.config.variants)

    def sources(self) -> set[str]:
        """The datasets that degradations of this space draw from (`animorph`), beside the one that is restored."""
        trees = [tree["degradation"] for tree in self._trees()]
        varied = self.config.vary.get("degradation.source")
        return {name for tree in trees if (name := source_of(tree))} | set(map(str, varied.ends() if varied else ()))

    def walk(self, pick: Pick) -> dict[str, Any]:
        """One point: `pick` is asked for the variant and each key whose `when` holds, in the order of the file."""
        point: dict[str, Any] = {}
        if self.config.variants:
            point[VARIANT] = pick(VARIANT, self.distributions[VARIANT])
        tree = self._tree(point)
        for path, vary in self.config.vary.items():
            if all(_get(tree, key) in allowed for key, allowed in vary.when.items()):
                name = short_name(path)
                point[name] = pick(name, self.distributions[name])
                _set(tree, path, point[name])
        return point

    def resolve(self, point: Point) -> TrialConfig:
        """The trial's configuration at `point`: the base, the point's values, then what is derived from them.

        InfeasibleError where a derived value cannot be had; ValueError where the configuration is not valid.
        """
        tree = self._tree(point)
        tree.pop(VARIANT, None)
        for name, path in self.paths.items():
            if name in point:
                _set(tree, path, point[name])
            elif VARIANT not in self.config.vary[path].when:  # without effect, and its owner may refuse it
                _drop(tree, path)
        for path, target in self.targets.items():
            if tree["degradation"]["kind"] != HELD_BY[path]:
                continue
            try:
                value = _start(json.dumps(tree["degradation"], sort_keys=True), self.image_shape, target)
            except OutOfReachError as error:
                raise InfeasibleError(str(error)) from None
            _set(tree, path, value)
        trial = parse_trial(tree)
        trial.check(self.image_shape)
        self._check_constraints(trial)
        return trial

    def _tree(self, point: Point) -> dict[str, Any]:
        """The base as the point's variant changes it, and the variant's name beside its sections for `when`."""
        tree = copy.deepcopy(dict(self.base))
        if (name := point.get(VARIANT)) is not None:
            for path, value in self.config.variants[name].items():
                _set(tree, path, copy.deepcopy(value))
            tree[VARIANT] = name
        return tree

    def _trees(self) -> list[dict[str, Any]]:
        """The base, or as each variant changes it."""
        return [self._tree({VARIANT: name}) for name in self.config.variants] or [self._tree({})]

    def _check_constraints(self, trial: TrialConfig) -> None:
        """InfeasibleError where a constraint does not hold."""
        for name, bound in self.config.constrain.items():
            if name == "nfe":
                value = float(nfe(trial.sampler, int(trial.degradation["steps"])))
            else:
                value = leftover_of(trial.degradation, self.image_shape)
            if not bound.holds(value):
                raise InfeasibleError(f"{name} = {value:.4g}: constrain.{name} is {bound}")

    def grid(self) -> list[dict[str, Any]]:
        """Every feasible combination of choices and steps, the base's point first, the others in the file's order.

        ValueError naming a key that is neither of choices, nor integer, nor in steps, and for more than _LARGEST_GRID.
        """
        options = {
            name: _grid(self.paths.get(name, name), distribution) for name, distribution in self.distributions.items()
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
        return self.walk(lambda _, distribution: _uniform(distribution, rng))

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

    def _check_variants(self) -> None:
        """Every variant must be valid, and judged as the base is."""
        base = parse_trial(self.base)
        for name in self.config.variants:
            try:
                tree = self._tree({VARIANT: name})
                del tree[VARIANT]
                trial = parse_trial(tree)
                trial.check(self.image_shape)
            except ValueError as error:
                raise ValueError(f"variants.{name}: {error}") from None
            if different := _judged_otherwise(base, trial):
                raise ValueError(f"variants.{name}: changes {different}, and variants are compared with each other")

    def _check_keys(self) -> None:
        if not self.config.vary:
            return
        known = {key for tree in self._trees() for key, _ in leaves(self._written_out(tree))}
        for path in [*self.config.vary, *self.config.derive]:
            if path not in known:
                raise ValueError(f"vary.{path}: the base has no such key; allowed: {', '.join(sorted(known))}")
        for path, vary in self.config.vary.items():
            for key in vary.when:
                if key not in known:
                    raise ValueError(f"vary.{path}.when.{key}: the base has no such key")

    def _base_point(self) -> dict[str, Any]:
        return self._point({}, "the first trial is the base, and the base lies outside the space")

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
        tree = self._written_out(self._tree({VARIANT: variant}))

        def pick(name: str, distribution: BaseDistribution) -> Any:
            if name == VARIANT:
                return variant
            path = self.paths[name]
            value = given.get(path, _get(tree, path))
            if not _holds(distribution, value):
                allowed = f"allowed by vary.{path}: {_describe(distribution)}"
                raise ValueError(f"{path} = {value!r}: {why}; {allowed}")
            return value

        return self.walk(pick)

    def _written_out(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """A base with every default; the variant's name stays."""
        sections = {name: section for name, section in tree.items() if name != VARIANT}
        written = parse_trial(sections).model_dump()
        written["degradation"] = build_degradation(tree["degradation"], self.image_shape).config.model_dump()
        return {**written, VARIANT: tree.get(VARIANT)}

    def _check_corners(self) -> None:
        """Try every combination of choices and ends: a value that its owner refuses is found now, not in a trial."""
        for point in self._corners():
            try:
                self.resolve(point)
            except InfeasibleError:
                continue
            except ValueError as error:
                shown = ", ".join(f"{self.paths.get(name, name)} = {value!r}" for name, value in point.items())
                raise ValueError(f"the space holds a point that is not valid ({shown}): {error}") from None
        if not self.feasible(self.first):
            self.resolve(self.first)  # raises, with the reason
        if self.feasible_share() < 0.02:
            reason = self._why_infeasible()
            raise ValueError(f"vary: under 2 % of the space can be asked; for example {reason}")

    def _corners(self) -> Iterator[dict[str, Any]]:
        options = [[(VARIANT, name) for name in self.config.variants]] if self.config.variants else []
        options += [[(name, end) for end in self.config.vary[path].ends()] for name, path in self.paths.items()]
        corners: Iterator[tuple[tuple[str, Any], ...]] = itertools.product(*options)
        total = 1
        for option in options:
            total *= len(option)
        if total > _CORNERS:
            rng = random.Random(0)
            corners = (tuple(rng.choice(option) for option in options) for _ in range(_CORNERS))
        seen = set()
        for corner in corners:
            values = dict(corner)
            point = self.walk(lambda name, _, values=values: values[name])  # type: ignore[misc]
            if (key := repr(point)) not in seen:
                seen.add(key)
                yield point

    def _why_infeasible(self) -> str:
        rng = random.Random(0)
        for _ in range(200):
            try:
                self.resolve(self.sample(rng))
            except InfeasibleError as error:
                return str(error)
        return "(no example found)"


def _judged_otherwise(base: TrialConfig, trial: TrialConfig) -> str:
    """What of how trials are judged differs between the two; empty where nothing does."""
    parts = {"the protocol": (base.protocol, trial.protocol), "generated for restored images": (base.task, trial.task)}
    for key in ("name", "image_size", "resize"):
        parts[f"data.{key}"] = (getattr(base.data, key), getattr(trial.data, key))
    return next((part for part, (mine, its) in parts.items() if mine != its), "")


@functools.lru_cache(maxsize=65536)
def _start(degradation: str, image_shape: tuple[int, int, int], target: float) -> float:
    """`start_for_leftover`, remembered: a search asks about the same few combinations again and again."""
    return start_for_leftover(json.loads(degradation), image_shape, target)


def _grid(path: str, distribution: BaseDistribution) -> Sequence[Any]:
    """The values of one key in a grid."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step is None or distribution.log:
        raise ValueError(f"vary.{path}: search.algorithm = 'grid' needs choices or a step, it goes through every value")
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + distribution.step * i for i in range(count)]


def _uniform(distribution: BaseDistribution, rng: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return rng.choice(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return rng.randrange(low, high + 1, distribution.step)  # type: ignore[arg-type]
    if step is not None and isinstance(distribution, FloatDistribution):
        return low + step * rng.randrange(round((high - low) / step) + 1)
    value = low * (high / low) ** rng.random() if distribution.log else rng.uniform(low, high)
    return round(value) if isinstance(distribution, IntDistribution) else value


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and distribution._contains(distribution.to_internal_repr(value))


def _describe(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    step = f" in steps of {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low} to {distribution.high}{step}"


def _get(tree: Mapping[str, Any], path: str) -> Any:
    for part in path.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for part in parents:
        if tree.get(part) is None:
            tree[part] = {}
        tree = tree[part]
        if not isinstance(tree, dict):
            raise ValueError(f"{path}: {part} is a value, it has no keys")
    tree[last] = value


def _drop(tree: dict[str, Any], path: str) -> None:
    parent, _, last = path.rpartition(".")
    owner = _get(tree, parent) if parent else tree
    if isinstance(owner, dict):
        owner.pop(last, None)


set_key = _set
