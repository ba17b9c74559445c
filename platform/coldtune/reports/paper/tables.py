"""The paper's tables: their columns, the figures that it prints, and what a study measured, side by side."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from coldtune.config import Config, parse
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import Value, check_same

FILE = Path(__file__).with_name("paper_tables.yaml")
NAMES = {"afhq": "AFHQ", "celeba": "CelebA", "cifar10": "CIFAR-10", "digits": "digits", "mnist": "MNIST"}
"""Datasets as the paper writes them."""

_HEADS = {"fid": "FID", "ssim": "SSIM", "rmse": "RMSE"}


class PaperTrial(Config):
    """What is trained and sampled for a column: the preset's task (`DATASET-TASK`), and keys set besides."""

    task: str
    set: dict[str, Any] = Field(default_factory=dict)


class PaperColumn(Config):
    """A column: a metric of one set of images of one trial (the only one, where `trial` is empty)."""

    group: str = ""
    head: str = ""
    metric: Literal["fid", "ssim", "rmse"]
    of: Literal["degraded", "direct", "naive", "sampled"]
    trial: str = ""

    @property
    def short(self) -> str:
        """The heading below the group's."""
        return self.head or _HEADS[self.metric]

    @property
    def title(self) -> str:
        """The heading where there are no groups above."""
        return " ".join(part for part in (self.group, self.short) if part)

    @property
    def images(self) -> str:
        """What is measured, without the metric: for sentences."""
        return self.head or self.group


class PaperTable(Config):
    """A table of the paper; `paper_tables.yaml` says what its keys are."""

    title: str
    source: str
    trials: dict[str, PaperTrial]
    columns: tuple[PaperColumn, ...]
    claims: tuple[tuple[int, int], ...]
    paper: dict[str, tuple[float | None, ...]]

    def trial_of(self, column: PaperColumn) -> str:
        """The name of a column's trial."""
        return column.trial or next(iter(self.trials))


@functools.cache
def tables() -> Mapping[str, PaperTable]:
    """The paper's tables by number; `5.3` and `A.7` are sections that print FIDs in their text."""
    tree = yaml.safe_load(FILE.read_text())
    return {number: parse(PaperTable, table, f"table {number}") for number, table in tree.items()}


def heading(number: str) -> str:
    """Which table, and of what."""
    place = f"Table {number}" if number.isdigit() else f"Section {number}"
    return f"{place} of the paper: {tables()[number].title}"


@dataclass(frozen=True)
class FilledTable:
    """A table of the paper with what was measured here: print it with rich, or see `markdown` and `latex`.

    cells: for each column the value measured, or why there is none. foot: lines below, each a heading and its text.
    Raises ValueError where the values are not all of one protocol, naming what differs.
    """

    number: str
    dataset: str
    cells: Sequence[Value | str]
    foot: Sequence[tuple[str, str]] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        assert len(self.cells) == len(self.table.columns), f"{len(self.cells)} cells for {len(self.table.columns)}"
        check_same(cell.protocol for cell in self.cells if isinstance(cell, Value))

    @property
    def table(self) -> PaperTable:
        """Which table it is."""
        return tables()[self.number]

    @property
    def heading(self) -> str:
        """Which table, and of what."""
        return heading(self.number)

    @property
    def protocol(self) -> Protocol | None:
        """That of all values; None where nothing was measured."""
        return next((cell.protocol for cell in self.cells if isinstance(cell, Value)), None)

    @property
    def ours(self) -> str:
        """The label of what was measured here."""
        return f"{NAMES.get(self.dataset, self.dataset)}, ours"

    def papers(self) -> dict[str, tuple[float | None, ...]]:
        """The paper's rows by label: of this dataset, or all of them where the paper has none of it."""
        printed = self.table.paper
        shown = [self.dataset] if self.dataset in printed else list(printed)
        return {f"{NAMES[name]}, paper": printed[name] for name in shown}

    def absent(self) -> list[str]:
        """Which cells are empty and why, a line for each reason."""
        reasons: dict[str, list[str]] = {}
        for column, cell in zip(self.table.columns, self.cells, strict=True):
            if isinstance(cell, str):
                reasons.setdefault(cell, []).append(column.title)
        everything = {len(self.cells): "all"}
        return [f"{everything.get(len(titles), ', '.join(titles))}: {why}" for why, titles in reasons.items()]
