"""Checking a prepared dataset against its manifest, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from coldtune.data.dataset import Dataset
from coldtune.data.manifest import content_hash


@dataclass(frozen=True)
class Report:
    """What `verify` found: no `problems` for a good dataset; the rest is unknown without a readable manifest."""

    path: Path
    name: str | None = None
    fingerprint: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every pixel and label is what the manifest says."""
        return not self.problems

    def describe(self) -> str:
        """One line for a good dataset, one line for each problem of a bad one."""
        if self.problems:
            return "\n".join(f"bad: {problem}" for problem in self.problems)
        sizes = ", ".join(f"{split} {count:,}" for split, count in self.sizes.items())
        return f"good: {self.path} ({self.name}: {sizes}; fingerprint {self.fingerprint})"


def verify(path: Path | str) -> Report:
    """Re-hash all pixels and labels of the prepared folder `path` and compare them with its manifest. Never raises."""
    path = Path(path)
    try:
        dataset = Dataset.open(path)
    except ValueError as error:
        return Report(path, problems=(str(error),))
    problems = []
    for name, record in dataset.manifest.splits.items():
        try:
            split = dataset.split(name)
        except ValueError as error:
            problems.append(str(error))
            continue
        if content_hash(split.images) != record.pixels:
            problems.append(f"{path}: pixels of {name} are not those that were written")
        if content_hash(split.labels) != record.labels:
            problems.append(f"{path}: labels of {name} are not those that were written")
    return Report(path, dataset.name, dataset.fingerprint, dataset.sizes, tuple(problems))
