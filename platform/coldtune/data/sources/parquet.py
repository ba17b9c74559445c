"""The user's own images in Parquet files, in the layout in which Hugging Face stores datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldtune.config import digest
from coldtune.data.decode import LARGEST_BYTES
from coldtune.data.encoded import Encoded
from coldtune.data.file_collections import FileCollection, FolderFiles, ReadFile
from coldtune.data.parquet import Columns, Rows, look_at_labels, missing_shards, read_images
from coldtune.data.progress import Bars
from coldtune.data.regular_files import check_memory, hash_file
from coldtune.data.source import Source
from coldtune.data.sources.folder import LEAST
from coldtune.data.sources.layout import group_splits, split_of_shard

_COLUMNS = Columns(image=("image", "img"), label=None, most_image_bytes=LARGEST_BYTES, most_bytes=1 << 34, plain=True)
_NAMED = 5  # missing files that a message names


@dataclass(frozen=True)
class _RowFiles(FileCollection):
    """The images in Parquet files, as a collection of files. The name of an image is FILE, row NUMBER.

    Attributes:
        content: The encoded image of each name.
    """

    content: Mapping[str, bytes] = field(default_factory=dict)

    @contextmanager
    def open(self) -> Iterator[ReadFile]:
        """Return the images from memory."""
        yield lambda name: self.content[name]

    def describe(self, name: str) -> str:
        """Return the file's path and the row."""
        return f"{self.path / name}: the image"


class Parquet(Source):
    """The images of all Parquet files below `--data-dir`, decoded as RGB.

    Each file has a column `image` (or `img`): a struct with the encoded image in `bytes`, or the encoded image itself.
    A column `label` of integers, texts or booleans is optional. The names of files and folders tell the splits, as in
    `train-00000-of-00002.parquet` or `test/0000.parquet`. What they do not tell is split by the hash of each image.
    """

    name = "parquet"
    channels = 3
    num_classes = 1
    version = 2
    reads_everything = True
    needs = "Parquet files (*.parquet) with a column image (bytes, path), there or in folders inside"

    def locate(self, data_dir: Path) -> list[Path]:
        """Find all Parquet files, or return the file that `data_dir` is.

        Raises:
            ValueError: If shards are missing, or some files name a split and others do not.
        """
        if data_dir.is_file():
            return [data_dir]
        names = [name for name in FolderFiles.find(data_dir).names if name.lower().endswith(".parquet")]
        paths = [data_dir / name for name in names]
        if missing := missing_shards(paths):
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise ValueError(f"{data_dir} lacks Parquet files: {', '.join(missing[:_NAMED])}{more}")
        splits = _splits_of(paths)
        found = {split for split in splits.values() if split}
        if unknown := [path for path, split in splits.items() if split is None and found]:
            raise ValueError(f"{unknown[0]}: other files name a split, as train-*.parquet does, but this one does not")
        if found and "train" not in found:
            raise ValueError(f"{paths[0]}: there are Parquet files of {', '.join(sorted(found))}, but none of train")
        return paths

    def download(self, folder: Path, bars: Bars) -> list[Path]:
        """Raise ValueError, because the images are the user's own."""
        raise ValueError("there is no automatic download")

    def files(self, data_dir: Path | None, downloads: Path, bars: Bars) -> list[Path]:
        """Return the Parquet files. A single file may be named too."""
        if data_dir is not None and data_dir.is_file():
            return self.locate(data_dir)
        if data_dir is None:
            raise ValueError(f"{self.name}: there is no automatic download: pass --data-dir PATH with {self.needs}")
        return super().files(data_dir, downloads, bars)

    def identity(self, files: Sequence[Path], bars: Bars) -> str:
        """Return the SHA-256 of the files' splits and contents. Their order and their names are no part of it."""
        contents = sorted((split or "", hash_file(path)) for path, split in _splits_of(files).items())
        return digest({"name": self.name, "version": self.version, "files": contents})

    def classes(self, files: Sequence[Path]) -> tuple[str, ...]:
        """Return the names of the labels, or () if the images have no labels."""
        return _classes(_read(files))[0]

    def notices(self, files: Sequence[Path]) -> list[str]:
        """Return a sentence if there are labels that tell no classes, or columns that may hold labels."""
        looks = {path: look_at_labels(path) for path in files}
        labelled = [path for path, look in looks.items() if look.there]
        problem = next((look.problem for look in looks.values() if look.problem), "")
        if not problem and labelled and len(labelled) < len(looks):
            without = next(path for path, look in looks.items() if not look.there)
            problem = f"{without}: has no column label, but {labelled[0]} has"
        if problem:
            return [f"{problem}, so no image has a label"]
        similar = next(((path, look.similar) for path, look in looks.items() if look.similar), None)
        if similar is None:
            return []
        return [f"{similar[0]}: labels are read from the column label alone, and not from {', '.join(similar[1])}"]

    def read(self, files: Sequence[Path], bars: Bars) -> Mapping[str, Encoded]:
        """Read the encoded images of each part into memory."""
        rows = _read(files)
        total = sum(len(table.images) for table in rows.values())
        if total < LEAST:
            raise ValueError(f"{files[0]}: contains {total} image{'s' * (total != 1)}; at least {LEAST} are needed")
        check_memory(str(files[0].parent), sum(len(data) for table in rows.values() for data in table.images))
        _, labels = _classes(rows)
        folder = files[0].parent
        content: dict[str, bytes] = {}
        names: dict[Path, list[str]] = {}
        for path, table in rows.items():
            where = path.relative_to(folder) if path.is_relative_to(folder) else path
            names[path] = [f"{where}, row {number}" for number in range(len(table.images))]
            content |= dict(zip(names[path], table.images, strict=True))
        images = _RowFiles(folder, tuple(content), content)
        split_of = {str(path): split for path, split in _splits_of(files).items()}
        return {
            part: Encoded(
                images,
                [name for path in paths for name in names[Path(path)]],
                np.concatenate([labels[Path(path)] for path in paths]),
                self.channels,
                bars,
            )
            for part, paths in group_splits(split_of).items()
        }


def _splits_of(paths: Sequence[Path]) -> dict[Path, str | None]:
    """Return the split that the name of each file, or of a folder beside others, tells."""
    depth = min(len(path.parts) for path in paths) - 1 if paths else 0
    # Folders that are around all files say where the dataset lies, not which split a file has.
    shared = next((n for n in range(depth) if len({path.parts[n] for path in paths}) > 1), depth)
    splits = {path: split_of_shard("/".join(path.parts[shared:])) for path in paths}
    return dict.fromkeys(paths) if len(set(splits.values())) == 1 else splits


def _read(files: Sequence[Path]) -> dict[Path, Rows]:
    return {path: read_images(path, _COLUMNS) for path in files}


def _classes(rows: Mapping[Path, Rows]) -> tuple[tuple[str, ...], dict[Path, npt.NDArray[np.int64]]]:
    """Return the names of the classes, and the label of each image of each file as an index of these names.

    Without labels in every file, or with a label that is null or below 0 (which stand for an unknown label), there are
    no classes.
    """
    values = {label for table in rows.values() for label in table.labels}
    complete = all(len(table.labels) == len(table.images) for table in rows.values())
    known = complete and not any(value is None or (isinstance(value, int) and value < 0) for value in values)
    if not known or len(values) < 2 or len({type(value) for value in values}) > 1:
        return (), {path: np.zeros(len(table.images), np.int64) for path, table in rows.items()}
    ordered: list[Any] = sorted(values)  # of one type, and not None
    index = {value: number for number, value in enumerate(ordered)}
    told = next((table.classes for table in rows.values() if table.classes), ())
    names = tuple(told[v] if isinstance(v, int) and v < len(told) else str(v) for v in ordered)
    return names, {path: np.array([index[label] for label in table.labels]) for path, table in rows.items()}
