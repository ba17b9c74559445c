"""Verification of a prepared dataset against its manifest, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from coldtune.data.dataset import Dataset
from coldtune.data.manifest import split_file
from coldtune.data.regular_files import hash_file


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes:
        problems: Empty if the dataset is good. The other attributes are unknown if the manifest cannot be read.
        sizes: The number of images of each split.
    """

    path: Path
    name: str | None = None
    fingerprint: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if every pixel and label is as the manifest says."""
        return not self.problems

    def describe(self) -> str:
        """Return a line with name, sizes and fingerprint if the dataset is good, otherwise a line for each problem."""
        if self.problems:
            return "\n".join(f"bad: {problem}" for problem in self.problems)
        sizes = ", ".join(f"{split} {count:,}" for split, count in self.sizes.items())
        return f"good: {self.path} ({self.name}: {sizes}; fingerprint {self.fingerprint})"


def verify(path: Path | str) -> Verification:
    """Hash all files of the prepared folder `path`, and compare headers, counts and hashes with its manifest.

    Nothing is raised for a bad folder. Its problems are in the result.
    """
    path = Path(path)
    try:
        dataset = Dataset.open(path)
    except ValueError as error:
        return Verification(path, problems=(str(error),))
    problems = []
    for name, record in dataset.manifest.splits.items():
        damage = dataset.find_damage(name)
        file = path / split_file(name)
        # Bytes that no reader of the file looks at count too, if the manifest is new enough to know them.
        if not damage and record.sha256 is not None and hash_file(file) != record.sha256:
            damage = [f"{file}: bytes outside its pixels and labels have changed since they were written"]
        problems += damage
    return Verification(path, dataset.name, dataset.fingerprint, dataset.sizes, tuple(problems))
