"""The base of all configurations: frozen and strict models, one-line errors and stable hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """The base class of all configurations. It is immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


@dataclass(frozen=True)
class Neutral:
    """Marks a field that was added after configurations of its class were first stored.

    Write such a field as `name: Annotated[type, Neutral(value)] = value`. The value stands for what coldtune did before
    the field existed, so it never changes, and neither does the field's default. A new default for users belongs into
    the presets. While the field has its neutral value, `identity` leaves it out. So all keys and study names stay as
    they were.
    """

    value: Any


def parse(cls: type[ConfigT], value: ConfigT | Mapping[str, Any], where: str = "") -> ConfigT:
    """Build `cls` from a mapping. An instance of `cls` is returned unchanged.

    Args:
        cls: The type of the configuration.
        value: A mapping of keys, or an instance.
        where: The dotted place of `value` in the user's configuration. Errors show it before every key.

    Raises:
        ValueError: If a key or value is wrong. The message has a line for each wrong key, with its value and what is
            allowed.
    """
    if isinstance(value, cls):
        return value
    try:
        return cls.model_validate(dict(value) if isinstance(value, Mapping) else value)
    except ValidationError as error:
        raise ValueError(describe(error, cls, where)) from None


def describe(error: ValidationError, cls: type[BaseModel], where: str = "") -> str:
    """Return the message of a pydantic error in our form: a line `key = value: what is allowed` for each wrong key."""
    lines = []
    for item in error.errors():
        # Discriminated unions put their tag into the location, although it is not a key that the user wrote.
        path = ".".join([*([where] if where else []), *(str(part) for part in item["loc"])])
        if item["type"] == "extra_forbidden":
            lines.append(f"{path} = {item['input']!r}: unknown key; allowed: {', '.join(_keys(cls, item['loc'][:-1]))}")
        elif item["type"] == "missing":
            lines.append(f"{path}: required, but missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = f" = {item['input']!r}" if not isinstance(item["input"], Mapping) else ""
            lines.append(f"{path or cls.__name__}{shown}: {message[:1].lower()}{message[1:]}")
    return "\n".join(lines)


def _keys(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that `cls` allows at `path`, or the keys of `cls` itself if the path leads through a union."""
    for part in path:
        field = cls.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        cls = annotation
    return sorted(cls.model_fields)


def plain(value: Any) -> Any:
    """Convert `value` to JSON-compatible dicts, lists, strings and numbers."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def identity(value: Any) -> Any:
    """Convert `value` as `plain` does, without the fields that have their `Neutral` value."""
    if isinstance(value, BaseModel):
        written = plain(value)
        return {
            name: identity(getattr(value, name)) if _holds_models(getattr(value, name)) else written[name]
            for name, field in type(value).model_fields.items()
            if not any(isinstance(mark, Neutral) and written[name] == plain(mark.value) for mark in field.metadata)
        }
    if isinstance(value, Mapping):
        return {str(key): identity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [identity(item) for item in value]
    return value


def _holds_models(value: Any) -> bool:
    return isinstance(value, BaseModel | Mapping | list | tuple)


def digest(value: Any) -> str:
    """Return the SHA-256 of the identity of `value` as canonical JSON, in 64 hex digits.

    Equal configurations have equal hashes, whatever the order of their keys.
    """
    text = json.dumps(identity(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
