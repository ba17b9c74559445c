"""The content of a study's report. Every format renders this document, and nothing else.

All fields are plain values, so the document is also the report for programs (`coldtune.reports.page.as_json`). The
rendering never computes a number, and the document knows nothing of HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

SCHEMA = 1
"""The version of the JSON form. It grows if a field changes its meaning or goes. New fields do not change it."""

BACKGROUND = "background"
"""The series that is drawn faintly behind the others."""


@dataclass(frozen=True)
class Axis:
    """An axis of a figure.

    Attributes:
        label: The name of its quantity.
        log: True for a logarithmic axis.
        choices: The labels of an axis without numbers. A coordinate is the place of its label, from 0 on.
    """

    label: str
    log: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """A point of a chart.

    Attributes:
        x, y: Its coordinates.
        text: Its name and its values, for readers who point at it or hear it.
        group: Its series.
        low, high: The ends of its line along y, such as its 95 % interval, if they are known.
        x_low, x_high: The same along x.
    """

    x: float
    y: float
    text: str
    group: str = ""
    low: float | None = None
    high: float | None = None
    x_low: float | None = None
    x_high: float | None = None


@dataclass(frozen=True)
class Line:
    """A line of a chart through points (x, y)."""

    text: str
    points: tuple[tuple[float, float], ...]
    group: str = ""


@dataclass(frozen=True)
class Chart:
    """Points and lines over two axes.

    Attributes:
        title: The heading.
        summary: The main numbers in words, for readers who do not see the chart.
        note: A hint for reading the chart, or "".
    """

    title: str
    summary: str
    x: Axis
    y: Axis
    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()
    note: str = ""
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True)
class Estimate:
    """A row of a forest plot.

    Attributes:
        label: The name of the estimated quantity.
        value: The estimate.
        text: The estimate as printed, with its interval or spread.
        low, high: The ends of the line through it, if they are known.
        each: The single values behind it, such as those of trainings.
        group: Its series.
    """

    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    each: tuple[float, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Forest:
    """Estimates below each other on a common axis.

    Attributes:
        zero: True if 0 means no effect. A line is drawn there.
    """

    title: str
    summary: str
    axis: Axis
    rows: tuple[Estimate, ...]
    zero: bool = False
    note: str = ""
    kind: Literal["forest"] = "forest"


@dataclass(frozen=True)
class Path:
    """A setting of a plot of parallel coordinates: its value on each axis, None if it has no value there."""

    values: tuple[float | None, ...]
    text: str
    group: str = ""


@dataclass(frozen=True)
class Parallel:
    """Settings as lines over parallel axes."""

    title: str
    summary: str
    axes: tuple[Axis, ...]
    paths: tuple[Path, ...]
    note: str = ""
    kind: Literal["parallel"] = "parallel"


Figure: TypeAlias = Chart | Forest | Parallel


@dataclass(frozen=True)
class TableRow:
    """A row of a table as text. A row with a single cell is a heading above the rows that follow it."""

    cells: tuple[str, ...]
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        caption: A name for the rows, and their order.
        heads: The headings of the columns.
        numeric: True for each column of numbers.
        rows: The rows in the order in which they are shown.
        foot: The lines below the table.
    """

    caption: str
    heads: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[TableRow, ...]
    foot: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spread:
    """The standard deviation of a metric between the trainings of a setting, and their number."""

    sd: float | None
    n: int


@dataclass(frozen=True)
class Row:
    """A trial, or a setting of a study with replicates, with all its numbers.

    Attributes:
        number: Its number.
        name: Its name in sentences, for example `trial 3`.
        state: Its state, as tables show it.
        params: The varied values by short name.
        metrics: The metrics by name. Of a setting, their means.
        spreads: Of a setting, the spread of each metric between trainings.
        seconds: The wall time of its trials.
        saved: The seconds of work that was found in the store.
        note: The reason why it failed or was pruned, and its relation to other trials.
        best: True if it is the best, or not beaten in all objectives by another.
        as_good_as_best: True if it has the best mean, or cannot be told apart from the best. None without verdicts.
        p_value: The p-value of its comparison, adjusted by Holm. A line below the table names the comparison.
        repeat: The commands that repeat its finished trials.
    """

    number: int
    name: str
    state: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    seconds: float | None = None
    saved: float | None = None
    note: str = ""
    best: bool = False
    as_good_as_best: bool | None = None
    p_value: float | None = None
    repeat: tuple[str, ...] = ()


@dataclass(frozen=True)
class Strip:
    """A row of images of one setting.

    Attributes:
        label: The setting.
        alt: The picture in words.
        media: The media type, `image/png` or `image/webp`.
        width, height: The size in pixels.
        data: The file in Base64.
    """

    label: str
    alt: str
    media: str
    width: int
    height: int
    data: str


@dataclass(frozen=True)
class MorePictures:
    """Further pictures of the settings: their differences to the originals, or their sampling paths.

    Attributes:
        strips: A row for each setting.
        moving: A row for each setting, with an animated picture. They are hidden until a reader asks for them.
    """

    title: str
    note: str
    strips: tuple[Strip, ...]
    moving: tuple[Strip, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """The same images under several settings.

    Attributes:
        note: The place of the images in the dataset, or the reason why there are none.
        strips: A row for each setting. The first is that of the originals, if there are any.
        more: Further pictures of the same settings.
    """

    note: str
    strips: tuple[Strip, ...] = ()
    more: tuple[MorePictures, ...] = ()


@dataclass(frozen=True)
class Importance:
    """The importance of each key.

    Attributes:
        sentences: The answer, or why there is none.
        figures: The shares with their intervals.
        notes: The meaning of the numbers.
    """

    sentences: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """A health check.

    Attributes:
        title: The subject of the check.
        sentence: Its result.
        todo: Advice, or "".
        level: "ok", "note" or "warning".
        command: A command that does it. "" if there is none.
    """

    title: str
    sentence: str
    todo: str = ""
    level: Literal["ok", "note", "warning"] = "note"
    command: str = ""


@dataclass(frozen=True)
class Fact:
    """A heading and its text. A text of the kind `command` is for a shell."""

    head: str
    text: str
    command: bool = False


@dataclass(frozen=True)
class Report:
    """The whole report of a study. The fields have the order of the page.

    Attributes:
        study: The name of the study.
        state: The progress of the study, as a sentence.
        complete: True if all trials of the study have ended.
        question: The question in sentences.
        keys: The keys that vary, with their values.
        answer: The answer in sentences, the most important first.
        headline: The figure that shows the answer.
        table: The table of trials or settings, or the table of the paper.
        trials: The table of trials below a table of the paper.
        rows: The numbers behind the table.
        pictures: The same images of the base, the best and the runner-up.
        importance: The importance of the keys.
        effects: The effects of a design.
        effects_figure: The settings behind the effects, or the effects themselves if the headline shows the settings.
        search: Figures of the search.
        checks: Health checks, with advice.
        provenance: The code, data and machines behind the numbers, and their cost.
        protocol: All parts of the protocol.
        commands: The commands that made the study and that repeat a row.
    """

    study: str
    state: str
    complete: bool
    question: tuple[str, ...]
    keys: Table | None
    answer: tuple[str, ...]
    headline: Figure | None
    table: Table
    rows: tuple[Row, ...]
    trials: Table | None = None
    pictures: Pictures | None = None
    importance: Importance | None = None
    effects: Table | None = None
    effects_figure: Figure | None = None
    search: tuple[Figure, ...] = ()
    checks: tuple[Check, ...] = ()
    provenance: tuple[Fact, ...] = ()
    protocol: Mapping[str, Any] | None = None
    commands: tuple[Fact, ...] = ()
    schema: int = SCHEMA
