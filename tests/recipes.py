"""Recipes: documents whose code blocks add a part to coldtune, and how to follow them in a copy of the source.

A block with `<!-- example: PATH -->` above it is a new file at PATH. If its language is `diff`, it edits the file PATH.
Lines of a diff begin with a space (context), "-" or "+". The context and the removed lines of a hunk must occur exactly
once in the file. Lines that begin with "@@" separate hunks.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
RECIPES = [CONTRIBUTING, *sorted(path for path in (ROOT / "docs" / "recipes").glob("*.md") if path.stem != "README")]

_EXAMPLE = re.compile(r"^<!-- example: (.+?) -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(document: Path) -> dict[str, str]:
    """Return the text of the code blocks that have a name, by that name."""
    return {name: text for name, _, text in _EXAMPLE.findall(document.read_text())}


def commands(document: Path, start: str) -> list[list[str]]:
    """Return the words after `start` of each command in the document's shell blocks that begins with it."""
    lines = [line for block in _SHELL.findall(document.read_text()) for line in block.splitlines()]
    return [shlex.split(line.removeprefix(start), comments=True) for line in lines if line.startswith(start)]


def changed_files(recipe: Path, root: Path = ROOT) -> dict[str, str]:
    """Return the new text of each file that a recipe adds or changes.

    Raises:
        ValueError: If a new file exists already, or an edit does not fit its file.
    """
    files: dict[str, str] = {}
    for name, language, text in _EXAMPLE.findall(recipe.read_text()):
        if language == "diff":
            before = files.get(name) or (root / name).read_text()
            files[name] = patched(before, text, name)
        elif (root / name).exists():
            raise ValueError(f"{recipe.name}: {name} exists already")
        else:
            files[name] = text
    return files


def patched(text: str, diff: str, name: str) -> str:
    """Apply a diff to the text of the file `name`."""
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = [line or " " for line in hunk.splitlines()]  # editors strip the space of an empty line of context
        old = "".join(f"\n{line[1:]}" for line in lines if line[0] in " -")
        new = "".join(f"\n{line[1:]}" for line in lines if line[0] in " +")
        if (count := f"\n{text}".count(f"{old}\n")) != 1:
            raise ValueError(f"{name} has {count} places for this edit, and must have one:\n{hunk}")
        text = f"\n{text}".replace(f"{old}\n", f"{new}\n")[1:]
    return text


def follow(recipe: Path, copy: Path) -> None:
    """Apply a recipe to a copy of the repository."""
    for name, text in changed_files(recipe, copy).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text)
