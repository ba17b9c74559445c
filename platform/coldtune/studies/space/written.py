"""Checks of a search space as a person has written it, and the values that its texts stand for.

YAML reads `1e-3` as a text, although a person means a number. So every value under `vary`, `when` and `first` is
brought to the type of its key. These checks are for new spaces. A space that a study has stored stays as it is.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coldtune.config import convert, find_field, is_number, scalar_kinds, shorten
from coldtune.diffusion.degradations.registry import DEGRADATIONS
from coldtune.diffusion.priors.registry import PRIORS
from coldtune.dotted import set_key
from coldtune.stages.trial import VARIANT, TrialConfig, short_name
from coldtune.studies.space.config import SpaceConfig, Vary

_LONGEST_NAME = 250  # characters of a variant's name, which is a parameter in MLflow
_MOST_LISTED = 1000
_MOST_GRID_STEPS = 1_000_000_000
_KINDS: dict[str, Mapping[str, Any]] = {"degradation": DEGRADATIONS, "prior": PRIORS}


def normalize_space(config: SpaceConfig, base: Mapping[str, Any]) -> SpaceConfig:
    """Return a new space with every value in the type of its key.

    A key that does not exist is left to `build_space`, which lists the keys that do.

    Args:
        config: The space as it is written.
        base: The configuration around which it lies.

    Raises:
        ValueError: If a value does not fit its key, or a name is not usable. The message names the key.
    """
    lists: dict[str, Sized] = {"variants": config.variants, "first": config.first}
    lists |= {f"vary.{path}.choices": vary.choices or () for path, vary in config.vary.items()}
    for where, listed in lists.items():
        if len(listed) > _MOST_LISTED:
            raise ValueError(f"{where}: lists {len(listed):,} entries, but at most {_MOST_LISTED:,} are allowed")
    for name, changes in config.variants.items():
        _check_variant(name, changes)
    keys = _Keys(config.variants, base)
    vary = {path: _normalize_vary(path, vary, keys) for path, vary in config.vary.items()}
    _check_short_names(list(vary))
    first = tuple({path: keys.soften(path, value) for path, value in point.items()} for point in config.first)
    return config.model_copy(update={"vary": vary, "first": first})


def normalize_levels(
    where: str, path: str, levels: Sequence[Any], when: Mapping[str, Sequence[Any]], base: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, tuple[Any, ...]]]:
    """Return the listed values of a key, and those of its conditions, each in the type of its key.

    Args:
        where: The place of the key in the user's file. Errors show it.
        path: The dotted key.
        levels: The values of the key.
        when: The values of its conditions, by dotted key.
        base: The configuration to which the key belongs.

    Raises:
        ValueError: If a value does not fit the key, or the key is a section. The message names the key.
    """
    if path in _KINDS or path in TrialConfig.model_fields:
        raise ValueError(f"{where}: is a section. Name one of its keys, as {path}.KEY.")
    keys = _Keys({}, base)
    converted = tuple(_at(f"{where}.levels.{place}", keys, path, value) for place, value in enumerate(levels))
    converted = read_booleans(path, converted, {}, base)
    softened = {key: tuple(keys.soften(key, value) for value in values) for key, values in when.items()}
    if empty := [key for key, values in softened.items() if not values]:
        raise ValueError(f"{where}.when.{empty[0]} = []: needs at least one value")
    return converted, softened


def read_booleans(
    path: str, values: Sequence[Any], variants: Mapping[str, Mapping[str, Any]], base: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Return the listed values of a key with true and false for 1 and 0, if the key is a boolean.

    Args:
        path: The dotted key.
        values: Its values.
        variants: The changes of each variant, by name.
        base: The configuration to which the key belongs.
    """
    if all(isinstance(value, bool) or value not in (0, 1) for value in values):
        return tuple(values)
    kinds = [scalar_kinds(field.annotation) for field in _Keys(variants, base).fields(path)]
    if not kinds or any(bool not in kind or kind & {int, float, str, object} for kind in kinds):
        return tuple(values)
    return tuple(bool(value) if value in (0, 1) else value for value in values)


class _Keys:
    """The types of a trial's keys. They depend on the kinds of the degradation and the prior."""

    def __init__(self, variants: Mapping[str, Mapping[str, Any]], base: Mapping[str, Any]) -> None:
        self._kinds: dict[str, set[str]] = {section: {_kind(base.get(section))} for section in _KINDS}
        for changes in variants.values():
            for section, kinds in self._kinds.items():
                tree: dict[str, Any] = {}
                for path, value in changes.items():
                    if path == section or path.startswith(f"{section}."):
                        set_key(tree, path, value)
                kinds.add(_kind(tree.get(section)))

    def fields(self, path: str) -> list[FieldInfo]:
        """Return the fields of a dotted key: one for each kind of section that has it."""
        section, _, rest = path.partition(".")
        if section not in _KINDS:
            return [field for field in [find_field(TrialConfig, path)] if field]
        classes: list[type[BaseModel]] = [
            _KINDS[section][kind].config_type for kind in sorted(self._kinds[section]) if kind in _KINDS[section]
        ]
        return [field for cls in classes if (field := find_field(cls, rest))]

    def convert(self, path: str, value: Any) -> Any:
        """Return `value` in the type of the key. Only a text becomes another type.

        A number stays as it is written, because names of studies depend on it. `read_booleans` has 1 and 0.

        Raises:
            ValueError: If no field of the key allows the value.
        """
        problem = None
        for field in self.fields(path):
            try:
                converted = convert(value, field)
            except ValueError as error:
                problem = problem or f"{error}{_hint(value, field)}"
                continue
            return converted if isinstance(value, str) else value
        if problem:
            raise ValueError(problem)
        return value

    def soften(self, path: str, value: Any) -> Any:
        """Return `value` in the type of the key if possible, and unchanged otherwise."""
        try:
            return self.convert(path, value) if isinstance(value, str) else value
        except ValueError:
            return value


def _kind(section: Any) -> str:
    kind = section.get("kind") if isinstance(section, Mapping) else None
    return kind if isinstance(kind, str) else ""


def _hint(value: Any, field: FieldInfo) -> str:
    nullable = types.NoneType in get_args(field.annotation)
    return ". Write null without quotes." if nullable and str(value).lower() in ("none", "null", "nil", "~", "") else ""


def _check_variant(name: str, changes: Mapping[str, Any]) -> None:
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"variants: {shorten(name)} cannot be a name; allowed: 1 to {_LONGEST_NAME} letters on one line, without "
            "spaces around them"
        )
    if VARIANT in changes:
        raise ValueError(f"variants.{name}.{VARIANT}: is the name of the variant itself. Leave it out.")


def _check_short_names(paths: Sequence[str]) -> None:
    names = Counter(map(short_name, paths))
    if twice := [path for path in paths if names[short_name(path)] > 1]:
        raise ValueError(
            f"vary.{twice[1]}: tables would call it {short_name(twice[1])}, as {twice[0]}. Vary only one of them."
        )


def _normalize_vary(path: str, vary: Vary, keys: _Keys) -> Vary:
    where = f"vary.{path}"
    if path == VARIANT:
        raise ValueError(f"{where}: variants vary by themselves. List them under `variants:`.")
    if path in _KINDS or path in TrialConfig.model_fields:
        raise ValueError(f"{where}: is a section. Name one of its keys, as {path}.KEY.")
    when = {key: tuple(keys.soften(key, value) for value in values) for key, values in vary.when.items()}
    if empty := [key for key, values in when.items() if not values]:
        raise ValueError(f"{where}.when.{empty[0]} = []: needs at least one value")
    if vary.choices is None:
        return _normalize_range(where, path, vary, keys).model_copy(update={"when": when})
    choices = [_at(f"{where}.choices.{place}", keys, path, value) for place, value in enumerate(vary.choices)]
    if len(set(choices)) < len(choices):
        twice = next(value for value, count in Counter(choices).items() if count > 1)
        raise ValueError(f"{where}.choices: must be different from each other, and {twice!r} is there twice")
    return vary.model_copy(update={"choices": tuple(choices), "when": when})


def _normalize_range(where: str, path: str, vary: Vary, keys: _Keys) -> Vary:
    """Return a range whose ends and step are integers if the key is. ValueError if the range does not fit the key."""
    low, high, step = vary.low, vary.high, vary.step
    assert low is not None
    assert high is not None
    fields = keys.fields(path)
    if fields and not any(map(is_number, fields)):
        raise ValueError(f"{where}: is no number, so it has no range. List its values as choices.")
    for name, value in (("low", low), ("high", high)):
        _at(f"{where}.{name}", keys, path, value)
    if fields and all(is_number(field, whole=True) for field in fields):
        for name in ("low", "high", "step"):
            if isinstance(value := getattr(vary, name), float):
                if not value.is_integer():
                    raise ValueError(f"{where}.{name} = {value!r}: must be an integer, as the key is")
                vary = vary.model_copy(update={name: int(value)})
    if step is not None and high > low:
        if step > high - low:
            raise ValueError(f"{where}.step = {step!r}: is larger than the range {low} to {high}")
        if (high - low) / step > _MOST_GRID_STEPS:
            raise ValueError(f"{where}.step = {step!r}: makes over {_MOST_GRID_STEPS:,} steps. Leave it out.")
    return vary


def _at(where: str, keys: _Keys, path: str, value: Any) -> Any:
    try:
        return keys.convert(path, value)
    except ValueError as error:
        raise ValueError(f"{where} = {shorten(value)}: {error}") from None
