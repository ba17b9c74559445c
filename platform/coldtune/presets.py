"""Presets: named base configurations, as YAML files beside the package.

`paper/DATASET-TASK` is a setting of the paper. `authors/DATASET-TASK` is the same setting if the authors' README or
code differs from the paper. `quick/DATASET-TASK` is a smaller version with a short training.

The first line of a preset names the tables of the paper to which it belongs: `# table 1, 6: its title`, with `-` for no
table.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldtune.config import shorten
from coldtune.yaml_files import read_yaml

FOLDER = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Preset:
    """A row in the list of presets.

    Attributes:
        tables: The tables of the paper. Numbers that appear only in the text count by their section ("5.3", "A.7").
        leftover: How much of an image the degradation leaves at T. None if its kind defines no such number. Compare
            FIDs only at equal leftover.
    """

    name: str
    title: str
    tables: tuple[str, ...]
    kind: str
    steps: int
    leftover: float | None


def names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def load(name: str) -> dict[str, Any]:
    """Return the configuration of the preset `name` as nested dicts.

    Raises:
        ValueError: If there is no such preset. The message names similar presets.
    """
    if name not in names():
        similar = difflib.get_close_matches(name, names(), 3, 0.5)
        meant = f" (did you mean {' or '.join(similar)}?)" if similar else ""
        raise ValueError(
            f"base = {shorten(name)}: no such preset{meant}. `coldtune presets` lists all. To use a configuration of "
            "your own, write it below `base:`."
        )
    return read_yaml(FOLDER / f"{name}.yaml")


def describe(name: str) -> str:
    """Return the title of the preset: its first line without the tables."""
    return _first_line(name)[1]


def tables(name: str) -> tuple[str, ...]:
    """Return the tables of the paper to which the preset belongs, in the paper's numbering."""
    return _first_line(name)[0]


def image_shape(tree: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return (C, H, W) of the images of a preset's dataset. The images need not be available here."""
    from coldtune.data import DataConfig
    from coldtune.data.registry import channels

    data = DataConfig.model_validate(tree.get("data", {}))
    return channels(data.name), data.image_size, data.image_size


def summary(name: str) -> Preset:
    """Return the row of the preset `name` in the list of presets. This builds its degradation."""
    from coldtune.diffusion import build_degradation

    tree = load(name)
    degradation = build_degradation(tree["degradation"], image_shape(tree))
    return Preset(
        name=name,
        title=describe(name),
        tables=tables(name),
        kind=degradation.kind,
        steps=degradation.steps,
        leftover=getattr(degradation, "leftover", None),
    )


def _first_line(name: str) -> tuple[tuple[str, ...], str]:
    first = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    match = re.fullmatch(r"# (?:table (?P<tables>[^:]+): )?(?P<title>.+)", first)
    if match is None:
        return (), ""
    listed = match["tables"] or "-"
    return () if listed == "-" else tuple(listed.split(", ")), match["title"]
