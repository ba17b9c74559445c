"""What a space is refused for, before anything is spent."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coldtune.diffusion import STARTS, leftover_of
from coldtune.dotted import get_key, leaves
from coldtune.stages.trial import TrialConfig, parse_trial, short_name
from coldtune.studies.space.config import VARIANT, InfeasibleError, SpaceConfig
from coldtune.studies.space.distributions import described, holds
from coldtune.studies.space.space import Space

LEFT = 1e-3
"""The leftover above which a degradation's end still shows the image, so that no prior may stand for it."""

JUDGING = ("protocol.", "rungs.", "data.name", "data.image_size", "data.resize")
"""Keys, or beginnings of keys, by which trials are judged otherwise, so that their values may not be compared."""

_CORNERS = 4096  # beyond this many corners a random subset of them is checked
_DRAWN = 200  # points between the corners that are looked at too


def build_space(config: SpaceConfig, base: Mapping[str, Any], image_shape: tuple[int, int, int]) -> Space:
    """Make the space around `base` and refuse it if it cannot be searched.

    Up to 4,096 combinations of choices and range ends are resolved, so that a value which its owner refuses is found
    now and not in a trial.

    Args:
        config: The space as it is written.
        base: The configuration around which it lies.
        image_shape: Channels, height and width of the images.

    Raises:
        ValueError: If the base does not have a key, an owner refuses a value, the base lies outside the space, or
            almost nothing of the space is feasible. The message names the key.
    """
    space = Space(config, base, image_shape)
    _ = space.targets  # a key that cannot be derived is reported first
    check_variants(space)
    check_keys(space)
    _ = space.first
    if config.vary:
        check_points(space)
    _ = space.enqueued
    return space


def check_variants(space: Space) -> None:
    """Every variant must be valid, and judged as the base is."""
    base = parse_trial(space.base)
    for name in space.config.variants:
        try:
            tree = space.tree({VARIANT: name})
            del tree[VARIANT]
            trial = parse_trial(tree)
            trial.check(space.image_shape)
        except ValueError as error:
            raise ValueError(f"variants.{name}: {error}") from None
        if different := _judged_otherwise(base, trial):
            raise ValueError(f"variants.{name}: changes {different}, and variants are compared with each other")


def check_keys(space: Space) -> None:
    """Every key that is varied, derived or waited for must be one of the base's, or of a variant's."""
    if not space.config.vary:
        return
    known = {key for tree in space.trees() for key, _ in leaves(space.written_out(tree))}
    for path in [*space.config.vary, *space.config.derive]:
        if path not in known:
            others = ", ".join(sorted(key for key in known if not key.startswith(JUDGING)))
            raise ValueError(f"vary.{path}: the base has no such key; allowed: {others}")
        if path.startswith(JUDGING):
            raise ValueError(
                f"vary.{path}: changes how trials are judged, and trials are compared with each other; leave it out, "
                f"and make another study with --set {path}=..."
            )
    written: list[str] = []
    for path, vary in space.config.vary.items():
        for key, allowed in vary.when.items():
            if key not in known:
                raise ValueError(f"vary.{path}.when.{key}: the base has no such key")
            if key in space.config.vary and key not in written:
                raise ValueError(f"vary.{path}.when.{key}: must stand above the key that waits for it")
            _check_condition(space, f"vary.{path}.when.{key}", key, allowed)
        written.append(path)


def _check_condition(space: Space, where: str, key: str, allowed: Sequence[Any]) -> None:
    """A condition that can never hold would leave its key out of every trial, and say nothing."""
    name = VARIANT if key == VARIANT else short_name(key)
    if name not in space.distributions or (key != VARIANT and key not in space.config.vary):
        return
    distribution = space.distributions[name]
    if never := [value for value in allowed if not holds(distribution, value)]:
        raise ValueError(f"{where} = {never[0]!r}: it never is; allowed: {described(distribution)}")


def check_points(space: Space) -> None:
    """Try every combination of choices and ends: a value that its owner refuses is found now, not in a trial."""
    base = parse_trial(space.base)
    for point in corners(space):
        try:
            trial = space.resolve(point)
        except InfeasibleError:
            continue
        except ValueError as error:
            raise ValueError(f"the space holds a point that is not valid ({_shown(space, point)}): {error}") from None
        if different := _judged_otherwise(base, trial):
            raise ValueError(
                f"the space holds a point that changes {different} ({_shown(space, point)}), and trials are compared "
                f"with each other"
            )
    check_ends(space)
    if not space.feasible(space.first):
        space.resolve(space.first)  # raises, with the reason
    if space.feasible_share() < 0.02:
        reason = _why_infeasible(space)
        raise ValueError(f"vary: under 2 % of the space can be asked; for example {reason}")


def check_ends(space: Space) -> None:
    """A space that judges generation must end with next to nothing left of an image, or bound that itself.

    A prior draws x_T without an image; where the degradation would have left something of one, the restorer was trained
    on ends that the prior never draws, and a setting is judged by how far its ends lie from them.
    """
    if "leftover" in space.config.constrain or parse_trial(space.base).task != "generated":
        return
    rng = random.Random(0)
    for point in [space.first, *corners(space), *(space.sample(rng) for _ in range(_DRAWN))]:
        try:
            trial = space.resolve(point)
        except InfeasibleError:
            continue
        if trial.degradation["kind"] in STARTS and (left := leftover_of(trial.degradation, space.image_shape)) > LEFT:
            paths = [space.paths[name] for name in point if space.paths.get(name, "").startswith("degradation.")]
            values = trial.model_dump()
            shown = ", ".join(f"{path} = {get_key(values, path)}" for path in paths) or "degradation (the base's)"
            raise ValueError(
                f"{shown}: the {trial.degradation['kind']} leaves {left:.2g} of an image at T, and what is generated "
                f"from a prior begins with nothing of one; add constrain: {{leftover: {{max: {LEFT:g}}}}}, or "
                f"{_nothing_left(trial)}"
            )


def _nothing_left(trial: TrialConfig) -> str:
    if trial.degradation["kind"] == "blur":
        return "degradation.collapse_final: true, or ranges that blur more"
    return "degradation.order: reverse, or ranges that mask more"


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """The points whose every value is a choice or an end of its range; a fixed random part of them where many."""
    options = [[(VARIANT, name) for name in space.config.variants]] if space.config.variants else []
    options += [[(name, end) for end in space.config.vary[path].ends()] for name, path in space.paths.items()]
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
        point = space.walk(lambda name, _, values=values: values[name])  # type: ignore[misc]
        if (key := repr(point)) not in seen:
            seen.add(key)
            yield point


def _shown(space: Space, point: Mapping[str, Any]) -> str:
    return ", ".join(f"{space.paths.get(name, name)} = {value!r}" for name, value in point.items())


def _why_infeasible(space: Space) -> str:
    rng = random.Random(0)
    for _ in range(200):
        try:
            space.resolve(space.sample(rng))
        except InfeasibleError as error:
            return str(error)
    return "(no example found)"


def _judged_otherwise(base: TrialConfig, trial: TrialConfig) -> str:
    """What of how trials are judged differs between the two; empty where nothing does."""
    parts = {"the protocol": (base.protocol, trial.protocol), "generated for restored images": (base.task, trial.task)}
    for key in ("name", "image_size", "resize"):
        parts[f"data.{key}"] = (getattr(base.data, key), getattr(trial.data, key))
    return next((part for part, (mine, its) in parts.items() if mine != its), "")
