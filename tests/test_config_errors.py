"""Errors of configurations: one line, the key as a user wrote it, the value, and what is allowed."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest
from pydantic import Field

from coldtune.config import Config, convert, find_field, parse, shorten


class Part(Config):
    size: int = Field(default=1, ge=1)
    rate: float | None = None


class Whole(Config):
    steps: int = 1
    lr: float = 1.0
    rungs: tuple[int, ...] = ()
    flip: bool = False
    part: Part = Part()
    parts: dict[str, Part] = Field(default_factory=dict)
    listed: tuple[Part, ...] = ()
    choices: tuple[str | bool | int | float | None, ...] = ()
    base: str | dict[str, Any] = "x"
    at: Literal["base"] | float = "base"
    kind: Literal[1, 2] = 1


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"steps": True}, "a.steps = True: input should be a valid integer, not true or false"),
        ({"lr": False}, "a.lr = False: input should be a valid number, not true or false"),
        ({"rungs": [5, True]}, "a.rungs = [5, True]: input should be a valid integer, not true or false"),
        ({"at": True}, "a.at = True: input should be a valid number, not true or false"),
        ({"kind": True}, "a.kind = True: input should be a valid integer, not true or false"),
        ({"steps": "many"}, "a.steps = 'many': input should be a valid integer"),
        ({"lr": float("nan")}, "a.lr = nan: input should be a finite number"),
        ({"part": None}, "a.part = None: input should be a mapping"),
        ({"part": {"rate": "x"}}, "a.part.rate = 'x': input should be a valid number"),
        ({"part": {"sise": 1}}, "a.part.sise = 1: unknown key; allowed: rate, size"),
        ({"parts": {"b.c": {"sise": 1}}}, "a.parts.b.c.sise = 1: unknown key; allowed: rate, size"),
        ({"listed": [{"sise": 1}]}, "a.listed.0.sise = 1: unknown key; allowed: rate, size"),
        ({"parts": {"b": {"size": 0}}}, "a.parts.b.size = 0: input should be greater than or equal to 1"),
        ({"base": 5}, "a.base = 5: input should be a valid text or a mapping"),
        ({"at": "end"}, "a.at = 'end': input should be 'base' or a valid number"),
        ({"choices": [[1]]}, "a.choices.0 = [1]: input should be a valid text, a valid boolean, a valid integer or a "),
        ({"choices": [{"b": 1}]}, "a.choices.0: input should be a valid text, a valid boolean, a valid integer or a "),
        ({"choices": 5}, "a.choices = 5: input should be a list"),
        ({"steps": "a", "lr": "b", "flip": "c", "rungs": 1, "base": 2}, "a.steps = 'a': "),
    ],
)
def test_parse_wrong_value_is_one_line_with_key_and_value(written: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^a") as caught:
        parse(Whole, written, "a")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert len(re.findall(r"a\.\w+ = ", str(caught.value))) <= 3
    assert ("and 2 more" in str(caught.value)) == (len(written) == 5)


@pytest.mark.parametrize("written", [{"flip": True}, {"choices": [True, 1, None]}, {"base": {"x": True}}])
def test_parse_boolean_stays_allowed_where_booleans_are(written: dict[str, Any]) -> None:
    assert parse(Whole, written).model_dump(include=set(written)) == {
        key: tuple(value) if isinstance(value, list) else value for key, value in written.items()
    }


def test_convert_text_becomes_the_number_of_its_field() -> None:
    field = find_field(Whole, "part.rate")
    assert field is not None
    assert convert("1e-3", field) == 0.001
    assert convert(None, field) is None
    with pytest.raises(ValueError, match=r"^input should be a valid number$"):
        convert("fast", field)
    with pytest.raises(ValueError, match="not true or false"):
        convert(True, field)
    assert find_field(Whole, "part.nothing") is None


def test_shorten_cuts_long_values() -> None:
    assert shorten("x" * 10) == "'xxxxxxxxxx'"
    assert len(shorten("x" * 10_000)) < 200
