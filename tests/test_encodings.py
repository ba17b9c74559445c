"""Text files have one encoding in every locale: each call that opens text says which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "platform").rglob("*.py"), *(ROOT / "jobs").glob("*.py")])


def unnamed(source: str) -> Iterator[int]:
    """Yield the lines of calls that read or write text in the encoding of the locale, also through pipes."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        named = {keyword.arg for keyword in node.keywords}
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        modes = [item.value for item in [*node.args, *(keyword.value for keyword in node.keywords)] if is_text(item)]
        textual = name in ("read_text", "write_text") or (
            name in ("open", "fdopen") and any(set(mode) <= set("rwaxt+") for mode in modes)
        )
        if (textual or named & {"text", "universal_newlines"}) and "encoding" not in named:
            yield node.lineno


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(node.value)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("path.open('w')", True),
        ("open(name, mode='a')", True),
        ("subprocess.run(words, text=True)", True),
        ("path.open('rb')", False),
        ("path.read_text(encoding='utf-8')", False),
        ("path.open('w', encoding='utf-8')", False),
        ("Image.open(file)", False),
    ],
)
def test_unnamed_encoding_is_found(call: str, found: bool) -> None:
    assert list(unnamed(call)) == [1] * found


def test_sources_name_the_encoding_of_every_text_file() -> None:
    assert len(SOURCES) > 200
    found = {str(path): lines for path in SOURCES if (lines := list(unnamed(path.read_text(encoding="utf-8"))))}
    assert found == {}
