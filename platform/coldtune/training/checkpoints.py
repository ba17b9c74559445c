"""Checkpoints in a plain folder, for trainings outside a study and for tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FolderCheckpoints:
    """Checkpoints in `folder/step-00000500/` and so on.

    A checkpoint appears by a rename, so it is either complete or absent.
    """

    folder: Path

    def latest(self, at_most: int) -> tuple[int, Path] | None:
        """Return the checkpoint of the largest step <= `at_most`, or None."""
        steps = [int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*")]
        step = max((step for step in steps if step <= at_most), default=None)
        return None if step is None else (step, self._path(step))

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Let `write` fill a fresh folder, and keep it as the checkpoint of `step`.

        A checkpoint of that step that is already there stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=self.folder) as scratch:
            fresh = Path(scratch, "checkpoint")
            fresh.mkdir()
            write(fresh)
            if not self._path(step).exists():
                shutil.move(fresh, self._path(step))

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"
