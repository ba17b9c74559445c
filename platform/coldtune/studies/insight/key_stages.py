"""The stage at which a key of a space acts: if the key changes, this stage and all later stages run again."""

from __future__ import annotations

from collections.abc import Iterable

from coldtune.studies.space.config import VARIANT
from coldtune.studies.space.space import Space

STAGES = ("degradation", "training", "prior", "sampling")
RETRAINED = ("degradation", "training")
"""The stages whose change needs another restorer (`coldtune.stages.keys.train_key`)."""

_STAGE_OF_SECTION = {
    "degradation": "degradation",
    "data": "training",
    "restorer": "training",
    "training": "training",
    "prior": "prior",
    "sampler": "sampling",
}


def stage_of(space: Space, name: str) -> str:
    """Return the stage at which a key acts.

    Args:
        name: The short name of the key. The choice of a variant acts at the earliest stage that its variants change.
    """
    if name == VARIANT:
        return _earliest(key for changes in space.config.variants.values() for key in changes)
    return _earliest([space.paths[name]])


def _earliest(paths: Iterable[str]) -> str:
    stages = {_STAGE_OF_SECTION.get(path.partition(".")[0], "sampling") for path in paths}
    return next((stage for stage in STAGES if stage in stages), "sampling")
