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
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field, field_validator, model_validator

from coldtune.config import Config
from coldtune.diffusion import build_degradation, leftover, source_of, start_for_leftover
from coldtune.diffusion.degradations.blur_start import OutOfReachError
from coldtune.stages.trial import TrialConfig, leaves, parse_trial, short_name

Point = Mapping[str, Any]
"""Values by short name, as Optuna and the tables hold them."""

Pick = Callable[[str, BaseDistribution], Any]
"""Chooses the value of one parameter; called in the order in which the space is written."""

_CORNERS = 4096  # beyond this many corners a random subset of them is checked


class InfeasibleError(ValueError):
    """A point at which a derived value cannot be had; it is excluded from the search, not an error of the user."""


class Vary(Config):
    """One varied key: `choices`, or `low` and `high` (both inclusive; integers search integers).

    log: search the logarithm, for values that matter by their ratio. step: a grid from `low`. when: only where every
    named key has one of the values listed (a key without effect is left out of the point, so that the search does not
    learn from it).
    """

    choices: tuple[str | bool | int | float | None, ...] | None = None
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = Field(default=None, gt=0)
    log: bool = False
    when: dict[str, tuple[Any, ...]] = Field(default_factory=dict)

    @field_validator("when", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: item if isinstance(item, list | tuple) else [item] for key, item in value.items()}

    @model_validator(mode="after")
    def _whole(self) -> Vary:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is not None:
            if not self.choices or self.log or self.step is not None or len(set(self.choices)) < len(self.choices):
                raise ValueError("choices must be different from each other, at least one, and go without log and step")
        else:
            assert self.low is not None
            assert self.high is not None
            if self.low > self.high:
                raise ValueError(f"low = {self.low} must not be above high = {self.high}")
            if self.log and (self.low <= 0 or self.step is not None):
                raise ValueError("log needs low > 0 and no step")
        return self

    def distribution(self) -> BaseDistribution:
        """The Optuna distribution of this key."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None):
            high = self.high - (self.high - self.low) % self.step if self.step else self.high
            return IntDistribution(self.low, high, log=self.log, step=self.step or 1)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def ends(self) -> tuple[Any, ...]:
        """The values at which the key is checked: all choices, or both ends."""
        distribution = self.distribution()
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        return (distribution.low, distribution.high)


class Derive(Config):
    """A key whose value follows from the others, so that what `hold` names stays `at` the base's value or a number.

    hold: `leftover`, what survives of the slowest mode at t = T (see `coldtune.diffusion.leftover`): the path to the
    end then varies, never the end itself, and FIDs compare (the weaker the end, the better every FID).
    """

    hold: Literal["leftover"]
    at: Literal["base"] | float = "base"


class SpaceConfig(Config):
    """A space as it is written in a file under search_spaces/."""

    base: str | dict[str, Any]
    vary: dict[str, Vary] = Field(min_length=1)
    derive: dict[str, Derive] = Field(default_factory=dict)


class Space:
    """The space around one base configuration, for images of one shape.

    Raises ValueError naming the key for a key that the base does not have, a range in which a value is refused by its
    owner, a base outside the space, or a space of which (almost) nothing is feasible.
    """

    def __init__(self, config: SpaceConfig, base: Mapping[str, Any], image_shape: tuple[int, int, int]) -> None:
        self.config, self.base, self.image_shape = config, base, image_shape
        self.paths = {short_name(path): path for path in config.vary}
        self.distributions = {short_name(path): vary.distribution() for path, vary in config.vary.items()}
        self.targets = {path: self._target(path, derive) for path, derive in config.derive.items()}
        self._check_keys()
        self.first = self._base_point()
        self._check_corners()

    def walk(self, pick: Pick) -> dict[str, Any]:
        """One point: `pick` is asked for each key whose `when` holds, in the order of the file."""
        point: dict[str, Any] = {}
        tree = copy.deepcopy(dict(self.base))
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
        tree = copy.deepcopy(dict(self.base))
        for name, path in self.paths.items():
            if name in point:
                _set(tree, path, point[name])
            else:  # its `when` does not hold: without effect, and its owner may refuse it
                _drop(tree, path)
        for path, target in self.targets.items():
            try:
                value = _start(json.dumps(tree["degradation"], sort_keys=True), self.image_shape, target)
            except OutOfReachError as error:
                raise InfeasibleError(str(error)) from None
            _set(tree, path, value)
        trial = parse_trial(tree)
        trial.check(self.image_shape)
        return trial

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
        if path != "degradation.sigma.start":
            raise ValueError(f"derive.{path}: `hold: {derive.hold}` derives degradation.sigma.start only")
        if path in self.config.vary:
            raise ValueError(f"derive.{path}: is also under vary; a key is varied or derived, not both")
        if derive.at == "base":
            return leftover(self.base["degradation"], self.image_shape)
        return float(derive.at)

    def _check_keys(self) -> None:
        if (source := source_of(self.base["degradation"])) is not None:
            raise ValueError(
                f"degradation.source = {source!r}: a degradation by another dataset's images cannot be trained by a "
                "study yet, only through the library"
            )
        known = dict(leaves(parse_trial(self.base).model_dump()))
        known |= dict(
            leaves({"degradation": build_degradation(self.base["degradation"], self.image_shape).config.model_dump()})
        )
        for path in [*self.config.vary, *self.config.derive]:
            if path not in known:
                raise ValueError(f"vary.{path}: the base has no such key; allowed: {', '.join(sorted(known))}")
        for path, vary in self.config.vary.items():
            for key in vary.when:
                if key not in known:
                    raise ValueError(f"vary.{path}.when.{key}: the base has no such key")

    def _base_point(self) -> dict[str, Any]:
        tree = parse_trial(self.base).model_dump()
        tree["degradation"] = build_degradation(self.base["degradation"], self.image_shape).config.model_dump()

        def pick(name: str, distribution: BaseDistribution) -> Any:
            value = _get(tree, self.paths[name])
            if not _holds(distribution, value):
                raise ValueError(
                    f"{self.paths[name]} = {value!r}: the first trial is the base, and the base lies outside the "
                    f"space; allowed by vary.{self.paths[name]}: {_describe(distribution)}"
                )
            return value

        return self.walk(pick)

    def _check_corners(self) -> None:
        """Try every combination of choices and ends: a value that its owner refuses is found now, not in a trial."""
        for point in self._corners():
            try:
                self.resolve(point)
            except InfeasibleError:
                continue
            except ValueError as error:
                shown = ", ".join(f"{self.paths[name]} = {value!r}" for name, value in point.items())
                raise ValueError(f"the space holds a point that is not valid ({shown}): {error}") from None
        if not self.feasible(self.first):
            self.resolve(self.first)  # raises, with the reason
        if self.feasible_share() < 0.02:
            reason = self._why_infeasible()
            raise ValueError(f"vary: under 2 % of the space can be asked; for example {reason}")

    def _corners(self) -> Iterator[dict[str, Any]]:
        options = [[(name, end) for end in self.config.vary[path].ends()] for name, path in self.paths.items()]
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


@functools.lru_cache(maxsize=65536)
def _start(degradation: str, image_shape: tuple[int, int, int], target: float) -> float:
    """`start_for_leftover`, remembered: a search asks about the same few combinations again and again."""
    return start_for_leftover(json.loads(degradation), image_shape, target)


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
        tree = tree.setdefault(part, {})
    tree[last] = value


def _drop(tree: dict[str, Any], path: str) -> None:
    parent, _, last = path.rpartition(".")
    owner = _get(tree, parent) if parent else tree
    if isinstance(owner, dict):
        owner.pop(last, None)


set_key = _set
