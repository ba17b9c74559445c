"""`coldtune grid`: the same images under every setting of a study, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from coldtune.cli.common import Commands, add_home_flag, find_home, find_study
from coldtune.cli.outputs import add_overwrite_flag, new_file, write_bytes
from coldtune.places import STREAMS

if TYPE_CHECKING:
    from torch import Tensor

    from coldtune.cli.grid_cells import Choice, Group, Key
    from coldtune.reports.matrix import Cell, Matrix
    from coldtune.studies.trials.reading import StudyReader

_MOST_IMAGES = 64
_MOST_ANIMATED = 8  # images of a sampling whose path the store keeps

DESCRIPTION = """
Draw the same images under every setting of a study as a PNG file. KEY is a key in which settings differ, such as T or
degradation.steps: the search varies it, variants or the arms of a design differ in it, or it is derived. If several
trials of a cell have finished, the best by the first objective is shown, and its number is below the images. A cell
without a finished trial stays empty.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "grid",
        help="draw the same images under every setting of a study",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_home_flag(parser)
    parser.add_argument("study", metavar="STUDY", help="name of the study")
    for flag, default in (("rows", "a single row"), ("columns", "one column")):
        parser.add_argument(
            f"--{flag}",
            action="append",
            metavar="KEY",
            help=f"the key whose values are the {flag} (default: {default})",
        )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the PNG file (default: grid.png)")
    add_overwrite_flag(parser)
    parser.add_argument(
        "--images", type=int, default=4, metavar="N", help="images in each cell, the first of the protocol (default 4)"
    )
    parser.add_argument(
        "--difference",
        action="store_true",
        help="beside each image, draw its difference to the original: red is brighter, blue is darker",
    )
    parser.add_argument(
        "--animate", action="store_true", help="draw the path of the sampling from x_T to x_0 as an animated PNG"
    )
    parser.set_defaults(call=_draw)


def _draw(options: argparse.Namespace, console: Console) -> int:
    file = _check_flags(options)
    if str(file) in STREAMS:
        console = Console(stderr=True, markup=False)  # the picture is the output
    folder = find_study(find_home(options), options.study)

    from coldtune.cli import grid_cells as cells
    from coldtune.studies.trials.reading import find_dataset, read_study
    from coldtune.studies.trials.stored_images import originals

    reader = read_study(folder)
    keys = {flag: cells.find_key(reader, f"--{flag}", key) for flag, key in _keys(options).items()}
    if len({key.name for key in keys.values()}) < len(keys):
        raise ValueError(f"--columns {_keys(options)['columns']}: is the key of the rows too. Name another key.")
    groups = {flag: _groups(reader, flag, keys.get(flag)) for flag in ("rows", "columns")}
    choices = cells.choose(reader, groups["rows"], groups["columns"])
    protocol = cells.protocol_of(folder.name, (choice for row in choices for choice in row))
    dataset = find_dataset(folder, reader.spec, folder.start()["fingerprint"])
    clean = originals(dataset, protocol, options.images)
    if options.difference and clean is None:
        raise ValueError(f"--difference: study {folder.name} generates images, so there are no originals")
    axes = tuple(cells.axis(keys.get(flag), groups[flag]) for flag in ("rows", "columns"))
    count = min(options.images, protocol.num_images)
    matrix = _Drawing(reader, choices, clean, count, options.difference).matrix(axes, options.animate)

    from coldtune.reports.matrix import animated, draw, still

    pictures = draw(matrix)
    write_bytes(file, animated(pictures) if options.animate else still(pictures[0]))
    _print_choices(console, groups, choices)
    size = f"{pictures[0].width} x {pictures[0].height} pixels"
    frames = f", {len(pictures)} frames" if options.animate else ""
    console.print(Text(f"{file} ({size}{frames})"), soft_wrap=True)
    return 0


def _check_flags(options: argparse.Namespace) -> Path:
    """Return the output file. Raise ValueError for wrong flags, before anything is loaded."""
    if not _keys(options):
        raise ValueError("grid: name a key that varies with --rows KEY, --columns KEY, or both")
    most = _MOST_ANIMATED if options.animate else _MOST_IMAGES
    if not 1 <= options.images <= most:
        why = ", because the store keeps the path of the first images only" if options.animate else ""
        raise ValueError(f"--images {options.images}: allowed: 1 to {most}{why}")
    file = new_file(options.output or Path("grid.png"), "--output", options.overwrite)
    if file.suffix.lower() != ".png" and str(file) not in STREAMS:
        raise ValueError(f"--output {options.output}: must end in .png, because the picture is a PNG file")
    return file


def _keys(options: argparse.Namespace) -> dict[str, str]:
    keys = {flag: named for flag in ("rows", "columns") if (named := getattr(options, flag))}
    for flag, named in keys.items():
        if len(named) > 1:
            raise ValueError(
                f"--{flag} {named[-1]}: a picture has a single key of its {flag}, but {named[0]} is one too"
            )
    return {flag: key for flag, (key,) in keys.items()}


def _groups(reader: StudyReader, flag: str, key: Key | None) -> list[Group]:
    from coldtune.cli import grid_cells as cells

    return cells.everything() if key is None else cells.group_values(reader, f"--{flag}", key)


class _Drawing:
    """The pictures of a study's trials, as cells of a matrix."""

    def __init__(
        self,
        reader: StudyReader,
        choices: list[list[Choice]],
        clean: Tensor | None,
        count: int,
        difference: bool,
    ) -> None:
        self.reader, self.choices, self.clean, self.count = reader, choices, clean, count
        self.scale: float | None = None
        self.difference = difference

    def matrix(self, axes: tuple[object, ...], animate: bool) -> Matrix:
        """Return the matrix. ValueError if no trial has images left."""
        from coldtune.reports.matrix import Matrix, Text

        frames = self._paths() if animate else [[[self._images(choice) for choice in row] for row in self.choices]]
        shown = [images for frame in frames for row in frame for images, _ in row if images is not None]
        if not shown:
            name = self.reader.study.study_name
            raise ValueError(
                f"study {name}: the images of its trials are no longer in the store, or are damaged. "
                "`coldtune evaluate STUDY/NUMBER` makes them again."
            )
        if self.difference and self.clean is not None:
            self.scale = self._largest_difference(shown)
        cells = [[[self._cell(c, *place) for c, place in zip(r, places, strict=True)]
                  for r, places in zip(self.choices, frame, strict=True)] for frame in frames]  # fmt: skip
        lead = None if self.clean is None else ("original", [self._original()] * len(self.choices))
        across = 2 if self.difference else max(1, round(self.count**0.5))
        rows, columns = axes
        return Matrix(rows, columns, cells, across, Text(self._title(animate), self._foot(animate), self.scale), lead)  # type: ignore[arg-type]

    def _images(self, choice: Choice) -> tuple[Tensor | None, str]:
        from coldtune.studies.trials.stored_images import sampled_images

        return (None if choice.trial is None else sampled_images(self.reader, choice.trial, self.count)), ""

    def _paths(self) -> list[list[list[tuple[Tensor | None, str]]]]:
        """Return by frame the iterates of each cell. Shorter paths stand still, so that all end together."""
        from coldtune.studies.trials.stored_images import sampling_path

        paths = [[sampling_path(self.reader, c.trial, self.count) if c.trial else [] for c in row]
                 for row in self.choices]  # fmt: skip
        length = max((len(path) for row in paths for path in row), default=0)
        frames = []
        for frame in range(length):
            share = frame / max(length - 1, 1)
            frames.append([[_at(path, share) for path in row] for row in paths])
        return frames

    def _largest_difference(self, shown: list[Tensor]) -> float:
        from coldtune.reports.matrix import difference

        assert self.clean is not None
        largest = max(float(difference(images, self.clean[: len(images)]).abs().max()) for images in shown)
        return max(largest, 1 / 255)

    def _cell(self, choice: Choice, images: Tensor | None, more: str) -> Cell:
        from coldtune.cli.grid_cells import describe_value
        from coldtune.reports.matrix import Cell

        if choice.trial is None:
            return Cell(None, [choice.describe()])
        if images is None:
            return Cell(None, [f"trial {choice.name(choice.trial.number)}: its images cannot be read"])
        lines = [choice.describe(), describe_value(self.reader, choice), *([more] if more else [])]
        return Cell(self._with_difference(images), lines)

    def _original(self) -> Cell:
        from coldtune.reports.matrix import Cell

        return Cell(self.clean, across=1 if self.difference else None)

    def _with_difference(self, images: Tensor) -> Tensor:
        """Return each image followed by its difference to the original."""
        import torch

        from coldtune.reports.matrix import colours, difference

        if self.scale is None or self.clean is None:
            return images
        maps = colours(difference(images, self.clean[: len(images)]), self.scale)
        return torch.stack([images.expand(-1, 3, -1, -1), maps], dim=1).flatten(0, 1)

    def _title(self, animate: bool) -> str:
        what = "sampling from x_T to x_0" if animate else "sampled images"
        return f"{self.reader.study.study_name}: {what}"

    def _foot(self, animate: bool) -> list[str]:
        from coldtune.studies.progress.text import metric_name

        metric = metric_name(self.reader.spec.objective.metric)
        several = "" if self.count == 1 else f"{self.count} "
        foot = [f"Every cell shows the same {several}image{'s' * (self.count > 1)}."]
        if self.clean is None:  # different settings generate different images
            foot = [f"Every cell is generated from the same {several}draw{'s' * (self.count > 1)} of the prior."]
        if any(choice.finished > 1 for row in self.choices for choice in row):
            foot[0] += f" Of several settings, it shows the best by {metric}."
        if any(choice.spread and choice.spread.n > 1 for row in self.choices for choice in row):
            foot.append(f"{metric}: mean ± standard deviation (trainings). The images are those of the first training.")
        if animate:
            foot[0] += f" {metric} is that of the images at s = 0."
        if self.difference:
            foot.append("Right of each image: image - original, mean over the channels, on a scale of -1 to 1.")
        return foot


def _at(path: list[tuple[int, Tensor]], share: float) -> tuple[Tensor | None, str]:
    if not path:
        return None, ""
    s, images = path[round(share * (len(path) - 1))]
    return images, f"s = {s} of {path[0][0]}"


def _print_choices(console: Console, groups: dict[str, list[Group]], choices: list[list[Choice]]) -> None:
    """Print the trial of each cell in which several have finished, and the trials that have not finished."""
    empty = 0
    for row, line in zip(groups["rows"], choices, strict=True):
        for column, choice in zip(groups["columns"], line, strict=True):
            if choice.finished > 1 or choice.others:
                place = " / ".join(filter(None, (row.label, column.label)))
                console.print(Text(f"{place}: {choice.describe()}"), soft_wrap=True)
            empty += choice.trial is None
    if empty:
        total = sum(map(len, choices))
        console.print(
            Text(f"{empty} of {total} cells {'has' if empty == 1 else 'have'} no finished trial"), soft_wrap=True
        )
