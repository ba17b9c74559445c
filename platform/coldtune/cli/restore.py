"""`coldtune restore`: restore your own pictures with the network of a finished trial."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from coldtune.cli.common import Commands
from coldtune.cli.finished_run import RUN, add_compute_flags, add_run_flags, find_finished, prepare_device
from coldtune.cli.outputs import new_folder, write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from coldtune.data.pictures import Picture
    from coldtune.stages.restore import Restored

SHEET = "side-by-side"
_MOST_ROWS = 40  # of the sheet
_LABEL_LETTERS, _LABEL_LINES = 24, 3
_MOST_SEED = 2**32 - 1
_LONGEST_NAME = 200  # bytes; file systems allow 255

DESCRIPTION = f"""
Restore your own pictures with the network and the sampler of a finished trial. Pictures of another size are cropped to
a square and resized, as datasets are. They are degraded here, unless --degraded says that they are degraded already.

The output folder gets a PNG file for each restored picture, and {SHEET}.png.
{RUN}"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "restore",
        help="restore your own pictures with the network of a finished trial",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_run_flags(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGES", help="image files, or folders of image files")
    parser.add_argument(
        "--degraded", action="store_true", help="the pictures are degraded already, as the trial's D(x, T) would do it"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="a new or empty folder for the results (default: restored)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed of the degradation's draws (default: the trial's protocol.seed)"
    )
    add_compute_flags(parser, "default 1")
    parser.set_defaults(call=_restore)


def _restore(options: argparse.Namespace, console: Console) -> int:
    folder = _check_flags(options)

    from coldtune.data.pictures import describe_changes, list_pictures, read_pictures

    files = list_pictures(options.images)
    device = prepare_device(options)
    run, store, _ = find_finished(options)
    pictures = read_pictures(files, run.dataset.image_shape, run.config.data.resize)

    import torch

    from coldtune.stages.restore import Restoration

    restoration = Restoration(run, store, device, options.degraded)
    for sentence in [*describe_changes(pictures), *restoration.notices]:
        console.print(Text(sentence), soft_wrap=True)
    pixels = torch.stack([picture.pixels for picture in pictures])
    restored = restoration.run_on(pixels, options.seed)
    _write(folder, pictures, None if options.degraded else pixels, restored, console)
    console.print(Text(_describe(folder, len(pictures), run.name)), soft_wrap=True)
    return 0


def _check_flags(options: argparse.Namespace) -> Path:
    """Return the output folder. Raise ValueError for wrong flags, before anything is loaded."""
    if options.seed is not None and not 0 <= options.seed <= _MOST_SEED:
        raise ValueError(f"--seed {options.seed}: allowed: 0 to {_MOST_SEED:,}")
    if options.seed is not None and options.degraded:
        raise ValueError("--seed: has no effect with --degraded, because nothing is degraded here. Leave it out.")
    return new_folder(options.output or Path("restored"), "--output")


def _write(
    folder: Path, pictures: Sequence[Picture], originals: Tensor | None, restored: Restored, console: Console
) -> None:
    from coldtune.reports.matrix import still
    from coldtune.reports.pictures import to_picture

    folder.mkdir(parents=True, exist_ok=True)
    best = restored.direct if restored.sampled is None else restored.sampled
    names = unique_names([picture.path for picture in pictures])
    for name, image in zip(names, best, strict=True):
        write_bytes(folder / f"{name}.png", still(to_picture(image)))
    write_bytes(folder / f"{SHEET}.png", still(_sheet(pictures, originals, restored)))
    if originals is not None:
        console.print(Text(_errors(originals, restored)), soft_wrap=True)


def _describe(folder: Path, count: int, run: str) -> str:
    """Return a line about the files that were written, and the trial whose network restored them."""
    pictures = "1 picture" if count == 1 else f"{count:,} pictures"
    more = f" of the first {_MOST_ROWS}" if count > _MOST_ROWS else ""
    return f"{folder}: {pictures} restored by {run}, and {SHEET}.png{more}"


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return a name without suffix for each file: its own, with a number if another file has that name already.

    Names are cut to `_LONGEST_NAME` bytes, because the name of a scratch file is longer.
    """
    taken, names = {SHEET}, []
    for path in paths:
        encoded = os.fsencode(path.stem)
        stem = path.stem if len(encoded) <= _LONGEST_NAME else encoded[:_LONGEST_NAME].decode(errors="ignore")
        name, number = stem, 2
        while name.lower() in taken:  # some file systems do not distinguish upper case
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def _sets(originals: Tensor | None, restored: Restored) -> dict[str, Tensor]:
    sets = (originals, restored.degraded, restored.direct, restored.sampled)
    names = ("original", "degraded", "direct", "sampled")
    return {name: images for name, images in zip(names, sets, strict=True) if images is not None}


def _sheet(pictures: Sequence[Picture], originals: Tensor | None, restored: Restored) -> object:
    from coldtune.reports.gallery.sheet import Row, sheet

    sets = _sets(originals, restored)
    rows = []
    for i, picture in enumerate(pictures[:_MOST_ROWS]):
        captions = []
        if originals is not None:
            captions = ["", *(f"RMSE {_rmse(sets[name][i], originals[i]):.3f}" for name in list(sets)[1:])]
        rows.append(Row([images[i] for images in sets.values()], label(picture.path.name), captions))
    return sheet(rows, list(sets))


def label(name: str) -> str:
    """Return a file's name in a few lines that fit beside its pictures."""
    return "\n".join(textwrap.wrap(name, _LABEL_LETTERS, max_lines=_LABEL_LINES, placeholder="..."))


def _errors(originals: Tensor, restored: Restored) -> str:
    sets = _sets(originals, restored)
    values = [f"{name} {_rmse(images, originals):.4f}" for name, images in sets.items() if name != "original"]
    return f"RMSE to the originals, on a scale of 0 to 1: {', '.join(values)}"


def _rmse(images: Tensor, originals: Tensor) -> float:
    return float((images.double() - originals.double()).square().mean().sqrt()) / 255
