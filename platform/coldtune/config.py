"""The base of all configurations: frozen and strict models, one-line errors and stable hashes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

ConfigT = TypeVar("ConfigT", bound="Config")

_ADAPTERS: dict[int, tuple[FieldInfo, TypeAdapter[Any]]] = {}  # of fields, by their id
_POWER_OF_TEN = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]{1,2}")
_MOST_EXACT = 2**53  # a float has every whole number up to this one
_NAMED_PROBLEMS = 3  # of an error, in its line
_LONGEST_VALUE = 120  # characters of a value in an error
# Where pydantic speaks of Python's types, a user reads YAML.
_PLAIN_MESSAGES = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type", "mapping_type"), "input should be a mapping"),
    **dict.fromkeys(("tuple_type", "list_type"), "input should be a list"),
    "string_type": "input should be a valid text",
    "finite_number": "input should be a finite number",
    "none_required": "input should be null",
    "int_parsing": "input should be a valid integer",
    "int_from_float": "input should be a valid integer, without a fraction",
    "int_parsing_size": "input should be a valid integer, of fewer digits",
    "float_parsing": "input should be a valid number",
    "bool_parsing": "input should be a valid boolean, true or false",
}


class Config(BaseModel):
    """The base class of all configurations. It is immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _read_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic reads true as 1. Nobody means that, and a study would train for a single step.
        items = value if isinstance(value, list | tuple) else (value,)
        if info.field_name is not None and any(isinstance(item, bool | str) for item in items):
            annotation = cls.model_fields[info.field_name].annotation
            check_no_boolean(value, annotation)
            return read_integers(value, annotation)
        return value


def check_no_boolean(value: Any, annotation: Any) -> None:
    """Raise ValueError if `value` is or lists true or false, and the type `annotation` allows numbers only."""
    kinds = scalar_kinds(annotation)
    if bool in kinds or object in kinds or not kinds & {int, float}:
        return
    items = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(item, bool) for item in items):
        number = "a valid number" if float in kinds else "a valid integer"
        raise ValueError(f"input should be {number}, not true or false")


def read_integers(value: Any, annotation: Any) -> Any:
    """Return `value` with texts such as `1e3` as integers, if the type `annotation` allows no other numbers, nor texts.

    YAML reads `1e3` as a text. Pydantic makes a float of such a text, but no integer.
    """
    if isinstance(value, list | tuple):
        return type(value)(read_integers(item, annotation) for item in value)
    if not isinstance(value, str) or not _POWER_OF_TEN.fullmatch(value.strip()):
        return value
    kinds = scalar_kinds(annotation)
    whole = float(value).is_integer() and abs(float(value)) <= _MOST_EXACT
    return int(float(value)) if whole and int in kinds and not kinds & {bool, float, str, object} else value


def scalar_kinds(annotation: Any) -> set[type]:
    """Return the scalar types that an annotation names, at any depth. `object` means that all are allowed."""
    if annotation is Any:
        return {object}
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    if arguments := get_args(annotation):
        return {kind for argument in arguments if argument is not Ellipsis for kind in scalar_kinds(argument)}
    return {annotation} if isinstance(annotation, type) else set()


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
        ValueError: If a key or value is wrong. The message is one line, which names each wrong key, its value and what
            is allowed.
    """
    if isinstance(value, cls):
        return value
    value = dict(value) if isinstance(value, Mapping) else value
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        raise ValueError(describe(error, cls, where, value)) from None


def join_problems(problems: Sequence[str]) -> str:
    """Join problems into one line. Of many problems, the first three are named and the others counted."""
    more = len(problems) - _NAMED_PROBLEMS
    counted = [f"and {more} more"] if more > 0 else []
    return "; ".join([*problems[:_NAMED_PROBLEMS], *counted])


def shorten(value: Any) -> str:
    """Return the value of a key for an error message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def describe(error: ValidationError, cls: type[BaseModel], where: str = "", value: Any = None) -> str:
    """Return the message of a pydantic error in one line: `key = value: what is allowed`, for the first wrong keys.

    Args:
        error: The error.
        cls: The type that was built.
        where: The dotted place of the value. Errors show it before every key.
        value: The value that was parsed. It tells keys that a user wrote from pydantic's names of types.
    """
    messages: dict[str, list[str]] = {}
    for item in error.errors():
        keys = _written_keys(item["loc"], value, item["type"] == "missing")
        path = ".".join([*([where] if where else []), *keys])
        shown = f" = {shorten(item['input'])}" if not isinstance(item["input"], Mapping) else ""
        if item["type"] == "extra_forbidden":
            allowed = ", ".join(_allowed_keys(cls, item["loc"][:-1]))
            messages.setdefault(f"{path}{shown}", []).append(f"unknown key; allowed: {allowed}")
        elif item["type"] == "missing":
            messages.setdefault(path, []).append("required, but missing")
        else:
            if item["type"] == "value_error" and not keys:
                shown = ""  # the rule is about several keys, which its message names
            messages.setdefault(f"{path or cls.__name__}{shown}", []).append(_message(item))
    return join_problems([f"{place}: {_join_alternatives(said)}" for place, said in messages.items()])


def convert(value: Any, field: FieldInfo) -> Any:
    """Return a value in the type of a field, so that the text `1e-3` becomes a number if the field is a number.

    Only the rules of the field itself are checked, not those that compare it with other fields.

    Raises:
        ValueError: If the field does not allow the value. The message says what it allows.
    """
    check_no_boolean(value, field.annotation)
    try:
        return _adapter(field).validate_python(read_integers(value, field.annotation))
    except ValidationError as error:
        raise ValueError(_join_alternatives([_message(item) for item in error.errors()])) from None


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    if id(field) not in _ADAPTERS:  # an adapter takes as long to build as to check thousands of values
        checked: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        _ADAPTERS[id(field)] = (field, TypeAdapter(checked, config=ConfigDict(allow_inf_nan=False)))
    return _ADAPTERS[id(field)][1]


def find_field(cls: type[BaseModel], path: str) -> FieldInfo | None:
    """Return the field at a dotted path. None if there is no such field, or if it lies in a mapping of free keys."""
    *parents, last = path.split(".")
    for part in parents:
        field = cls.model_fields.get(part)
        models = _models(field.annotation) if field else []
        if len(models) != 1:
            return None
        cls = models[0]
    return cls.model_fields.get(last)


def is_number(field: FieldInfo, *, whole: bool = False) -> bool:
    """Return True if a field allows numbers, or with `whole`, if it allows no others than whole numbers."""
    kinds = scalar_kinds(field.annotation)
    return (int in kinds and float not in kinds) if whole else bool(kinds & {int, float, object})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _message(item: ErrorDetails) -> str:
    """Return the message of pydantic about a value, in words for a user."""
    message = _PLAIN_MESSAGES.get(item["type"], item["msg"].removeprefix("Value error, "))
    return message[:1].lower() + message[1:]


def _written_keys(location: tuple[int | str, ...], value: Any, missing: bool) -> list[str]:
    """Return the keys of a location that the user wrote.

    Unions put the type that they tried into the location, and discriminated unions their tag.

    Args:
        value: The value in which the keys lie.
        missing: True if the last key is missing in the value.
    """
    keys = []
    for number, part in enumerate(location):
        inside = (isinstance(value, Mapping) and part in value) or (
            isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        )
        if inside:
            value = value[part]
        if inside or (missing and number == len(location) - 1):
            keys.append(str(part))
    return keys


def _join_alternatives(messages: Sequence[str]) -> str:
    """Join the messages of a union about its types: `input should be a valid text, a valid integer or null`."""
    unique = list(dict.fromkeys(messages))
    if len(unique) == 1:
        return unique[0]
    start = "input should be "
    if not all(message.startswith(start) for message in unique):
        return " or ".join(unique)
    # What follows a comma explains a type. Between the quoted values of a Literal, commas separate what is allowed.
    kinds = (message.removeprefix(start) for message in unique)
    *others, last = (kind if kind.startswith("'") else kind.partition(",")[0] for kind in kinds)
    return f"{start}{', '.join(others)} or {last}"


def _allowed_keys(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that `cls` allows at `path`, or the keys of `cls` itself if the path leads through a union."""
    annotation: Any = cls
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        else:  # a list or a mapping: its last argument is the type of its values
            arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
            annotation = arguments[-1] if arguments else None
    found = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else cls
    return sorted(found.model_fields)


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
