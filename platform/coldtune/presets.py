"""Presets: named base configurations, as YAML beside the package.

`paper/DATASET-TASK` is a setting of the paper, `authors/DATASET-TASK` the same where the authors' README or code does
something else. A preset's first line says to which of the paper's tables it belongs: `# table 1, 6: what it is`, `-`
for none.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Preset:
    """What the list of presets shows of one.

    tables: the paper's, also those whose numbers stand only in the text of a section ("5.3", "A.7"). leftover: how much
    of an image the last degradation leaves, None where no such number is defined; FIDs compare at equal leftover only.
    """

    name: str
    title: str
    tables: tuple[str, ...]
    kind: str
    steps: int
    leftover: float | None


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
    """The first line of the preset's comment, without the tables it belongs to."""
    return _first_line(name)[1]


def tables(name: str) -> tuple[str, ...]:
    """The paper's tables that the preset belongs to, in the paper's numbering; () for none."""
    return _first_line(name)[0]


def image_shape(tree: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C, H, W) of the images of a preset's dataset, whether or not these images can be prepared here."""
    from coldtune.data import DataConfig
    from coldtune.data.registry import channels

    data = DataConfig.model_validate(tree.get("data", {}))
    return channels(data.name), data.image_size, data.image_size


def summary(name: str) -> Preset:
    """What the list shows of the preset `name`; builds its degradation."""
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
    first = (FOLDER / f"{name}.yaml").read_text().splitlines()[0]
    match = re.fullmatch(r"# (?:table (?P<tables>[^:]+): )?(?P<title>.+)", first)
    if match is None:
        return (), ""
    listed = match["tables"] or "-"
    return () if listed == "-" else tuple(listed.split(", ")), match["title"]
