"""Presets: named base configurations, as YAML beside the package."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "presets"


def names() -> list[str]:
    """The presets there are."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def load(name: str) -> dict[str, Any]:
    """The configuration of the preset `name` as nested dicts; ValueError naming the presets where there is none."""
    if name not in names():
        raise ValueError(f"base = {name!r}: no such preset; allowed: {', '.join(names())}")
    return read_yaml(FOLDER / f"{name}.yaml")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; ValueError naming the file and place where it does not."""
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path}: must hold a mapping")
    return copy.deepcopy(dict(tree))


def describe(name: str) -> str:
    """The first line of the preset's comment."""
    first = (FOLDER / f"{name}.yaml").read_text().splitlines()[0]
    return first.removeprefix("# ") if first.startswith("# ") else ""
