"""Files that coldtune wrote and reads again: whatever is wrong with them, the message names the file in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from coldtune.readback import UnreadableError, checked, parse_json, read_bytes, read_model


class Pair(BaseModel):
    a: int
    b: str = ""


def make_folder(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


CASES: dict[str, tuple[bytes | Callable[[Path], None], str]] = {
    "empty": (b"", "is empty, as after a power cut"),
    "blank": (b" \n", "is empty"),
    "zero bytes": (bytes(500), "contains only zero bytes, as after a power cut"),
    "cut": (b'{"a": 1, "b": "x', "is not complete JSON"),
    "latin": (b'{"a": 1, "b": "\xe4"}', "is not text in UTF-8 (byte 15)"),
    "deep": (b"[" * 100_000, "is nested too deeply"),
    "digits": (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
    "null": (b"null", "has wrong content: None: input should be a valid dictionary"),
    "list": (b"[]", "has wrong content"),
    "key missing": (b"{}", "a is missing"),
    "wrong type": (b'{"a": "x"}', "a = 'x': input should be a valid integer"),
    "large": (b" " * 2**24 + b"{}", "is larger than 16 MiB"),
    "folder": (make_folder, "a folder is where a file must be"),
    "pipe": (make_fifo, "is not a regular file"),
    "device": (make_endless, "is not a regular file"),
}


@pytest.mark.parametrize("name", CASES)
def test_read_model_damaged_file_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    content, says = CASES[name]
    path = tmp_path / "start.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    with pytest.raises(UnreadableError) as error:
        read_model(path, Pair, hint="Restore it.")
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(". Restore it.")
    assert says in message
    assert "\n" not in message


def test_read_model_whole_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_text('{"a": 3, "b": "größe"}', encoding="utf-8")
    assert read_model(tmp_path / "f", Pair) == Pair(a=3, b="größe")


def test_read_bytes_missing_file_stays_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "f")
    (tmp_path / "f").touch()
    with pytest.raises(UnreadableError, match=r"f/g: .*f is a file, and a folder must be there"):
        read_bytes(tmp_path / "f" / "g")


def test_checked_surprise_of_the_reader_names_the_file() -> None:
    with pytest.raises(UnreadableError, match=r"^spec.yaml: has the wrong content \(KeyError: 'data'\)$"):
        checked("spec.yaml", lambda: {}["data"])
    with pytest.raises(UnreadableError, match=r"^spec.yaml: two; lines$"):
        checked("spec.yaml", lambda: parse_error("spec.yaml: two\nlines"))
    with pytest.raises(UnreadableError, match=r"^a: is empty"):
        checked("spec.yaml", lambda: parse_json(b"", "a"))


def parse_error(text: str) -> None:
    raise ValueError(text)
