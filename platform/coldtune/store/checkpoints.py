"""The checkpoints of one training, kept in a store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coldtune.store.location import StoreLocation
from coldtune.store.manifest import read_manifest
from coldtune.store.store import Store

_KEPT_INTERMEDIATE = 2  # two, because a training resumes from the older if the newest is damaged


class StoreCheckpoints:
    """The checkpoints of one training as store entries `train/<key>/<step>`. Picklable, for training workers.

    Checkpoints at a final step stay, because later stages and longer trainings build on them. So do snapshots, and
    checkpoints with recorded users. Of all others only the newest two are kept.

    Args:
        key: The training's key (`coldtune.stages.keys.train_key`).
        final: The step at which this training ends.
        by: The user, as in `Store`.
        snapshot_every: Steps between snapshots (`training.snapshot_every`).
    """

    KIND = "train"

    def __init__(
        self, at: StoreLocation | Path | str, key: str, final: int, by: str | None = None, snapshot_every: int = 0
    ) -> None:
        self.at, self.key, self.final, self.by = StoreLocation.of(at), key, final, by
        self.snapshot_every = snapshot_every
        self._started, self._before = time.time(), 0.0

    def latest(self, at_most: int) -> tuple[int, Path] | None:
        """Return step and directory of the newest undamaged checkpoint up to step `at_most`, or None.

        Seconds of training are counted from here on, in addition to those of the returned checkpoint.
        """
        store = Store(self.at)
        for step in sorted(self._steps(store), reverse=True):
            if step <= at_most and (entry := store.find(self.KIND, self._name(step))) is not None:
                self._started, self._before = time.time(), float(entry.about["seconds"])
                return step, entry.path
        return None

    def has(self, step: int) -> bool:
        """Return True if there is a checkpoint of `step`. This is a cheap look: only `latest` checks for damage."""
        return Store(self.at).exists(self.KIND, self._name(step))

    def seconds(self, step: int) -> float:
        """Return the seconds of training up to the checkpoint of `step`, summed over all runs that led to it."""
        entry = Store(self.at).find(self.KIND, self._name(step))
        return float(entry.about["seconds"]) if entry else 0.0

    def maker(self, step: int) -> str | None:
        """Return who made the checkpoint of `step`, or None if that was not recorded."""
        entry = Store(self.at).find(self.KIND, self._name(step))
        return entry.about.get("by") if entry else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Publish the checkpoint of `step`, which `write(directory)` fills, and remove those no longer needed."""
        store = Store(self.at, by=self.by)

        def fill(directory: Path) -> dict[str, Any]:
            write(directory)
            kept = step == self.final or bool(self.snapshot_every and step % self.snapshot_every == 0)
            return {"step": step, "final": kept, "seconds": self._before + time.time() - self._started}

        store.put(self.KIND, self._name(step), fill)
        intermediate = [s for s in sorted(self._steps(store)) if not self._stays(store, s)]
        for old in intermediate[:-_KEPT_INTERMEDIATE]:
            store.remove(self.KIND, self._name(old))

    @staticmethod
    def entry_key(key: str, step: int) -> str:
        """Return the key of the entry of a training's step."""
        return f"{key}/{step:08d}"

    def _name(self, step: int) -> str:
        return self.entry_key(self.key, step)

    def _steps(self, store: Store) -> list[int]:
        return [int(name) for name in store.files.list(f"{self.KIND}/{self.key}") if name.isdigit()]

    def _stays(self, store: Store, step: int) -> bool:
        try:
            manifest = read_manifest(store.files, f"{self.KIND}/{self._name(step)}")
        except (OSError, ValueError):
            return True  # damaged, perhaps: `latest` decides that and sets the checkpoint aside
        return bool(manifest["about"].get("final")) or bool(store.users(self.KIND, self._name(step)))
