"""The paper's tables: their columns, the numbers that the paper prints, and the values that a study measured."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coldtune.config import Config, parse
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import Value, check_same
from coldtune.yaml_files import read_yaml

FILE = Path(__file__).with_name("paper_tables.yaml")
NAMES = {"afhq": "AFHQ", "celeba": "CelebA", "cifar10": "CIFAR-10", "digits": "digits", "mnist": "MNIST"}
"""The names of datasets as the paper writes them."""

_HEADS = {"fid": "FID", "ssim": "SSIM", "rmse": "RMSE"}


class PaperTrial(Config):
    """The trial behind a column.

    Attributes:
        task: The task of the preset, which is called DATASET-TASK.
        set: Keys that differ from the preset.
    """

    task: str
    set: dict[str, Any] = Field(default_factory=dict)


class PaperColumn(Config):
    """A column of a table.

    Attributes:
        group: The upper heading, which several columns can share.
        head: The lower heading. If it is empty, the metric's name takes its place.
        metric: The metric.
        of: The set of the trial's images that the metric judges.
        trial: The name of the trial. It is empty if the table has only one trial.
    """

    group: str = ""
    head: str = ""
    metric: Literal["fid", "ssim", "rmse"]
    of: Literal["degraded", "direct", "naive", "sampled"]
    trial: str = ""

    @property
    def short(self) -> str:
        """The heading below the heading of the group."""
        return self.head or _HEADS[self.metric]

    @property
    def title(self) -> str:
        """The heading in a table without groups."""
        return " ".join(part for part in (self.group, self.short) if part)

    @property
    def images(self) -> str:
        """The name of the set of images in sentences, without the metric."""
        return self.head or self.group


class PaperTable(Config):
    """A table of the paper. The head of `paper_tables.yaml` explains the keys."""

    title: str
    source: str
    trials: dict[str, PaperTrial]
    columns: tuple[PaperColumn, ...]
    claims: tuple[tuple[int, int], ...]
    paper: dict[str, tuple[float | None, ...]]

    def trial_of(self, column: PaperColumn) -> str:
        """Return the name of a column's trial."""
        return column.trial or next(iter(self.trials))


@functools.cache
def tables() -> Mapping[str, PaperTable]:
    """Return the paper's tables by number. `5.3` and `A.7` are sections that print FIDs in their text."""
    return {number: parse(PaperTable, table, f"table {number}") for number, table in read_yaml(FILE).items()}


def heading(number: str) -> str:
    """Return the number and the title of a table."""
    place = f"Table {number}" if number.isdigit() else f"Section {number}"
    return f"{place} of the paper: {tables()[number].title}"


@dataclass(frozen=True)
class FilledTable:
    """A table of the paper, filled with the values of a study.

    `TerminalTable` prints it, `markdown` and `latex` write it.

    Attributes:
        number: The number of the table in the paper.
        dataset: The dataset of the study.
        cells: The measured value of each column, or the reason why it is missing.
        foot: The lines below the table, each a heading and its text.
        spreads: By place of a column whose value is a mean over trainings: their standard deviation (None for a single
            training) and their number.

    Raises:
        ValueError: If the values have different protocols. The message names the parts that differ.
    """

    number: str
    dataset: str
    cells: Sequence[Value | str]
    foot: Sequence[tuple[str, str]] = field(default_factory=tuple)
    spreads: Mapping[int, tuple[float | None, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.cells) == len(self.table.columns), f"{len(self.cells)} cells for {len(self.table.columns)}"
        check_same(cell.protocol for cell in self.cells if isinstance(cell, Value))

    @property
    def table(self) -> PaperTable:
        """The table of the paper."""
        return tables()[self.number]

    @property
    def heading(self) -> str:
        """The number and the title of the table."""
        return heading(self.number)

    @property
    def protocol(self) -> Protocol | None:
        """The protocol of all values, or None if nothing was measured."""
        return next((cell.protocol for cell in self.cells if isinstance(cell, Value)), None)

    @property
    def ours(self) -> str:
        """The label of the row with the study's values."""
        return f"{NAMES.get(self.dataset, self.dataset)}, ours"

    def papers(self) -> dict[str, tuple[float | None, ...]]:
        """Return the paper's rows by label: the row of this dataset, or all rows if the paper does not use it."""
        printed = self.table.paper
        shown = [self.dataset] if self.dataset in printed else list(printed)
        return {f"{NAMES[name]}, paper": printed[name] for name in shown}

    def absent(self) -> list[str]:
        """Return a line for each reason why cells are empty, with the titles of their columns."""
        reasons: dict[str, list[str]] = {}
        for column, cell in zip(self.table.columns, self.cells, strict=True):
            if isinstance(cell, str):
                reasons.setdefault(cell, []).append(column.title)
        everything = {len(self.cells): "all"}
        return [f"{everything.get(len(titles), ', '.join(titles))}: {why}" for why, titles in reasons.items()]
