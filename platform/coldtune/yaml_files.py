"""The reader of everything that people write as YAML: search spaces, presets, configurations and values of `--set`.

It accepts a safe part of YAML 1.1, with a limit on everything that could grow:

| accepted | refused |
|:--|:--|
| mappings, lists, texts, numbers, true and false, null | every tag, so no Python object, set, binary value or date |
| keys that are texts, each once in a mapping | the same key twice, and keys such as 1 or on, which are no texts |
| anchors, aliases and merge keys (`<<`) | an alias inside its own anchor |
| UTF-8, up to 1 MB, 50,000 values and 40 levels, aliases expanded | pipes, devices, folders, other encodings |

Dates and times of day stay texts: `2024-01-01`, `1:30`. A number that starts with 0, such as `010`, is refused, because
YAML 1.1 reads it as octal. `1e-3` is a text for YAML 1.1. Whoever owns the key turns it into a number.

Every error is a single line. It names the file or flag, the line, and what is allowed.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.events import AliasEvent, Event
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

MAX_BYTES = 1_000_000
MAX_VALUES = 50_000
MAX_DEPTH = 40
_MOST_DIGITS = 300

_NULL, _BOOL, _INT, _FLOAT, _STR, _SEQ, _MAP, _MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
_PLAIN = {_NULL, _BOOL, _INT, _FLOAT, _STR, _SEQ, _MAP}
_NO_TEXT = {_NULL, _BOOL, _INT, _FLOAT}
_OCTAL = re.compile(r"[-+]?0[0-9_]+")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that contains a mapping. No two parts of the result are the same object.

    Raises:
        ValueError: If there is no such file, it cannot be read, or it contains something else. The message names the
            file and the line.
    """
    tree = parse_yaml(_read_text(path), str(path))
    if not isinstance(tree, dict):
        found = "is empty" if tree is None else "contains no mapping"
        raise ValueError(f"{path}: {found}. It must contain a mapping, with a line `key: value` for each key.")
    return tree


def parse_yaml(text: str, where: str) -> Any:
    """Return what a YAML text contains: dicts, lists, texts, numbers, booleans and None.

    Args:
        where: The file or flag of the text, with which errors begin.

    Raises:
        ValueError: If the text is not valid, or contains something that is not accepted.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"{where}: {len(text):,} characters; at most {MAX_BYTES:,} are allowed")
    if bad := Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise ValueError(f"{where}: line {line}: not valid YAML: the character {bad[0]!r} is not allowed")
    loader = _Loader(text)
    try:
        return _copy(loader.get_single_data())
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: {_describe(error, text)}") from None
    finally:
        loader.dispose()


def _read_text(path: Path) -> str:
    """Read a regular file of limited size as UTF-8."""
    try:
        if not stat.S_ISREG((found := os.stat(path)).st_mode):
            what = "is a folder" if stat.S_ISDIR(found.st_mode) else "is no regular file"
            raise ValueError(f"{path}: {what}. Name a YAML file.")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path}: {max(found.st_size, len(content)):,} bytes; at most {MAX_BYTES:,} are allowed")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start} is 0x{content[error.start]:02x}"
        raise ValueError(f"{path}: not a text in UTF-8 ({wrong}). Save the file as UTF-8.") from None


class _RefusedError(yaml.MarkedYAMLError):
    """Valid YAML that is not accepted here."""


def _refuse(problem: str, at: Any) -> _RefusedError:
    return _RefusedError(problem=problem, problem_mark=at.start_mark)


class _Nodes(Composer):
    """The builder of nodes from a parser's events.

    It counts them with every alias expanded, and checks the keys of mappings.
    """

    def __init__(self) -> None:
        Composer.__init__(self)
        self._depth = self._values = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # the values and the levels of a node, by its id
        self._open: set[str] = set()  # anchors whose node is not complete

    def compose_node(self, parent: Node | None, index: Any) -> Node:
        """Return the next node. Refuse it if it makes the document too large or too deep."""
        event: Any = self.peek_event()  # type: ignore[attr-defined]
        if isinstance(event, AliasEvent):
            return self._compose_alias(event, parent, index)
        self._count(1, 1, event)
        before = self._values
        if event.anchor is not None:
            self._open.add(event.anchor)
        self._depth += 1
        node = Composer.compose_node(self, parent, index)
        assert node is not None
        self._depth -= 1
        self._open.discard(event.anchor)
        children: list[Node] = node.value if isinstance(node, SequenceNode) else []
        if isinstance(node, MappingNode):
            _check_keys(node)
            children = [child for pair in node.value for child in pair]
        levels = 1 + max((self._sizes[id(child)][1] for child in children), default=0)
        self._sizes[id(node)] = (self._values - before + 1, levels)
        return node

    def _compose_alias(self, event: AliasEvent, parent: Node | None, index: Any) -> Node:
        if event.anchor in self._open:
            raise _refuse(f"the alias *{event.anchor} lies inside its anchor, so the value would contain itself", event)
        node = Composer.compose_node(self, parent, index)
        assert node is not None
        self._count(*self._sizes[id(node)], event)
        return node

    def _count(self, values: int, levels: int, event: Event) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _refuse(f"more than {MAX_VALUES:,} values, with every alias expanded", event)
        if self._depth + levels > MAX_DEPTH:
            raise _refuse(f"nested more than {MAX_DEPTH} levels deep", event)


def _check_keys(node: MappingNode) -> None:
    """Refuse a key that is written twice, or that is no text."""
    written: dict[str, int] = {}
    for key, _ in node.value:
        if key.tag == _MERGE:
            continue
        if not isinstance(key, ScalarNode):
            raise _refuse("a key must be a text, not a list or mapping", key)
        if key.tag in _NO_TEXT:
            raise _refuse(f'the key {key.value or "null"} must be a text. Write it in quotes: "{key.value}"', key)
        if key.value in written:
            raise _refuse(f"the key {key.value} is written twice, first in line {written[key.value]}", key)
        written[key.value] = key.start_mark.line + 1


class _Values(SafeConstructor):
    """The maker of values from nodes. It refuses tags."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """Return the value of a node. Refuse every tag that is not plain data."""
        if node.tag not in _PLAIN:
            name = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise _refuse(f"the tag {name} is not allowed. Write texts, numbers, lists and mappings.", node)
        if isinstance(node, ScalarNode) and node.tag == _INT and _OCTAL.fullmatch(node.value):
            raise _refuse(f"{node.value} starts with 0, so YAML reads an octal number. Leave the 0 out.", node)
        if isinstance(node, ScalarNode) and node.tag == _INT and len(node.value) > _MOST_DIGITS:
            raise _refuse(f"a number of {len(node.value):,} digits; at most {_MOST_DIGITS} are allowed", node)
        try:
            value = super().construct_object(node, deep=True)
        except ValueError:  # `!!int text`
            raise _refuse(f"{node.value} is not what its tag {node.tag.rpartition(':')[2]} says", node) from None
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _refuse("half of a surrogate pair is no letter", node)
        return value


class _Kinds(Resolver):
    """The rules for the type of a plain scalar. Dates and numbers to the base 60 stay texts."""


_Kinds.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag in (_NULL, _BOOL, _MERGE)]
    for letter, resolvers in Resolver.yaml_implicit_resolvers.items()
}
_Kinds.add_implicit_resolver(
    _INT, re.compile(r"^(?:[-+]?0b[01_]+|[-+]?0x[0-9a-fA-F_]+|[-+]?[0-9][0-9_]*)$"), list("-+0123456789")
)
_Kinds.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


class _LoaderInPython(_Nodes, Reader, Scanner, Parser, _Values, _Kinds):
    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        _Nodes.__init__(self)
        _Values.__init__(self)
        _Kinds.__init__(self)


def _loader_class() -> Any:
    if not yaml.__with_libyaml__:
        return _LoaderInPython
    events: Any = importlib.import_module("yaml.cyaml").CParser  # reads many times faster, and makes the same events

    class Loader(_Nodes, events, _Values, _Kinds):  # type: ignore[misc]
        def __init__(self, text: str) -> None:
            events.__init__(self, text)
            _Nodes.__init__(self)
            _Values.__init__(self)
            _Kinds.__init__(self)

    return Loader


_Loader = _loader_class()


def _copy(value: Any) -> Any:
    """Copy a value, so that a change behind one alias does not change another place."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _describe(error: yaml.YAMLError, text: str) -> str:
    """Return the line and the problem of an error of the parser, in a single line."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"not valid YAML: {' '.join(str(error).split())}"
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}: " if mark is not None else ""
    problem = " ".join(str(error.problem).split())
    if "maximum nesting depth" in problem:  # libyaml's own limit, of 1,000 levels
        return f"{place}nested more than {MAX_DEPTH} levels deep"
    if isinstance(error, _RefusedError):
        return f"{place}{problem}"
    if error.context and not error.context.startswith("while"):
        problem = f"{' '.join(error.context.split())} {problem}"
    if mark is not None and "\t" in _indentation(text, mark.line):
        problem = "a tab cannot indent a line. Use spaces."
    return f"{place}not valid YAML: {problem}"


def _indentation(text: str, line: int) -> str:
    written = [*text.splitlines(), ""][min(line, text.count("\n"))]
    return written[: len(written) - len(written.lstrip())]
