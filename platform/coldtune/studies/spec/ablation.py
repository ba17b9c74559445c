"""The record of an ablation: the changes between two settings of a finished search, and the settings in between."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from coldtune.config import Config


class Change(Config):
    """A change from the base to the best setting.

    Attributes:
        keys: The dotted keys that change together: a key, and the keys that wait for it by `when`.
        before: By dotted key, the value of the base. A key that has no effect there is missing.
        after: By dotted key, the value of the best setting.
        alone: The arm that has this change alone on the base. None if it cannot exist.
        why_not: The reason why there is no such arm.
    """

    keys: tuple[str, ...]
    before: dict[str, Any]
    after: dict[str, Any]
    alone: str | None = None
    why_not: str = ""


class Step(Config):
    """A step of the path from the best setting to the base.

    Attributes:
        changes: The names of the changes that the step takes back. There are several if taking back the first of them
            leads to a setting that cannot exist.
        arm: The arm at which the step ends.
        skipped: By name of a change, the reason why the setting after it cannot exist.
    """

    changes: tuple[str, ...]
    arm: str
    skipped: dict[str, str] = Field(default_factory=dict)


class AblationRecord(Config):
    """The changes and the arms of an ablation.

    Attributes:
        study: The name of the search.
        trial: The number of its trial that is taken back to the base.
        changes: The changes by their names, in the order in which the path takes them back.
        base: The arm of the base.
        best: The arm of the best setting, where the path begins.
        path: The steps of the path. The last ends at the base.
    """

    study: str
    trial: int
    changes: dict[str, Change]
    base: str
    best: str
    path: tuple[Step, ...]
