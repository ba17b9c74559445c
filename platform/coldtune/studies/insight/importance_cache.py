"""The importance of a study, kept in its folder under a hash of everything that determines it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import optuna
import sklearn
from optuna.distributions import distribution_to_json
from pydantic import TypeAdapter

from coldtune.config import digest
from coldtune.files import write_file
from coldtune.readback import UnreadableError, checked, read_json
from coldtune.studies.insight.importance import Importance
from coldtune.studies.insight.sample import Sample

FOLDER = "importance"

VERSION = 3
"""Increase it if the same settings lead to another importance."""

_ADAPTER = TypeAdapter(Importance)


def digest_of(sample: Sample, evaluator: str, stages: Mapping[str, str], objective: str) -> str:
    """Return the hash of everything that determines an importance."""
    return digest(
        {
            "version": VERSION,
            "evaluator": evaluator,
            "objective": objective,
            "distributions": {name: distribution_to_json(each) for name, each in sample.distributions.items()},
            "points": [dict(point) for point in sample.points],
            "values": sample.values,
            "directions": sample.directions,
            "stages": dict(stages),
            "versions": {"optuna": optuna.__version__, "scikit-learn": sklearn.__version__, "numpy": np.__version__},
        }
    )


def read_importance(folder: Path, digest: str) -> Importance | None:
    """Return a kept importance. None if there is none, or if its file is damaged."""
    path = _path(folder, digest)
    try:
        tree = read_json(path)
        return checked(path, lambda: _ADAPTER.validate_python(tree))
    except (FileNotFoundError, UnreadableError):
        return None


def write_importance(folder: Path, digest: str, importance: Importance) -> None:
    """Keep an importance in the folder of its study, and remove that of earlier settings.

    A folder that cannot be written is no error, because the importance can be computed again.
    """
    path = _path(folder, digest)
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        write_file(path, json.dumps(dataclasses.asdict(importance), indent=1))
        for other in path.parent.glob("*.json"):
            if other != path:
                other.unlink(missing_ok=True)


def _path(folder: Path, digest: str) -> Path:
    return folder / FOLDER / f"{digest[:32]}.json"
