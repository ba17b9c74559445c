"""The sections `design` and `factors` of a space, and the arms that they mean.

    design: {kind: factorial}
    factors:
      sampler.algorithm: [tacos, naive, direct]
      sampler.num_steps: {levels: [null, 10, 5], when: {sampler.algorithm: [tacos, naive]}}

An arm is a variant of the base, so a study of a design is a study of variants. Everything else, such as resuming and
tables, knows nothing of designs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, model_validator

from coldtune.config import Config, digest, parse, plain, shorten
from coldtune.diffusion import STARTS, leftover_of, nfe
from coldtune.dotted import get_key, leaves
from coldtune.stages.trial import VARIANT, TrialConfig, parse_trial, short_name
from coldtune.studies.space.config import Bound, Conditions, Derive, InfeasibleError, SpaceConfig, Vary
from coldtune.studies.space.design_kinds.kind import Arm, DesignKind, Factor
from coldtune.studies.space.design_kinds.registry import build_kind
from coldtune.studies.space.distributions import write_value
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import JUDGING_KEYS, MAX_LEFTOVER, check_keys
from coldtune.studies.space.written import normalize_levels

SECTIONS = ("design", "factors")
"""The sections of a space that make it a design."""

MOST_ARMS = 1000
"""The largest number of arms. It is the largest number of variants."""

_LONGEST_NAME = 200  # characters of an arm's name, which is the name of a variant


class FactorConfig(Config):
    """A factor of a design, as a file writes it. A list alone means its levels.

    Attributes:
        levels: The values that are compared, at least two. A single value under `when` is not compared but set.
        when: Conditions as under `vary`. In an arm that does not meet them, the key has no effect and is left out.
    """

    levels: tuple[str | bool | int | float | None, ...]
    when: Conditions = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_levels(self) -> FactorConfig:
        if not self.levels:
            raise ValueError("there are no levels. List at least two values.")
        if len(self.levels) == 1 and not self.when:
            raise ValueError(
                f"levels = [{shorten(self.levels[0])}]: a single level compares nothing. List at least two values, set "
                "the key in the base, or add `when` if only some arms have the key."
            )
        if twice := [value for value, count in Counter(self.levels).items() if count > 1]:
            raise ValueError(f"levels must be different from each other, and {shorten(twice[0])} is there twice")
        return self

    @property
    def compared(self) -> bool:
        """True if the factor has several levels. A single level is set in the arms that meet `when`."""
        return len(self.levels) > 1


class DesignRecord(Config):
    """A design as a study keeps it, beside the variants that are its arms.

    Attributes:
        design: The kind of design and its keys, as `design` in the space.
        factors: The levels of each factor, by dotted key, in the type of the key. Keys that are set are among them.
        references: By dotted key, the level with which the other levels are compared.
        arms: By the name of an arm, its level of each factor that has an effect in it. The reference arm is the first.
        skipped: By the name of an arm that cannot exist, the reason.
        merged: By the name of an arm, the arm that means the same trial.
    """

    design: dict[str, Any]
    factors: dict[str, FactorConfig]
    references: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    skipped: dict[str, str] = Field(default_factory=dict)
    merged: dict[str, str] = Field(default_factory=dict)

    @property
    def kind(self) -> DesignKind:
        """The kind of the design."""
        return build_kind(self.design)

    def described_factors(self) -> list[Factor]:
        """Return the factors that are compared, for the methods of the kind."""
        return [
            Factor(path, short_name(path), factor.levels, self.references[path], bool(factor.when))
            for path, factor in self.factors.items()
            if factor.compared
        ]


@dataclass
class _Arms:
    """The arms of a design while they are collected."""

    levels: dict[str, dict[str, Any]] = field(default_factory=dict)
    trials: dict[str, TrialConfig] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)


def build_design(
    sections: Mapping[str, Any], base: Mapping[str, Any], image_shape: tuple[int, int, int], where: str, seed: int
) -> tuple[SpaceConfig, DesignRecord, SpaceConfig]:
    """Make the arms of a design.

    Args:
        sections: The sections of the space: `base`, `design`, `factors`, and perhaps `derive` and `constrain`.
        base: The configuration around which the arms lie, with every default written out.
        image_shape: Channels, height and width of the images.
        where: The name of the file.
        seed: The seed of the study. It decides the order of the arms, of which the reference is the first.

    Returns:
        The space whose variants are the arms, the record of the design, and the space in which the factors vary.

    Raises:
        ValueError: If the design is not valid. The message names the key, the value and what is allowed.
    """
    _check_sections(sections)
    kind = build_kind(sections["design"])
    factors = _read_factors(sections["factors"], base)
    space = _factor_space(sections, factors, base, image_shape, where)
    described = _describe_factors(factors, space)
    compared = [factor for factor in described if factors[factor.path].compared]
    if not compared:
        raise ValueError("factors: each has a single level, so nothing is compared. List at least two values of one.")
    kind.check(compared)
    if (count := kind.count(compared)) > MOST_ARMS:
        raise ValueError(
            f"factors: make {count:,} arms, but at most {MOST_ARMS:,} are allowed. Take fewer levels, or a design of "
            "fewer arms such as fractional or one_factor."
        )
    arms = _collect(kind, compared, {path: f.levels[0] for path, f in factors.items() if not f.compared}, space)
    record = DesignRecord(
        design=plain(kind),
        factors=factors,
        references={factor.path: kind.reference(factor) for factor in described},
        arms=arms.levels,
        skipped=arms.skipped,
        merged=arms.merged,
    )
    first, *rest = arms.trials
    # The order is random, so that nothing that changes while the study runs looks like the effect of a factor.
    random.Random(digest({"order of arms": seed})).shuffle(rest)
    variants = {name: differences(base, plain(arms.trials[name])) for name in (first, *rest)}
    return parse(SpaceConfig, {"base": sections["base"], "variants": variants}, where), record, space.config


def differences(base: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes that lead from a base to a configuration: dotted keys, or whole sections that lose a key."""
    changes: dict[str, Any] = {}
    for section, value in tree.items():
        before = base.get(section)
        if value == before:
            continue
        if not isinstance(value, Mapping) or not isinstance(before, Mapping):
            changes[section] = value
            continue
        old, new = dict(leaves(before)), dict(leaves(value))
        if set(old) <= set(new):
            changes |= {f"{section}.{key}": new[key] for key in new if key not in old or new[key] != old[key]}
        else:
            changes[section] = value
    return changes


def _check_sections(sections: Mapping[str, Any]) -> None:
    if "design" not in sections:
        raise ValueError("factors: need design, for example design: {kind: one_factor}")
    if "factors" not in sections:
        raise ValueError("design: needs factors, a mapping of dotted keys to their levels")
    for name in ("vary", "variants", "first"):
        if name in sections:
            raise ValueError(
                f"{name}: cannot stand beside design, whose arms are all that is tried. Leave one of them out."
            )


def _read_factors(written: Any, base: Mapping[str, Any]) -> dict[str, FactorConfig]:
    """Return the factors by dotted key, with their levels in the types of their keys."""
    if not isinstance(written, Mapping):
        raise ValueError(f"factors = {shorten(written)}: must be a mapping of dotted keys to their levels")
    if not written:
        raise ValueError("factors: there are none. List at least one dotted key with its levels.")
    factors = {}
    for path, entry in written.items():
        where = f"factors.{path}"
        if path == VARIANT:
            raise ValueError(f"{where}: is the name of an arm. Name a dotted key of the base.")
        if path.startswith(JUDGING_KEYS):
            raise ValueError(
                f"{where}: changes how trials are judged, and arms are compared with each other. Leave it out, and "
                f"start another study with --set {path}=..."
            )
        if isinstance(entry, Mapping) and (
            nested := [k for k, v in entry.items() if isinstance(v, Mapping) and k != "when"]
        ):
            raise ValueError(f"{where}.{nested[0]}: must be written as one dotted key, `{path}.{nested[0]}: [...]`")
        if not isinstance(entry, Mapping | list | tuple):
            raise ValueError(f"{where} = {shorten(entry)}: must be a list of levels, or a mapping with levels and when")
        read = parse(FactorConfig, entry if isinstance(entry, Mapping) else {"levels": entry}, where)
        levels, when = normalize_levels(where, path, read.levels, read.when, base)
        factors[path] = parse(FactorConfig, {"levels": levels, "when": when}, where)
    names = Counter(map(short_name, factors))
    if twice := [path for path in factors if names[short_name(path)] > 1]:
        raise ValueError(
            f"factors.{twice[1]}: tables would call it {short_name(twice[1])}, as {twice[0]}. Take only one of them."
        )
    return factors


def _factor_space(
    sections: Mapping[str, Any],
    factors: Mapping[str, FactorConfig],
    base: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    where: str,
) -> Space:
    """Return the space in which the factors vary. Its points are the arms."""
    known = {key: value for key, value in sections.items() if key in ("derive", "constrain")}
    read = parse(_Limits, known, where)
    vary = {path: Vary(choices=factor.levels, when=factor.when) for path, factor in factors.items()}
    for path, factor in factors.items():
        value = get_key(base, path)
        if value not in factor.levels and isinstance(value, str | bool | int | float | None):
            vary[path] = Vary(choices=(*factor.levels, value), when=factor.when)
    space = Space(
        SpaceConfig(base=sections["base"], vary=vary, derive=read.derive, constrain=read.constrain), base, image_shape
    )
    try:
        _ = space.targets
        check_keys(space)
    except ValueError as error:  # its keys are those of `vary`, where the file says `factors`
        raise ValueError(str(error).replace("vary.", "factors.").replace("under vary", "a factor")) from None
    return space


class _Limits(Config):
    """The sections beside the factors, which limit and complete the arms."""

    derive: dict[str, Derive] = Field(default_factory=dict)
    constrain: dict[Literal["nfe", "leftover"], Bound] = Field(default_factory=dict)


def _describe_factors(factors: Mapping[str, FactorConfig], space: Space) -> list[Factor]:
    """Return the factors for the methods of the kind."""
    tree = space.with_defaults(space.base)
    in_base = space.walk(lambda name, _: get_key(tree, space.paths[name]))
    described = []
    for path, factor in factors.items():
        name, value = short_name(path), get_key(tree, path)
        # If the key has no effect in the base, no arm has the base's value. `null` is a value like any other.
        base = value if name in in_base or value in factor.levels else factor.levels[0]
        described.append(Factor(path, name, factor.levels, base, bool(factor.when)))
    return described


def _collect(kind: DesignKind, factors: Sequence[Factor], fixed: Mapping[str, Any], space: Space) -> _Arms:
    """Resolve the arms of a design, leave out those that cannot exist, and merge those that mean the same trial.

    Args:
        fixed: By dotted key, the values that are set in every arm that meets their conditions.
    """
    arms = _Arms()
    seen: dict[str, str] = {}
    refused: list[tuple[Mapping[str, Any], str]] = []
    for number, arm in enumerate(kind.arms(factors)):
        levels = {**arm.levels, **fixed}
        point = space.walk(lambda name, _, levels=levels: levels[space.paths[name]])  # type: ignore[misc]
        active = {path for name, path in space.paths.items() if name in point}
        name = _name(arm, factors, active, number)
        if not number and arm.role == "base":
            _check_base_keeps({path: value for path, value in fixed.items() if path in active}, space)
        try:
            trial = space.resolve(point)
        except InfeasibleError as error:
            reason = str(error)
        except ValueError as error:
            reason = str(error)
            refused.append((levels, reason))
        else:
            _check_judging(space, trial, name)
            key = meaning(trial)
            if key in seen:
                arms.merged[_name(arm, factors, set(arm.levels), number)] = seen[key]
            else:
                seen[key] = name
                arms.levels[name] = {path: levels[path] for path in levels if path in active}
                arms.trials[name] = trial
            continue
        if not number:
            raise ValueError(f"design: its reference, the arm {name!r}, cannot exist: {reason}")
        arms.skipped[name] = reason
    _check_levels(
        {**{factor.path: factor.levels for factor in factors}, **{p: (v,) for p, v in fixed.items()}}, arms, refused
    )
    why = next((f" The arm {name!r} is skipped: {reason}" for name, reason in arms.skipped.items()), "")
    _check_effect([*(factor.path for factor in factors), *fixed], arms, space, why)
    if len(arms.levels) < 2:
        raise ValueError(f"factors: leave a single arm, so nothing is compared. Take other levels.{why}")
    return arms


def _check_base_keeps(fixed: Mapping[str, Any], space: Space) -> None:
    """Raise ValueError if the base has another value of a key that is set in it, because it would not be the base."""
    tree = space.with_defaults(space.base)
    for path, value in fixed.items():
        if (own := get_key(tree, path)) != value:
            raise ValueError(
                f"factors.{path}: levels = [{write_value(value)}]: the base meets `when`, and has {write_value(own)}. "
                f"Change the base with --set {path}={write_value(value)}, or list both values."
            )


def _check_judging(space: Space, trial: TrialConfig, name: str) -> None:
    """Raise ValueError if an arm is not judged like the base, or generates from ends that a prior never draws."""
    if trial.task != parse_trial(space.base).task:
        raise ValueError(
            f"design: the arm {name!r} changes whether images are restored or generated, and arms are compared with "
            "each other"
        )
    if trial.task != "generated" or trial.degradation["kind"] not in STARTS:
        return
    if (left := leftover_of(trial.degradation, space.image_shape)) > MAX_LEFTOVER:
        advice = f"add constrain: {{leftover: {{max: {MAX_LEFTOVER:g}}}}}, which skips such arms"
        if trial == parse_trial(space.base):  # every arm may leave as much
            advice = "take a base that ends stronger"
        raise ValueError(
            f"design: the arm {name!r} leaves {left:.2g} of an image at T, but a prior draws x_T without any image. "
            f"At most {MAX_LEFTOVER:g} is allowed: {advice}."
        )


def _check_levels(
    tried: Mapping[str, Sequence[Any]], arms: _Arms, refused: Sequence[tuple[Mapping[str, Any], str]]
) -> None:
    """Raise ValueError if a level is refused in every arm that has it, because then it is a mistake.

    Args:
        tried: The levels of each factor, by dotted key.
        refused: The levels of the arms that are not valid, each with the reason.
    """
    for path, all_levels in tried.items():
        for level in all_levels:
            reasons = [reason for levels, reason in refused if levels[path] == level]
            if reasons and not any(levels.get(path) == level for levels in arms.levels.values()):
                raise ValueError(f"factors.{path}: no arm can have the level {shorten(level)}. {reasons[0]}")


def _check_effect(paths: Sequence[str], arms: _Arms, space: Space, why: str) -> None:
    """Raise ValueError if a key has no effect in any arm. The message ends with `why`."""
    for path in paths:
        if not any(path in levels for levels in arms.levels.values()):
            when = " and ".join(
                f"{short_name(key)} is {' or '.join(map(write_value, allowed))}"
                for key, allowed in space.config.vary[path].when.items()
            )
            raise ValueError(
                f"factors.{path}: has no effect in any arm, because in none of them {when}. Leave it out.{why}"
            )


def meaning(trial: TrialConfig) -> str:
    """Return a digest that is equal for configurations of the same trial."""
    tree = plain(trial)
    if trial.sampler.algorithm != "direct":  # `null` and T are the same number of steps
        tree["sampler"]["num_steps"] = nfe(trial.sampler, int(trial.degradation["steps"]))
    return digest(tree)


def _name(arm: Arm, factors: Sequence[Factor], active: set[str], number: int) -> str:
    shown = [factor.label(arm.levels[factor.path]) for factor in factors if factor.path in arm.shown]
    effective = [f.label(arm.levels[f.path]) for f in factors if f.path in arm.shown and f.path in active]
    labels = " ".join(effective or shown)
    name = f"{arm.role} ({labels})" if arm.role and labels else arm.role or labels
    return name if len(name) <= _LONGEST_NAME else f"{arm.role or 'arm'} {number}"
