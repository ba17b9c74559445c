"""The checkpoints of one training, kept in a store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coldtune.store.location import StoreAt
from coldtune.store.manifest import read_manifest
from coldtune.store.store import Store


class StoreCheckpoints:
    """The checkpoints of one training as store entries `train/<key>/<step>`; picklable, for training workers.

    final: the step at which this training ends. Checkpoints at a final step stay (later stages and longer
    trainings build on them), and so does one that somebody is recorded to use; of the others only the newest two are
    kept. by: who trains, as in `Store`.
    """

    KIND = "train"

    def __init__(self, at: StoreAt | Path | str, key: str, final: int, by: str | None = None) -> None:
        self.at, self.key, self.final, self.by = StoreAt.of(at), key, final, by
        self._started, self._before = time.time(), 0.0

    def latest(self, at_most: int) -> tuple[int, Path] | None:
        """The newest believable checkpoint with step <= `at_most`: (step, directory)."""
        store = Store(self.at)
        for step in sorted(self._steps(store), reverse=True):
            if step <= at_most and (entry := store.find(self.KIND, self._name(step))) is not None:
                self._started, self._before = time.time(), float(entry.about["seconds"])
                return step, entry.path
        return None

    def has(self, step: int) -> bool:
        """Whether there is a checkpoint of `step`; a cheap look, `latest` says whether it can be believed."""
        return Store(self.at).exists(self.KIND, self._name(step))

    def seconds(self, step: int) -> float:
        """Seconds of training that the checkpoint of `step` stands for, over all the runs that led to it."""
        entry = Store(self.at).find(self.KIND, self._name(step))
        return float(entry.about["seconds"]) if entry else 0.0

    def maker(self, step: int) -> str | None:
        """Who made the checkpoint of `step`, as far as recorded."""
        entry = Store(self.at).find(self.KIND, self._name(step))
        return entry.about.get("by") if entry else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Publish the checkpoint of `step`, filled by `write(directory)`, and drop the ones no longer needed."""
        store = Store(self.at, by=self.by)

        def fill(directory: Path) -> dict[str, Any]:
            write(directory)
            return {"step": step, "final": step == self.final, "seconds": self._before + time.time() - self._started}

        store.put(self.KIND, self._name(step), fill)
        passing = [s for s in sorted(self._steps(store)) if not self._stays(store, s)]
        for old in passing[:-2]:
            store.drop(self.KIND, self._name(old))

    def _name(self, step: int) -> str:
        return f"{self.key}/{step:08d}"

    def _steps(self, store: Store) -> list[int]:
        return [int(name) for name in store.files.list(f"{self.KIND}/{self.key}") if name.isdigit()]

    def _stays(self, store: Store, step: int) -> bool:
        try:
            manifest = read_manifest(store.files, f"{self.KIND}/{self._name(step)}")
        except (OSError, ValueError):
            return True  # not ours to judge: `latest` sets torn ones aside
        return bool(manifest["about"].get("final")) or bool(store.users(self.KIND, self._name(step)))
