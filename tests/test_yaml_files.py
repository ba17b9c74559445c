"""The reader of YAML: what it accepts, and that no input makes it large, slow or surprising."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coldtune import yaml_files
from coldtune.yaml_files import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse_yaml, read_yaml

ROOT = Path(__file__).parents[1]
# PyYAML writes some line separators so that it cannot read them back.
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=20
)


@pytest.fixture(params=["libyaml", "python"])
def parse(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return the reader with each of the two parsers."""
    if request.param == "python":
        monkeypatch.setattr(yaml_files, "_Loader", yaml_files._LoaderInPython)
    elif not yaml.__with_libyaml__:
        pytest.skip("PyYAML was built without libyaml")
    return lambda text: parse_yaml(text, "here")


@given(TREES)
def test_parse_yaml_what_was_dumped_is_read_back(tree: Any) -> None:
    assert parse_yaml(yaml.safe_dump(tree, allow_unicode=True), "") == tree


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_read_yaml_agrees_with_pyyaml_on_shipped_spaces(path: Path) -> None:
    assert read_yaml(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-0", 0), ("1_000", 1000), ("0x10", 16), ("1.5", 1.5), ("1.0e-3", 0.001), (".5", 0.5), ("~", None),
        ("1e-3", "1e-3"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("=", "="), ("yes", True), ("Off", False),
        ("", None), ("'1'", "1"), ("!!str 1", "1"), ("!!float 1", 1.0),
    ],
)  # fmt: skip
def test_parse_yaml_plain_scalars_are_numbers_booleans_or_texts(
    text: str, value: Any, parse: Callable[[str], Any]
) -> None:
    assert (parse(text), type(parse(text))) == (value, type(value))


def test_parse_yaml_aliases_are_copies(parse: Callable[[str], Any]) -> None:
    tree = parse("a: &x {k: [1]}\nb: *x\nc: {<<: *x, l: 2}\n")
    assert tree == {"a": {"k": [1]}, "b": {"k": [1]}, "c": {"k": [1], "l": 2}}
    tree["a"]["k"].append(2)
    assert tree["b"] == {"k": [1]}
    assert tree["c"]["k"] == [1]


def test_parse_yaml_own_key_replaces_a_merged_key(parse: Callable[[str], Any]) -> None:
    assert parse("a: &x {k: 1}\nb: {k: 2, <<: *x}\n")["b"] == {"k": 2}


def test_parse_yaml_limits_are_met_exactly(parse: Callable[[str], Any]) -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse(deepest) is not None
    with pytest.raises(ValueError, match=r"^here: line 1: nested more than 40 levels deep$"):
        parse(f"[{deepest}]")
    most = "[" + "1," * (MAX_VALUES - 1) + "]"
    assert len(parse(most)) == MAX_VALUES - 1
    with pytest.raises(ValueError, match=r"^here: line 1: more than 50,000 values, with every alias expanded$"):
        parse(f"[{most}]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key a is written twice, first in line 1"),
        ("x:\n  a: 1\n  'a': 2\n", "line 3: the key a is written twice, first in line 2"),
        ("&a [*a]", "line 1: the alias *a lies inside its anchor, so the value would contain itself"),
        ("a: &a\n  b: {<<: *a}\n", "line 2: the alias *a lies inside its anchor, so the value would contain itself"),
        ("1: a", 'line 1: the key 1 must be a text. Write it in quotes: "1"'),
        ("on: a", 'line 1: the key on must be a text. Write it in quotes: "on"'),
        ("? [a]\n: b", "line 1: a key must be a text, not a list or mapping"),
        ("a:\n\tb: 1\n", "line 2: not valid YAML: a tab cannot indent a line. Use spaces."),
        ("a: 010", "line 1: 010 starts with 0, so YAML reads an octal number. Leave the 0 out."),
        ("a: !!int x", "line 1: x is not what its tag int says"),
        ("a: 1\n---\nb: 2", "line 2: not valid YAML: expected a single document in the stream but found another"),
        ("a: !!timestamp 2024-01-01", "line 1: the tag !!timestamp is not allowed"),
        ("a: !!python/tuple [1]", "line 1: the tag !!python/tuple is not allowed"),
        ("a: x\x07", "line 1: not valid YAML: the character '\\x07' is not allowed"),
    ],
)
def test_parse_yaml_refuses_in_one_line_with_its_place(text: str, message: str, parse: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match=r"^here: ") as caught:
        parse(text)
    assert str(caught.value).startswith(f"here: {message}")
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="ab:-[]{}&*!?|>'\"#%@,~ \n\t1.<", max_size=60))
def test_parse_yaml_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    said = ""
    try:
        parse_yaml(text, "here")
    except ValueError as error:
        said = str(error)
    assert "\n" not in said


def test_read_yaml_file_at_the_limit_is_read(tmp_path: Path) -> None:
    (path := tmp_path / "a.yaml").write_text("a: " + "x" * (MAX_BYTES - 3))
    assert len(read_yaml(path)["a"]) == MAX_BYTES - 3
    path.write_text("a: " + "x" * (MAX_BYTES - 2))
    with pytest.raises(ValueError, match=r"a\.yaml: 1,000,001 bytes; at most 1,000,000 are allowed"):
        read_yaml(path)


def test_read_yaml_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (path := tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: caf\xc3\xa9\n")
    assert read_yaml(path) == {"a": "café"}
