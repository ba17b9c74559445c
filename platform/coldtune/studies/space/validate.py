"""Checks of a new search space: everything that makes a space unusable is found before a study starts."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coldtune.diffusion import STARTS, build_degradation, leftover_of
from coldtune.dotted import get_key, leaves
from coldtune.stages.trial import TRAINING_SEED, TrialConfig, parse_trial, short_name
from coldtune.studies.space.config import VARIANT, InfeasibleError, SpaceConfig
from coldtune.studies.space.distributions import contains, describe_distribution
from coldtune.studies.space.space import Space

MAX_LEFTOVER = 1e-3
"""The largest leftover in a space that judges generation. Above it, x_T still shows the image, and a prior does not."""

JUDGING_KEYS = ("protocol.", "rungs.", "data.name", "data.image_size", "data.resize", "data.path")
"""Keys, or beginnings of keys, that decide how a trial is judged. Trials with different values cannot be compared."""

_SEEDS = 2**63  # training seeds are below this number
_MAX_CORNERS = 4096  # if a space has more, a random subset is checked
_RANDOM_POINTS = 200  # checked besides the corners
_MIN_FEASIBLE_SHARE = 0.02


def build_space(config: SpaceConfig, base: Mapping[str, Any], image_shape: tuple[int, int, int]) -> Space:
    """Make the space around `base` and refuse it if it cannot be searched.

    Up to 4,096 combinations of choices and range ends are resolved. A value that its section refuses is therefore found
    now and not in a trial.

    Args:
        config: The space as it is written.
        base: The configuration around which it lies.
        image_shape: Channels, height and width of the images.

    Raises:
        ValueError: If the base does not have a key, a section refuses a value, the base lies outside the space, or
            almost nothing of the space is feasible. The message names the key.
    """
    space = Space(config, base, image_shape)
    if not config.variants:  # variants may replace the degradation of the base
        build_degradation(base["degradation"], image_shape)  # a wrong kind is reported before its derived keys
    _ = space.targets  # a key that cannot be derived is reported next
    check_variants(space)
    check_keys(space)
    _ = space.first
    if config.vary:
        check_points(space)
    _ = space.enqueued
    return space


def check_variants(space: Space) -> None:
    """Raise ValueError if a variant is not valid, or is judged differently from the base."""
    base = parse_trial(space.base)
    for name in space.config.variants:
        try:
            tree = space.variant_tree({VARIANT: name})
            del tree[VARIANT]
            trial = parse_trial(tree)
            trial.check(space.image_shape)
        except ValueError as error:
            raise ValueError(f"variants.{name}: {error}") from None
        if change := _judging_change(base, trial):
            raise ValueError(f"variants.{name}: changes {change}, and variants are compared with each other")


def check_keys(space: Space) -> None:
    """Raise ValueError if a key under `vary`, `derive` or `when` exists neither in the base nor in a variant.

    Keys that decide how trials are judged may not vary. A condition must refer to a key further up, and it must be
    possible to meet it.
    """
    if not space.config.vary:
        return
    known = {key for tree in space.variant_trees() for key, _ in leaves(space.with_defaults(tree))}
    for path in [*space.config.vary, *space.config.derive]:
        if path.startswith(JUDGING_KEYS):
            raise ValueError(
                f"vary.{path}: changes how trials are judged, and trials are compared with each other. Leave it out, "
                f"and start another study with --set {path}=..."
            )
        if path not in known:
            may = {key for key in known if "." in key and not key.startswith(JUDGING_KEYS)}
            others = ", ".join(sorted(may))
            raise ValueError(f"vary.{path}: the base has no such key; allowed: {others}")
    above: list[str] = []
    for path, vary in space.config.vary.items():
        for key, allowed in vary.when.items():
            if key not in known:
                raise ValueError(f"vary.{path}.when.{key}: the base has no such key")
            if key in space.config.vary and key not in above:
                raise ValueError(f"vary.{path}.when.{key}: must be listed above the key that waits for it")
            _check_condition(space, f"vary.{path}.when.{key}", key, allowed)
        above.append(path)


def _check_condition(space: Space, where: str, key: str, allowed: Sequence[Any]) -> None:
    # A condition that can never be met would leave its key out of every trial without a word.
    name = VARIANT if key == VARIANT else short_name(key)
    if name not in space.distributions or (key != VARIANT and key not in space.config.vary):
        return
    distribution = space.distributions[name]
    if never := [value for value in allowed if not contains(distribution, value)]:
        raise ValueError(
            f"{where} = {never[0]!r}: the key never has this value; allowed: {describe_distribution(distribution)}"
        )


def warn_of_seeds(space: Space) -> None:
    """Warn if the search chooses among seeds of trainings, because it then looks for a lucky training."""
    seeds = {get_key(tree, TRAINING_SEED) or 0 for tree in space.variant_trees()}
    if TRAINING_SEED in space.config.vary or len(seeds) > 1:
        warnings.warn(
            "training.seed: differs between trials, so it counts as a hyperparameter. The best trial may be the "
            "luckiest training. A comparison of two trials compares two networks, not two settings. Let it stay as in "
            "the base, and use --replicates for several trainings of each setting.",
            stacklevel=2,
        )


def check_seeds(space: Space, replicates: int) -> None:
    """Raise ValueError if a study of several replicates has trials that differ in their seed for another reason.

    A setting is all of a trial but its training seed, so the study itself chooses the seeds of its replicates.
    """
    if TRAINING_SEED in space.config.vary:
        raise ValueError(
            f"vary.training.seed: with {replicates} replicates, the study chooses the training seeds. Leave it out."
        )
    trees = {name: space.variant_tree({VARIANT: name}) for name in space.config.variants}
    seeds = {name: int(get_key(tree, TRAINING_SEED) or 0) for name, tree in trees.items()}
    if len(set(seeds.values())) > 1:
        listed = ", ".join(f"{seed} in {name!r}" for name, seed in list(seeds.items())[:3])
        raise ValueError(
            f"variants: training.seed differs ({listed}). With {replicates} replicates, the study chooses the training "
            "seeds. Set it in the base only."
        )
    first = max([*seeds.values(), int(get_key(space.base, TRAINING_SEED) or 0)])
    if first + replicates > _SEEDS:
        raise ValueError(
            f"training.seed = {first}: with {replicates} replicates, allowed: at most {_SEEDS - replicates}"
        )


def check_points(space: Space) -> None:
    """Resolve the corners of the space, and raise ValueError if a point is not valid or is judged differently.

    The space is also refused if it judges generation and leaves too much of an image at t = T, if the base is
    infeasible, or if less than 2 % of the space is feasible.
    """
    base = parse_trial(space.base)
    for point in corners(space):
        try:
            trial = space.resolve(point)
        except InfeasibleError:
            continue
        except ValueError as error:
            raise ValueError(
                f"the space contains a point that is not valid ({_format_point(space, point)}): {error}"
            ) from None
        if change := _judging_change(base, trial):
            raise ValueError(
                f"the space contains a point that changes {change} ({_format_point(space, point)}), and trials are "
                "compared with each other"
            )
    check_leftovers(space)
    if not space.feasible(space.first):
        space.resolve(space.first)  # raises the error that says why
    if space.feasible_share() < _MIN_FEASIBLE_SHARE:
        reason = _example_of_infeasibility(space)
        raise ValueError(f"vary: under 2 % of the space can be asked; for example {reason}")


def check_leftovers(space: Space) -> None:
    """Raise ValueError if a space that judges generation leaves more than 1e-3 of an image at t = T.

    A prior draws x_T without an image. If the degradation leaves something of an image, the restorer is trained on
    ends that the prior never draws. A setting would then be judged by the distance between its ends and the prior's.
    A space with a constraint on the leftover is not checked here.
    """
    if "leftover" in space.config.constrain or parse_trial(space.base).task != "generated":
        return
    rng = random.Random(0)
    for point in [space.first, *corners(space), *(space.sample(rng) for _ in range(_RANDOM_POINTS))]:
        try:
            trial = space.resolve(point)
        except InfeasibleError:
            continue
        kind = trial.degradation["kind"]
        if kind in STARTS and (left := leftover_of(trial.degradation, space.image_shape)) > MAX_LEFTOVER:
            paths = [space.paths[name] for name in point if space.paths.get(name, "").startswith("degradation.")]
            values = trial.model_dump()
            shown = ", ".join(f"{path} = {get_key(values, path)}" for path in paths) or "degradation (the base's)"
            raise ValueError(
                f"{shown}: the {kind} leaves {left:.2g} of an image at T, but a prior draws x_T without any image. Add "
                f"constrain: {{leftover: {{max: {MAX_LEFTOVER:g}}}}}, or {_stronger_end(kind)}"
            )


def _stronger_end(kind: str) -> str:
    if kind == "blur":
        return "degradation.collapse_final: true, or ranges that blur more"
    return "degradation.order: reverse, or ranges that mask more"


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Yield the points whose values are all choices or range ends, each point once.

    If there are more than 4,096 combinations, 4,096 random combinations are drawn instead, always the same.
    """
    options = [[(VARIANT, name) for name in space.config.variants]] if space.config.variants else []
    options += [[(name, end) for end in space.config.vary[path].ends()] for name, path in space.paths.items()]
    combinations: Iterator[tuple[tuple[str, Any], ...]] = itertools.product(*options)
    total = 1
    for option in options:
        total *= len(option)
    if total > _MAX_CORNERS:
        rng = random.Random(0)
        combinations = (tuple(rng.choice(option) for option in options) for _ in range(_MAX_CORNERS))
    seen = set()
    for corner in combinations:
        values = dict(corner)
        point = space.walk(lambda name, _, values=values: values[name])  # type: ignore[misc]
        if (key := repr(point)) not in seen:
            seen.add(key)
            yield point


def _format_point(space: Space, point: Mapping[str, Any]) -> str:
    return ", ".join(f"{space.paths.get(name, name)} = {value!r}" for name, value in point.items())


def _example_of_infeasibility(space: Space) -> str:
    rng = random.Random(0)
    for _ in range(200):
        try:
            space.resolve(space.sample(rng))
        except InfeasibleError as error:
            return str(error)
    return "(no example found)"


def _judging_change(base: TrialConfig, trial: TrialConfig) -> str:
    """Name the first difference in how the two trials are judged, or return an empty string."""
    parts = {
        "the protocol": (base.protocol, trial.protocol),
        "whether images are restored or generated": (base.task, trial.task),
    }
    for key in ("name", "image_size", "resize"):
        parts[f"data.{key}"] = (getattr(base.data, key), getattr(trial.data, key))
    return next((part for part, (of_base, of_trial) in parts.items() if of_base != of_trial), "")
